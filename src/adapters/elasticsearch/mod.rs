//! Elasticsearch 6 to 9 and `OpenSearch`.
//!
//! ```text
//! ask         requests, with errors that say what to do
//! who         a node's own word: its name, version and cluster
//! member      nodes as their cluster sees them: roles, tiers, and the order in which they go
//! cluster     one look at a cluster: nodes, shards, health, who is away
//! predicates  what must hold before a node may be stopped, each a function of that look
//! health      whether the cluster has settled
//! settings    what a rollout changes in a cluster, and how that is put back
//! leave       a node that leaves for good: whether it may, what is left on it, whether it is gone
//! room        whether what it has fits on the others
//! voting      its vote
//! adapter     the questions of a rollout, answered with these
//! ```
//!
//! # Invariants
//!
//! * What decides is a pure function of one look, and has tests of its own; what asks decides nothing.
//! * Nothing but `cluster.routing.allocation.enable` and the upgrade mode of machine learning is ever set; where a
//!   node leaves for good, `cluster.routing.allocation.exclude._name`, a voting exclusion, and before 7 the number
//!   of masters that make a majority.

mod adapter;
mod ask;
mod cluster;
mod health;
mod leave;
mod member;
mod predicates;
mod room;
mod settings;
#[cfg(test)]
mod tests;
mod voting;
mod who;

pub(super) use adapter::Elasticsearch;
pub use ask::get;
#[cfg(test)]
pub(super) use leave::LEAVE_NAMES;
#[cfg(test)]
pub(super) use predicates::NAMES as PREDICATES;
