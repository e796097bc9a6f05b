//! What a rollout knows about one role on one node while it runs.

use std::time::Duration;

use tokio::time::Instant;

use super::event::{At, NodeResult, NodeState};
use super::plan::{Goal, NodePlan};
use super::step::StepKind;
use crate::agent::ReleaseName;
use crate::model::millis;
use crate::recipe::Ready;

/// What proves that a release's service is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Gate {
    /// Nobody asked yet.
    #[default]
    Unknown,
    /// This; without a probe, that its process lives.
    Known(Option<Ready>),
}

/// One role on one node.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) plan: NodePlan,
    /// Steps that touch what runs, as they were begun.
    pub(super) begun: Vec<StepKind>,
    /// What shall be current, once it has a name.
    pub(super) to: Option<ReleaseName>,
    /// The gate of `to`.
    pub(super) gate: Gate,
    /// The gate of what was current before.
    pub(super) back_gate: Gate,
    pub(super) state: NodeState,
    /// What is current.
    pub(super) release: Option<ReleaseName>,
    pub(super) confirmed: bool,
    /// It was asked to leave its cluster, and has not joined it again.
    pub(super) drained: bool,
    /// Its node's journal knows of this rollout.
    pub(super) noted: bool,
    /// The step that failed left it in doubt what the node did.
    pub(super) next: Option<String>,
    pub(super) bytes_sent: u64,
    down_since: Option<Instant>,
    downtime: Duration,
    own: Duration,
}

impl Track {
    pub(super) fn new(plan: NodePlan) -> Self {
        let to = match &plan.goal {
            Goal::Release(release) => Some(release.clone()),
            Goal::Bundle(_) | Goal::Nothing => None,
        };
        Self {
            release: plan.from_release.clone(),
            plan,
            begun: Vec::new(),
            to,
            gate: Gate::Unknown,
            back_gate: Gate::Unknown,
            state: NodeState::Untouched,
            confirmed: false,
            drained: false,
            noted: false,
            next: None,
            bytes_sent: 0,
            down_since: None,
            downtime: Duration::ZERO,
            own: Duration::ZERO,
        }
    }

    pub(super) fn at(&self) -> At {
        At { node: self.plan.node.clone(), role: self.plan.role.clone() }
    }

    pub(super) fn has_begun(&self, step: StepKind) -> bool {
        self.begun.contains(&step)
    }

    /// Whether anything that runs may have been touched.
    pub(super) fn is_touched(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Whether the target is another release than the one that going back goes to.
    pub(super) fn moves(&self) -> bool {
        self.to.as_ref() != self.plan.prior()
    }

    /// Whether the target is current already.
    pub(super) fn is_there(&self) -> bool {
        self.to == self.plan.from_release
    }

    /// The service goes down now.
    pub(super) fn goes_down(&mut self) {
        self.down_since.get_or_insert_with(Instant::now);
    }

    /// The service is ready; what it took itself does not count as the tool's.
    pub(super) fn is_up(&mut self) {
        if let Some(since) = self.down_since.take() {
            self.downtime += since.elapsed();
        }
    }

    /// It did not run before, so that nothing went down.
    pub(super) fn was_down_before(&mut self) {
        self.down_since = None;
    }

    /// The service itself took that long, for stopping or starting.
    pub(super) fn took_itself(&mut self, time: Duration) {
        if self.down_since.is_some() {
            self.own += time;
        }
    }

    /// The way back's downtime is this node's too.
    pub(super) fn add_downtime(&mut self, way: &Self) {
        self.downtime += way.downtime + way.down_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.own += way.own;
    }

    pub(super) fn result(&self) -> NodeResult {
        let downtime = self.downtime + self.down_since.map_or(Duration::ZERO, |since| since.elapsed());
        NodeResult {
            at: self.at(),
            from: self.plan.from.clone(),
            to: self.plan.to.clone(),
            release: self.release.clone(),
            state: self.state,
            downtime_ms: millis(downtime),
            tool_downtime_ms: millis(downtime.saturating_sub(self.own)),
            bytes_sent: self.bytes_sent,
            next: self.next.clone(),
        }
    }
}
