//! The bundle's format: canonical tar, pieces, frames, table of contents, manifest. `docs/format.md` has it in full.
//!
//! Everything here works on bytes, readers and writers; where they come from and go to is for
//! [`crate::store`] and [`crate::build`].

pub mod blob;
mod entry;
pub mod frame;
pub mod layout;
pub mod tar;
mod toc;

pub use blob::{PlaceError, TocPlace};
pub use entry::{Entry, Node};
pub use toc::{Frame, TOC_FORMAT, Toc, TocError};
