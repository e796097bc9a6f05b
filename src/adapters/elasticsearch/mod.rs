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
//! adapter     the questions of a rollout, answered with these
//! ```
//!
//! # Invariants
//!
//! * What decides is a pure function of one look, and has tests of its own; what asks decides nothing.
//! * Nothing but `cluster.routing.allocation.enable` and the upgrade mode of machine learning is ever set.

mod adapter;
mod ask;
mod cluster;
mod health;
mod member;
mod predicates;
mod settings;
mod who;

pub(super) use adapter::Elasticsearch;
pub use ask::get;
#[cfg(test)]
pub(super) use predicates::NAMES as PREDICATES;
