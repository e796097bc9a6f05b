//! The only place that renames, links, locks and fsyncs. Everything else calls it.
//!
//! # Invariants
//!
//! * A name appears only once its content is complete and on the disk.
//! * A replaced file is the old one or the new one at every moment, never neither.
//! * Work that is given up leaves nothing: unfinished files have no name where the file system allows it.

mod error;
mod lock;
mod staged;

pub use error::{IoError, IoResultExt};
pub use lock::{DirLock, LockKind};
pub use staged::{Staged, clear_leftovers, is_leftover, replace, sync_dir};
