//! What a rollout tells: to whoever watches, and to its journal.

use serde::{Deserialize, Serialize};

use super::plan::Kind;
use super::ports::NodeError;
use super::step::StepKind;
use crate::agent::{ReleaseName, Setting};
use crate::model::{NodeName, Role, Timestamp, Version};

/// An event with its moment and its rollout: a line of the journal, and of `--format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, by the controller's clock.
    pub time: Timestamp,
    /// Which rollout.
    pub rollout: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// A role on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct At {
    /// The node.
    pub node: NodeName,
    /// The role.
    pub role: Role,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// It begins. Nothing was changed yet.
    RolloutStarted {
        /// What it is for.
        kind: Kind,
        /// The cluster's name.
        cluster: String,
        /// By whom.
        who: String,
        /// From which machine.
        host: String,
        /// How many waves.
        waves: usize,
        /// Every role on every node.
        nodes: Vec<At>,
    },
    /// A wave begins.
    WaveStarted {
        /// Counted from 1.
        wave: usize,
        /// It is a canary.
        canary: bool,
        /// It is gated as a whole.
        forming: bool,
        /// It goes back.
        back: bool,
        /// Who is in it.
        nodes: Vec<At>,
    },
    /// A step is about to begin.
    StepStarted {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// Which.
        step: StepKind,
        /// What follows it without a word reaching the disk in between.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        then: Vec<StepKind>,
    },
    /// A step takes its time.
    StepProgress {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// Which.
        step: StepKind,
        /// What does not hold yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_for: Option<String>,
        /// Bytes that were sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Of how many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Since the step began.
        elapsed_ms: u64,
    },
    /// A step is done.
    StepDone {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// Which.
        step: StepKind,
        /// How long it took.
        duration_ms: u64,
        /// Which release, where that became known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<ReleaseName>,
        /// Bytes that were sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_sent: Option<u64>,
    },
    /// A step failed.
    StepFailed {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// Which.
        step: StepKind,
        /// How long it took.
        duration_ms: u64,
        /// Why.
        error: NodeError,
    },
    /// Settings of a service's cluster are about to be changed.
    SettingsChanging {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// Each with what it was.
        settings: Vec<Setting>,
    },
    /// Settings of a service's cluster are what they were.
    SettingsBack {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// Each with what it was.
        settings: Vec<Setting>,
    },
    /// What was begun is about to be undone.
    UndoStarted {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// The step that it could not get over.
        step: StepKind,
    },
    /// A step was undone.
    StepUndone {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// Which.
        step: StepKind,
    },
    /// A step could not be undone.
    UndoFailed {
        /// Where.
        #[serde(flatten)]
        at: At,
        /// Which.
        step: StepKind,
        /// Why.
        error: NodeError,
    },
    /// Nothing more is done to a role on a node, or a wave's way back begins for it later.
    NodeDone {
        /// How it ended.
        #[serde(flatten)]
        result: NodeResult,
    },
    /// Every node of a wave is done.
    WaveDone {
        /// Counted from 1.
        wave: usize,
        /// How many of its nodes failed.
        failed: usize,
    },
    /// It is over.
    RolloutFinished {
        /// How it ended.
        outcome: Outcome,
        /// Every role on every node.
        nodes: Vec<NodeResult>,
        /// Everything that went wrong.
        failures: Vec<Failed>,
    },
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every node is on target.
    Succeeded,
    /// It failed, and every node that failed is back where it was, and healthy.
    RolledBack,
    /// A node is in a state that a person has to look at.
    NeedsPerson,
    /// It was stopped before its end.
    Interrupted,
}

impl Outcome {
    /// Its name, as events and nodes' journals have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled-back",
            Self::NeedsPerson => "needs-person",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Where a role on a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Nothing that runs was touched.
    Untouched,
    /// It is being changed.
    Changing,
    /// It is on target.
    Done,
    /// It is back where it was, and healthy.
    RolledBack,
    /// It waits for its guard, which goes back.
    Guarded,
    /// A person has to look at it.
    NeedsPerson,
}

/// How a role on a node ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResult {
    /// Where.
    #[serde(flatten)]
    pub at: At,
    /// The version that was current.
    pub from: Option<Version>,
    /// The version that should be.
    pub to: Option<Version>,
    /// The release that is current now, as far as is known.
    pub release: Option<ReleaseName>,
    /// Where it ended.
    pub state: NodeState,
    /// From the beginning of the stop until it was ready; 0 if nothing ran.
    pub downtime_ms: u64,
    /// The same, less the service's own stopping and starting.
    pub tool_downtime_ms: u64,
    /// Bytes that were sent.
    pub bytes_sent: u64,
    /// The command that comes next, if a person is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Where.
    #[serde(flatten)]
    pub at: At,
    /// In which step.
    pub step: StepKind,
    /// While it was undone.
    #[serde(default)]
    pub undo: bool,
    /// Why.
    pub error: NodeError,
}
