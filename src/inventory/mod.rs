//! cluster.toml and the host lists: which nodes there are, what they run, how a rollout goes about it.
//!
//! Texts in, a [`Cluster`] or all their problems out; only [`load()`] touches the disk.

mod cluster;
mod decode;
mod decode_node;
mod decode_rollout;
mod forget;
mod hosts;
mod load;
mod rollout;
mod select;
#[cfg(test)]
mod tests;

pub use cluster::{Cluster, LintLevel, LintSetting, Node, Reach, Secret, SecretFrom, SshSettings, Vars};
pub use decode::read_cluster;
pub use forget::{ForgetError, list_without, lists_of, without_node, without_roles};
pub use load::{LoadError, load};
pub use rollout::{By, MaxUnavailable, OnFailure, PREDICATES, Rollout};
pub use select::{Selected, SelectionError};

pub use crate::model::SupervisorKind;
