//! A rollout as data: waves of nodes, each with its typed steps. Decided before anything runs.
//!
//! # Invariants
//!
//! * A node's `from` is fixed when the plan is made: going back never guesses.
//! * Whatever the engine may choose is chosen here; it only finds out whether things work.

use serde::{Deserialize, Serialize};

use super::ports::{Fault, NodeError};
use super::prepare::check;
use super::step::Step;
use crate::agent::{NodeStatus, ReleaseName, Setting};
use crate::inventory::{OnFailure, Rollout};
use crate::model::{Digest, NodeName, Role, Span, Timestamp, Version};

/// The version of a plan's file; a newer one is refused.
pub const PLAN_FORMAT: u32 = 1;

/// What a rollout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// To other bundles.
    Promote,
    /// To releases that are on the nodes.
    Rollback,
    /// To the same releases, started anew.
    Restart,
    /// Out of the cluster, for good.
    Leave,
}

impl Kind {
    /// The command that makes such a rollout.
    pub fn command(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Restart => "restart",
            Self::Leave => "leave",
        }
    }
}

/// What shall be current on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// A release of this bundle; the node names it when it is staged.
    Bundle(Digest),
    /// A release that is there.
    Release(ReleaseName),
    /// No release.
    Nothing,
}

/// One role on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is an answer to a question of its own")]
pub struct NodePlan {
    /// The node.
    pub node: NodeName,
    /// The role.
    pub role: Role,
    /// The version that is current.
    pub from: Option<Version>,
    /// The version that shall be.
    pub to: Option<Version>,
    /// The release that is current.
    pub from_release: Option<ReleaseName>,
    /// What going back goes to, if that is another: an earlier rollout made the target current, and nobody has
    /// confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goes_back_to: Option<ReleaseName>,
    /// What shall be current.
    pub goal: Goal,
    /// The failure zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Something runs.
    pub service: bool,
    /// What is current was running and nothing was wrong with it.
    pub healthy: bool,
    /// The service is asked to leave its cluster first, and to join it again after.
    #[serde(default)]
    pub drains: bool,
    /// The service is not stopped: it is told to read its conf again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reloads: bool,
    /// Bytes that have to be sent, at most.
    pub bytes_to_send: u64,
    /// Files that come.
    pub files_added: u64,
    /// Files that go.
    pub files_removed: u64,
    /// Files that change.
    pub files_changed: u64,
    /// Going back would lose data.
    pub point_of_no_return: bool,
    /// Of what templates see on the node besides secrets, as it was when the plan was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Digest>,
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

impl NodePlan {
    /// What going back goes to.
    pub fn prior(&self) -> Option<&ReleaseName> {
        self.goes_back_to.as_ref().or(self.from_release.as_ref())
    }
}

/// Nodes that are changed at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// The first of its role: others wait for what becomes of it.
    #[serde(default)]
    pub canary: bool,
    /// No node has run this role yet: it is gated as a whole.
    #[serde(default)]
    pub forming: bool,
    /// All of them stop before the first one starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
    /// The nodes; roles of one node stand in the order they go.
    pub nodes: Vec<NodePlan>,
}

/// A node that has nothing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The node.
    pub node: NodeName,
    /// The role.
    pub role: Role,
    /// What runs, and shall run.
    pub version: Option<Version>,
}

/// The policy that a rollout keeps to, as it was when it was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether a person says when it goes on after the canary.
    pub pause_after_canary: bool,
    /// How long a gate may take to hold.
    pub gate_timeout: Span,
    /// How long a gate must have held.
    pub min_healthy: Span,
    /// How long a wave may make no progress.
    pub progress_deadline: Span,
    /// Failed nodes that are put up with.
    pub max_failures: u32,
    /// What becomes of the rest after a failure.
    pub on_failure: OnFailure,
    /// After how long without a word a node goes back by itself.
    pub confirm_within: Option<Span>,
    /// Take releases that were marked bad.
    #[serde(default)]
    pub allow_bad: bool,
    /// Go back even where a newer version has opened the data: a person says that it was put back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub past_return: bool,
}

impl From<&Rollout> for Policy {
    fn from(rollout: &Rollout) -> Self {
        Self {
            pause_after_canary: rollout.pause_after_canary,
            gate_timeout: rollout.gate_timeout,
            min_healthy: rollout.min_healthy,
            progress_deadline: rollout.progress_deadline,
            max_failures: rollout.max_failures,
            on_failure: rollout.on_failure,
            confirm_within: rollout.confirm_within,
            allow_bad: false,
            past_return: false,
        }
    }
}

/// A rollout, as it will run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// What it is for.
    pub kind: Kind,
    /// The cluster's name.
    pub cluster: String,
    /// When it was made.
    pub time: Timestamp,
    /// What it keeps to.
    pub policy: Policy,
    /// The waves, one after the other.
    pub waves: Vec<Wave>,
    /// What is on target already.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// What an earlier rollout changed in services' clusters and did not put back: it is put back first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<Leftover>,
}

/// Settings of a service's cluster that an earlier rollout left changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The node whose journal says so.
    pub node: NodeName,
    /// The role.
    pub role: Role,
    /// Each with what it was.
    pub settings: Vec<Setting>,
}

impl Plan {
    /// What moved since the plan was made: where the nodes are now, and what their templates see now. Nodes that
    /// `status` knows nothing of are left to whoever asks.
    pub fn moved<'s>(
        &self,
        status: impl Fn(&NodeName) -> Option<&'s NodeStatus>,
        inputs: impl Fn(&NodeName, &Role) -> Option<Digest>,
    ) -> Vec<(NodeName, Role, NodeError)> {
        let mut moved = Vec::new();
        let mut found = |node: &NodeName, role: &Role, error| moved.push((node.clone(), role.clone(), error));
        for one in self.nodes() {
            if let Some(status) = status(&one.node)
                && let Err(error) = check(one, status)
            {
                found(&one.node, &one.role, error);
            }
            if one.inputs.is_some() && inputs(&one.node, &one.role) != one.inputs {
                let message = format!(
                    "{} on {}: its vars, its nodes or its zone in cluster.toml are not those of the plan",
                    one.role, one.node
                );
                found(&one.node, &one.role, NodeError::new(Fault::Refused, "moved", message));
            }
        }
        for one in &self.skipped {
            let Some(status) = status(&one.node) else { continue };
            let there = status.roles.iter().find(|role| role.role == one.role);
            let version = there.and_then(|role| role.version.clone());
            if version != one.version {
                let shown = |version: &Option<Version>| {
                    version.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
                };
                let message = format!(
                    "{} on {} was on its target, {}, and is on {} now",
                    one.role,
                    one.node,
                    shown(&one.version),
                    shown(&version)
                );
                found(&one.node, &one.role, NodeError::new(Fault::Refused, "moved", message));
            }
        }
        moved
    }

    /// The way back from a leave: each role on the release that it had.
    #[must_use]
    pub fn undone(&self) -> Self {
        let mut plan = self.clone();
        for wave in &mut plan.waves {
            wave.nodes.retain(|one| one.from_release.is_some());
            for one in &mut wave.nodes {
                one.goal = one.from_release.clone().map_or(Goal::Nothing, Goal::Release);
                one.to.clone_from(&one.from);
            }
        }
        plan
    }

    /// Every role on every node, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodePlan> {
        self.waves.iter().flat_map(|wave| &wave.nodes)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.waves.is_empty() && self.leftovers.is_empty()
    }
}
