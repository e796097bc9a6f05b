//! The steps of a node, in the one order that there is, and what undoes each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Span;

/// What is done to a node. Order is the order they are done in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// Takes the node's lock, for the whole rollout.
    Lock,
    /// Looks whether the node is where the plan says it is.
    Preflight,
    /// Makes the release ready; nothing that runs is touched.
    Stage,
    /// Asks the service to hand its work to its peers.
    Drain,
    /// Points `current` at the release; from here on the node's guard goes back unless it is confirmed.
    ///
    /// What runs, runs from its own release and does not notice. A rollback stops and starts the service in
    /// this step too, since the node finishes that by itself.
    Activate,
    /// Stops the service.
    Stop,
    /// Starts the service from the release.
    Start,
    /// Has the service that runs read its conf again, instead of stopping and starting it.
    Reload,
    /// Waits until the service is ready.
    Ready,
    /// Waits until the cluster of a service that was stopped for good is as well as it was with it.
    Gone,
    /// Lets the service's peers hand work back.
    Undrain,
    /// Waits until the gates have held for long enough.
    Settle,
    /// Tells the node that the release is good; its guard ends.
    Confirm,
    /// Takes `current` away: nothing on the node starts the service by itself or by mistake. Releases and data stay.
    Forget,
}

impl StepKind {
    /// What undoes it; `None` where there is nothing to undo.
    ///
    /// Exhaustive on purpose: a new step must answer this question.
    pub fn inverse(self) -> Option<Self> {
        match self {
            Self::Drain => Some(Self::Undrain),
            Self::Stop => Some(Self::Start),
            Self::Activate | Self::Forget => Some(Self::Activate),
            Self::Start => Some(Self::Stop),
            Self::Reload => Some(Self::Reload),
            // The lock goes with the connection; a staged release stays for gc to take; after the
            // confirmation a node goes back by a rollback of its own, with gates.
            Self::Lock
            | Self::Preflight
            | Self::Stage
            | Self::Ready
            | Self::Gone
            | Self::Undrain
            | Self::Settle
            | Self::Confirm => None,
        }
    }

    /// What shows that it is done.
    pub fn proof(self) -> &'static str {
        match self {
            Self::Lock => "the node gave a token",
            Self::Preflight => "`current` and the journal say what the plan says",
            Self::Stage => "the release is complete, checked and on the disk",
            Self::Drain => "the service has no work that its peers do not have",
            Self::Stop => "no process of the service is left",
            Self::Activate => "`current` points at the release, journalled",
            Self::Start => "the process lives",
            Self::Reload => "the process lives and was told",
            Self::Ready => "the gate holds",
            Self::Gone => "its cluster has settled without it",
            Self::Undrain => "the service takes part again",
            Self::Settle => "the gate has held without a break",
            Self::Confirm => "the node's journal says so",
            Self::Forget => "`current` is gone, journalled",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Preflight => "preflight",
            Self::Stage => "stage",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Activate => "activate",
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Ready => "ready",
            Self::Gone => "gone",
            Self::Undrain => "undrain",
            Self::Settle => "settle",
            Self::Confirm => "confirm",
            Self::Forget => "forget",
        }
    }

    /// Whether the service is, or may be, touched by it.
    pub fn touches(self) -> bool {
        matches!(self, Self::Drain | Self::Stop | Self::Activate | Self::Start | Self::Reload | Self::Forget)
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub step: StepKind,
    /// How long it may take.
    pub within: Span,
    /// What undoes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<StepKind>,
}

impl Step {
    /// A step that may take that long.
    pub fn new(step: StepKind, within: Span) -> Self {
        Self { step, within, undo: step.inverse() }
    }
}
