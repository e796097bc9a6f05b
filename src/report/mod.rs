//! What a person reads: tables, progress, diffs. Knows nothing of commands.

mod progress;
mod push_progress;
mod table;
mod tree_diff;

pub use progress::{BuildProgress, bytes_bar};
pub use push_progress::PushProgress;
pub use table::Table;
pub use tree_diff::{Change, ContentChange, TreeDiff, unified};
