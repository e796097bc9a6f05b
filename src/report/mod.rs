//! What a person reads: tables, progress, diffs. Knows nothing of commands.

mod check_text;
mod plan_text;
mod progress;
mod push_progress;
mod rollout_html;
mod rollout_text;
mod rollout_view;
mod shown;
mod table;
mod tree_diff;

pub use check_text::check_text;
pub use plan_text::{plan_json, plan_text};
pub use progress::{BuildProgress, bytes_bar};
pub use push_progress::PushProgress;
pub use rollout_html::rollout_html;
pub use rollout_text::{finished_text, state_word, version};
pub use rollout_view::RolloutView;
pub use table::Table;
pub use tree_diff::{Change, ContentChange, TreeDiff, unified};
