//! Runs a plan: locks, looks, stages, then wave after wave; after a failure it does what the policy says.
//!
//! # Invariants
//!
//! * Nothing that runs is touched before every node is locked, is where the plan says, and has its release.
//! * A rollout ends in one of four outcomes; whatever was touched is in its last event.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use super::event::{At, Event, Failed, NodeResult, NodeState, Outcome};
use super::interrupt::{Interrupt, Interrupted};
use super::plan::{Goal, Kind, NodePlan, Plan};
use super::ports::{Fault, NodeError, Nodes, Person, Recorder};
use super::step::StepKind;
use super::track::{Gate, Track};
use crate::agent::{NodeStatus, RoleStatus};
use crate::inventory::OnFailure;
use crate::model::NodeName;

/// How long nodes may take to say that they let go of the lock.
const UNLOCK: Duration = Duration::from_secs(5);

/// Who runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// A user's name.
    pub who: String,
    /// A machine's name.
    pub host: String,
}

/// A rollout under way.
pub struct Run<'a, N, R, P> {
    /// Its id.
    pub id: &'a str,
    /// What is to be done.
    pub plan: &'a Plan,
    /// On these nodes.
    pub nodes: &'a N,
    /// Told to this one.
    pub recorder: &'a R,
    /// Who says whether it goes on after the canary.
    pub person: &'a P,
    /// Whether somebody wants it to stop.
    pub interrupted: Interrupted,
    /// Who runs it.
    pub operator: Operator,
    pub(super) failures: RefCell<Vec<Failed>>,
    going_back: Cell<bool>,
    paused: Cell<bool>,
    began: Cell<bool>,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How.
    pub outcome: Outcome,
    /// Every role on every node.
    pub nodes: Vec<NodeResult>,
    /// Everything that went wrong.
    pub failures: Vec<Failed>,
    /// It ended after the canary, since nobody could be asked.
    pub paused: bool,
    /// Something that runs was touched, or may have been.
    pub touched: bool,
}

impl Finished {
    /// Whether another rollout holds a node, so that nothing was begun.
    pub fn is_locked(&self) -> bool {
        !self.touched && self.failures.iter().any(|failed| failed.error.fault == Fault::Locked)
    }
}

impl<'a, N: Nodes, R: Recorder, P: Person> Run<'a, N, R, P> {
    /// A rollout that has not begun.
    pub fn new(
        id: &'a str,
        plan: &'a Plan,
        (nodes, recorder, person): (&'a N, &'a R, &'a P),
        interrupted: Interrupted,
        operator: Operator,
    ) -> Self {
        Self {
            id,
            plan,
            nodes,
            recorder,
            person,
            interrupted,
            operator,
            failures: RefCell::default(),
            going_back: Cell::new(false),
            paused: Cell::new(false),
            began: Cell::new(false),
        }
    }

    /// Runs it to its end.
    pub async fn run(&self) -> Finished {
        let waves: Vec<Vec<RefCell<Track>>> = self
            .plan
            .waves
            .iter()
            .map(|wave| wave.nodes.iter().map(|node| RefCell::new(Track::new(node.clone()))).collect())
            .collect();
        let all: Vec<&RefCell<Track>> = waves.iter().flatten().collect();
        let stopped_now = tokio::select! {
            biased;
            () = self.interrupted.reached(Interrupt::Now) => true,
            () = self.all(&waves, &all) => false,
        };
        if stopped_now {
            self.stop_now(&all);
        }
        self.finish(&all, stopped_now).await
    }

    /// Whether the nodes that are being changed are on their way back.
    pub(super) fn is_going_back(&self) -> bool {
        self.going_back.get()
    }

    /// Whether so many failed nodes are more than are put up with.
    pub(super) fn exceeds(&self, failed: usize) -> bool {
        failed > usize::try_from(self.plan.policy.max_failures).unwrap_or(usize::MAX)
    }

    async fn all(&self, waves: &[Vec<RefCell<Track>>], all: &[&RefCell<Track>]) {
        // Nothing that runs is touched yet: whoever wants to stop need not wait for a push.
        let prepared = tokio::select! {
            biased;
            prepared = self.prepare(all) => prepared,
            () = self.interrupted.reached(Interrupt::Soon) => self.check_interrupt(all, StepKind::Stage),
        };
        if let Err(failures) = prepared {
            self.failures.borrow_mut().extend(failures);
            return;
        }
        self.began.set(true);
        let mut failed = 0;
        for (index, (wave, tracks)) in self.plan.waves.iter().zip(waves).enumerate() {
            if self.interrupted.is_set() {
                return;
            }
            let tracks: Vec<&RefCell<Track>> = tracks.iter().collect();
            let nodes = tracks.iter().map(|track| track.borrow().at()).collect();
            let (canary, forming) = (wave.canary, wave.forming);
            let started = Event::WaveStarted { wave: index + 1, canary, forming, back: false, nodes };
            if let Err(error) = self.recorder.record(started, false) {
                self.failures.borrow_mut().extend(tracks.first().map(|track| Failed {
                    at: track.borrow().at(),
                    step: StepKind::Preflight,
                    undo: false,
                    error: error.into(),
                }));
                return;
            }
            let of_wave = self.wave(&tracks, self.plan.kind, forming).await;
            failed += of_wave;
            let _ = self.recorder.record(Event::WaveDone { wave: index + 1, failed: of_wave }, false);
            if self.exceeds(failed) {
                if self.plan.policy.on_failure == OnFailure::RollbackAll && self.plan.kind == Kind::Promote {
                    self.all_back(waves).await;
                }
                return;
            }
            let more = index + 1 < self.plan.waves.len();
            if canary && more && self.plan.policy.pause_after_canary && !self.interrupted.is_set() {
                let goes_on = tokio::select! {
                    goes_on = self.person.goes_on() => goes_on,
                    () = self.interrupted.reached(Interrupt::Soon) => false,
                };
                if !goes_on {
                    self.paused.set(!self.interrupted.is_set());
                    return;
                }
            }
        }
    }

    /// Locks, looks and stages: all that can be done before anything that runs is touched.
    async fn prepare(&self, all: &[&RefCell<Track>]) -> Result<(), Vec<Failed>> {
        self.begin(all)?;
        self.lock(all).await?;
        self.preflight(all).await?;
        self.stage(all).await
    }

    /// The first word of the journal.
    pub(super) fn begin(&self, all: &[&RefCell<Track>]) -> Result<(), Vec<Failed>> {
        let nodes: Vec<At> = all.iter().map(|track| track.borrow().at()).collect();
        let started = Event::RolloutStarted {
            kind: self.plan.kind,
            cluster: self.plan.cluster.clone(),
            who: self.operator.who.clone(),
            host: self.operator.host.clone(),
            waves: self.plan.waves.len(),
            nodes: nodes.clone(),
        };
        if let Err(error) = self.recorder.record(started, true) {
            let failed = |at: At| Failed { at, step: StepKind::Lock, undo: false, error: error.into() };
            return Err(nodes.into_iter().next().map(failed).into_iter().collect());
        }
        Ok(())
    }

    /// Runs `work` for each node, all at once; the failures of all of them.
    async fn on_each<T>(
        &self,
        all: &[&RefCell<Track>],
        step: StepKind,
        work: impl AsyncFn(&NodeName) -> Result<T, NodeError>,
    ) -> Result<Vec<(NodeName, T)>, Vec<Failed>> {
        let names: BTreeSet<NodeName> = all.iter().map(|track| track.borrow().plan.node.clone()).collect();
        let work = &work;
        let mut running: FuturesUnordered<_> = names
            .into_iter()
            .map(async |node| {
                let begun = Instant::now();
                self.on_tracks(all, &node, |at| Event::StepStarted { at, step, then: Vec::new() });
                let outcome = work(&node).await;
                let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.on_tracks(all, &node, |at| match &outcome {
                    Ok(_) => Event::StepDone { at, step, duration_ms, release: None, bytes_sent: None },
                    Err(error) => Event::StepFailed { at, step, duration_ms, error: error.clone() },
                });
                (node, outcome)
            })
            .collect();
        let (mut done, mut failures) = (Vec::new(), Vec::new());
        while let Some((node, outcome)) = running.next().await {
            match outcome {
                Ok(value) => done.push((node, value)),
                Err(error) => {
                    let track = all.iter().find(|track| track.borrow().plan.node == node);
                    failures.extend(track.map(|track| Failed {
                        at: track.borrow().at(),
                        step,
                        undo: false,
                        error,
                    }));
                }
            }
        }
        if failures.is_empty() { Ok(done) } else { Err(failures) }
    }

    fn on_tracks(&self, all: &[&RefCell<Track>], node: &NodeName, event: impl Fn(At) -> Event) {
        for track in all.iter().filter(|track| track.borrow().plan.node == *node) {
            // Nothing is changed by these; what matters is written with care later.
            let _ = self.recorder.record(event(track.borrow().at()), false);
        }
    }

    pub(super) async fn lock(&self, all: &[&RefCell<Track>]) -> Result<(), Vec<Failed>> {
        self.on_each(all, StepKind::Lock, async |node: &NodeName| self.nodes.lock(node).await).await?;
        self.check_interrupt(all, StepKind::Lock)
    }

    async fn preflight(&self, all: &[&RefCell<Track>]) -> Result<(), Vec<Failed>> {
        let looked = self.on_each(all, StepKind::Preflight, async |node: &NodeName| {
            let status = self.nodes.status(node).await?;
            for track in all.iter().filter(|track| track.borrow().plan.node == *node) {
                check(&track.borrow().plan, &status)?;
            }
            Ok(status)
        });
        for (node, status) in looked.await? {
            for track in all.iter().filter(|track| track.borrow().plan.node == node) {
                let mut track = track.borrow_mut();
                let found = role_of(&track.plan, &status);
                let known = found.filter(|found| found.kind.is_some() || found.probe.is_some());
                if let Some(found) = known {
                    track.back_gate = Gate::Known(found.probe.clone());
                    if !track.moves() {
                        track.gate = Gate::Known(found.probe.clone());
                    }
                }
            }
        }
        self.check_interrupt(all, StepKind::Preflight)
    }

    async fn stage(&self, all: &[&RefCell<Track>]) -> Result<(), Vec<Failed>> {
        let wanted: Vec<&RefCell<Track>> =
            all.iter().copied().filter(|track| matches!(track.borrow().plan.goal, Goal::Bundle(_))).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let plans: Vec<NodePlan> = wanted.iter().map(|track| track.borrow().plan.clone()).collect();
        let plans: Vec<&NodePlan> = plans.iter().collect();
        let step = StepKind::Stage;
        for track in &wanted {
            let event = Event::StepStarted { at: track.borrow().at(), step, then: Vec::new() };
            let _ = self.recorder.record(event, false);
        }
        let begun = Instant::now();
        let elapsed = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcomes = self.nodes.stage(&plans).await;
        let mut failures = Vec::new();
        for (track, outcome) in wanted.iter().zip(outcomes) {
            let (at, duration_ms) = (track.borrow().at(), elapsed());
            match outcome {
                Ok(staged) => {
                    let mut track = track.borrow_mut();
                    let (release, bytes_sent) = (Some(staged.release.clone()), Some(staged.bytes_sent));
                    track.to = Some(staged.release);
                    track.gate = Gate::Known(staged.ready);
                    track.bytes_sent = staged.bytes_sent;
                    let event = Event::StepDone { at, step, duration_ms, release, bytes_sent };
                    let _ = self.recorder.record(event, false);
                }
                Err(error) => {
                    let event = Event::StepFailed { at: at.clone(), step, duration_ms, error: error.clone() };
                    let _ = self.recorder.record(event, false);
                    failures.push(Failed { at, step, undo: false, error });
                }
            }
        }
        if failures.is_empty() { self.check_interrupt(all, step) } else { Err(failures) }
    }

    fn check_interrupt(&self, all: &[&RefCell<Track>], step: StepKind) -> Result<(), Vec<Failed>> {
        if !self.interrupted.is_set() {
            return Ok(());
        }
        let error = NodeError::new(Fault::Interrupted, "interrupted", "interrupted; nothing was changed");
        let first = all.first().map(|track| track.borrow().at());
        Err(first.map(|at| Failed { at, step, undo: false, error }).into_iter().collect())
    }

    /// What becomes of nodes that are left as they are.
    fn stop_now(&self, all: &[&RefCell<Track>]) {
        for track in all {
            let node = super::node::NodeRun { run: self, track, kind: self.plan.kind };
            let guarded = node.is_guarded();
            let mut track = track.borrow_mut();
            if track.state != NodeState::Changing {
                continue;
            }
            let at = track.at();
            (track.state, track.next) = match (track.is_touched(), guarded) {
                (false, _) => (NodeState::Untouched, None),
                (true, true) => (NodeState::Guarded, Some(format!("windlass status --nodes {}", at.node))),
                (true, false) => (NodeState::NeedsPerson, Some("windlass resume".to_owned())),
            };
        }
    }

    pub(super) async fn finish(&self, all: &[&RefCell<Track>], now: bool) -> Finished {
        // Whoever said "now" does not wait for a node's answer; its lock goes with the connection.
        if !now {
            // A node that does not answer loses its lock with its connection.
            let _ = timeout(UNLOCK, self.nodes.unlock_all()).await;
        }
        let nodes: Vec<NodeResult> = all.iter().map(|track| track.borrow().result()).collect();
        let failures: Vec<Failed> = self.failures.borrow().clone();
        let is = |state: NodeState| nodes.iter().any(|node| node.state == state);
        let interrupted = self.interrupted.is_set() || self.paused.get();
        let outcome = if is(NodeState::NeedsPerson) || (is(NodeState::Guarded) && !interrupted) {
            Outcome::NeedsPerson
        } else if interrupted && !nodes.iter().all(|node| node.state == NodeState::Done) {
            Outcome::Interrupted
        } else if failures.is_empty() && nodes.iter().all(|node| node.state == NodeState::Done) {
            Outcome::Succeeded
        } else {
            Outcome::RolledBack
        };
        let touched = all.iter().any(|track| track.borrow().is_touched());
        let event = Event::RolloutFinished { outcome, nodes: nodes.clone(), failures: failures.clone() };
        // It is over; if this cannot be written down, `resume` finds out by looking.
        let _ = self.recorder.record(event, true);
        Finished { outcome, nodes, failures, paused: self.paused.get(), touched }
    }

    /// Marks the rollout as one on its way back.
    pub(super) fn turn_back(&self) {
        self.going_back.set(true);
    }
}

/// The role of a plan in a node's answer.
pub(super) fn role_of<'s>(plan: &NodePlan, status: &'s NodeStatus) -> Option<&'s RoleStatus> {
    status.roles.iter().find(|one| one.role == plan.role)
}

/// Whether a node is where its plan says, and has what it needs to go there.
pub(super) fn check(plan: &NodePlan, status: &NodeStatus) -> Result<(), NodeError> {
    let found = role_of(plan, status);
    let moved = |message: String| {
        let mut error = NodeError::new(Fault::Refused, "moved", message);
        error.line.help.push("make the plan again: the node has moved since".to_owned());
        Err(error)
    };
    let current = found.and_then(|found| found.release.clone());
    if current != plan.from_release {
        let shown = |release: &Option<crate::agent::ReleaseName>| {
            release.as_ref().map_or_else(|| "no release".to_owned(), ToString::to_string)
        };
        let (found, expected) = (shown(&current), shown(&plan.from_release));
        return moved(format!("{} on {}: {found} is current, not {expected}", plan.role, plan.node));
    }
    if let Some(problem) = found.and_then(|found| found.problem.clone()) {
        return Err(NodeError::new(Fault::Refused, "problem", problem));
    }
    if let Goal::Release(release) = &plan.goal {
        let there = found.is_some_and(|found| found.staged.iter().any(|one| one.release == *release));
        if !there {
            let message = format!("release {release} of {} is not on {}", plan.role, plan.node);
            return Err(NodeError::new(Fault::Refused, "not-staged", message));
        }
    }
    Ok(())
}
