//! Vendor archives as checked streams of entries; never unpacked to disk.
//!
//! [`read()`] tells a [`Visitor`] of each member that a [`Selection`] takes, in the archive's order. An
//! [`ArchiveError`] names the archive and the member, and knows whether the archive was at fault.
//!
//! # Invariants
//!
//! * What a visitor is told could be unpacked into an empty directory, in any order, without a path ever
//!   leading through a symlink, a name meaning two things, or a link leading out of the bundle.
//! * `Ok` means that the artifact was read to its end, and that every checksum in it that covers what was
//!   taken was right.
//! * Nothing depends on this machine: neither modes, nor owners, nor the order of a directory.
//! * Memory is bounded by constants and the number of members, never by what an archive declares.
//!
//! # Not here
//!
//! No disk is written to, and no order imposed: sorting, normalising and packing are `bundle`'s and `build`'s.

mod codec;
mod content;
mod error;
mod format;
mod globs;
mod gzip;
mod input;
mod names;
mod pass;
mod pax;
mod read;
mod refusal;
mod selection;
mod single;
mod sniff;
mod sparse;
mod tar;
mod tree;
mod visitor;
mod zip;

pub use error::ArchiveError;
pub use format::{Compression, Format, FormatError};
pub use globs::{GlobError, Globs, Matcher};
pub use read::{Source, Summary, read};
pub use refusal::Refusal;
pub use selection::{Limits, Selection, Strip, StripError};
pub use visitor::{VisitError, Visitor};
