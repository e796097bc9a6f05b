//! How a rollout goes about it: waves, gates, what happens after a failure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Role, Span};

/// What is asked before a service may be taken out of its cluster, by name: each can be turned off.
pub const PREDICATES: &[&str] = &[
    // Elasticsearch and OpenSearch.
    "cluster-answers",
    "tiers-in-order",
    "max-unavailable",
    "not-stopping",
    "red-only-bad",
    "yellow-only-old",
    "started-copy",
    "one-master",
    "last-master",
    "shared-shards",
    "last-of-role",
    "leave-green",
    "leave-room",
    "leave-masters",
    // Kafka, Redis, ZooKeeper.
    "kafka-min-isr",
    "kafka-quorum",
    "kafka-replicas",
    "kafka-under-replicated",
    "redis-failover",
    "redis-in-sync",
    "redis-min-replicas",
    "zookeeper-in-sync",
    "zookeeper-quorum",
];

/// The policy of `[rollout]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// What a wave is made of.
    pub by: By,
    /// Roles in the order they go; those not named follow, by name.
    pub order: Vec<Role>,
    /// Nodes of a role down at a time.
    pub max_unavailable: MaxUnavailable,
    /// The size of the first wave; 0 for no canary.
    pub canary: u32,
    /// Whether a person says when it goes on after the canary.
    pub pause_after_canary: bool,
    /// How long a gate may take to hold.
    pub gate_timeout: Span,
    /// How long a gate must have held.
    pub min_healthy: Span,
    /// How long a wave may make no progress.
    pub progress_deadline: Span,
    /// Failed nodes that are put up with, over the whole rollout.
    pub max_failures: u32,
    /// What becomes of the rest after a failure.
    pub on_failure: OnFailure,
    /// After how long without a word a node goes back by itself; `None`: never.
    pub confirm_within: Option<Span>,
    /// Releases kept for each role and node.
    pub keep: u32,
    /// Predicates that are not asked before a service is stopped, by name.
    pub predicates_off: Vec<String>,
}

/// What goes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// One role after the other.
    Role,
    /// All changed roles of a node together.
    Node,
}

/// How many nodes of a role may be down at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaxUnavailable {
    /// So many; at least 1.
    Count(u32),
    /// This part of them, 1 to 100.
    Percent(u32),
}

impl MaxUnavailable {
    /// How many of `total` that are: rounded down, but at least 1.
    pub fn of(self, total: usize) -> usize {
        let part = match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => {
                usize::try_from(percent).map_or(total, |percent| total.saturating_mul(percent) / 100)
            }
        };
        part.max(1)
    }
}

/// What becomes of the rest after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The failed node goes back; the others stay as they are.
    RollbackNode,
    /// Every node of the rollout goes back.
    RollbackAll,
    /// Nothing goes back.
    Halt,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            by: By::Role,
            order: Vec::new(),
            max_unavailable: MaxUnavailable::Count(1),
            canary: 1,
            pause_after_canary: false,
            gate_timeout: Span(Duration::from_mins(10)),
            min_healthy: Span(Duration::from_secs(10)),
            progress_deadline: Span(Duration::from_mins(10)),
            max_failures: 0,
            on_failure: OnFailure::RollbackNode,
            confirm_within: Some(Span(Duration::from_mins(15))),
            keep: 3,
            predicates_off: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_node_may_be_down() {
        assert_eq!(MaxUnavailable::Count(2).of(9), 2);
        assert_eq!(MaxUnavailable::Percent(25).of(9), 2);
        assert_eq!(MaxUnavailable::Percent(25).of(3), 1);
    }
}
