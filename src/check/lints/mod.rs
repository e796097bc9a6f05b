//! The lints, a file for each subject.

mod data;
mod discovery;
mod filters;
mod masters;
mod places;
mod quorums;
mod run;
mod zones;

pub(super) use filters::matches;
pub use run::lint;
