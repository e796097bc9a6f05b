//! The only place that renames, links, locks and fsyncs. Everything else calls it.
//!
//! # Invariants
//!
//! * A name appears only once its content is complete and on the disk.
//! * A replaced file is the old one or the new one at every moment, never neither.
//! * Work that is given up leaves nothing: unfinished files have no name where the file system allows it.

mod append;
pub mod calls;
mod direct;
mod disk;
mod error;
mod lock;
mod open;
mod staged;
mod symlink;
mod tree;

pub use append::{AppendLog, cut_torn_line};
pub use direct::{ALIGNMENT, AlignedBuffer, is_direct, set_direct};
pub use disk::{Space, space, sync_file_system};
pub use error::{IoError, IoResultExt};
pub use lock::{DirLock, FileLock, LockKind, Look};
pub use open::{open_beneath, open_directory, open_directory_beneath, open_path_beneath};
pub use staged::{
    Staged, clear_leftovers, is_leftover, replace, replace_with_mode, sync_dir, temporary_name,
};
pub use symlink::{SwapError, read_symlink, symlink_remove, symlink_swap};
pub use tree::{move_over, remove_entry, remove_tree, rename_directory};
