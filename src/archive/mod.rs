//! Vendor archives as checked streams of entries; never unpacked to disk.

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
pub use globs::{GlobError, Globs};
pub use read::{Source, Summary, read};
pub use refusal::Refusal;
pub use selection::{Limits, Selection, Strip, StripError};
pub use visitor::{VisitError, Visitor};
