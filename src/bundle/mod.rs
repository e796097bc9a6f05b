//! The bundle's format: canonical tar, pieces, frames, table of contents, manifest. `docs/format.md` has it in full.
//!
//! Everything here works on bytes, readers and writers; where they come from and go to is for
//! [`crate::store`] and [`crate::build`].

pub mod blob;
mod entry;
pub mod frame;
pub mod layout;
pub mod manifest;
mod record;
pub mod tar;
mod toc;
pub mod tree;

pub use blob::{PlaceError, TocPlace};
pub use entry::{Entry, Node};
pub use manifest::{Composed, Layer, Manifest, ManifestError};
pub use record::{Artifact, PersistDir, RECORD_FORMAT, RECORD_PATH, Record, RecordError};
pub use toc::{Frame, TOC_FORMAT, Toc, TocError};
pub use tree::{Tree, TreeError};
