//! Runs a plan: locks, looks, stages, then wave after wave; after a failure it does what the policy says.
//!
//! # Invariants
//!
//! * Nothing that runs is touched before every node is locked, is where the plan says, and has its release.
//! * A rollout ends in one of four outcomes; whatever was touched is in its last event.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::event::{Event, Failed, NodeResult, NodeState, Outcome};
use super::interrupt::{Interrupt, Interrupted};
use super::plan::{Kind, Plan};
use super::ports::{Fault, Nodes, Person, Recorder};
use super::settings::Changed;
use super::step::StepKind;
use super::track::Track;
use crate::inventory::OnFailure;

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
    /// Settings of services' clusters that are changed now.
    pub(super) changed: Changed,
    /// Whoever has it may ask whether its service may leave its cluster, and have it leave.
    pub(super) turn: Mutex<()>,
    /// Whoever has it may take settings into use, or put them back.
    pub(super) setting: Mutex<()>,
    going_back: Cell<bool>,
    paused: Cell<bool>,
}

/// Whether a node was left in a state in which it may be down.
pub(super) fn is_left_down(state: NodeState) -> bool {
    matches!(state, NodeState::NeedsPerson | NodeState::Guarded)
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
            changed: Changed::default(),
            turn: Mutex::new(()),
            setting: Mutex::new(()),
            going_back: Cell::new(false),
            paused: Cell::new(false),
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
            let of_wave = if wave.together {
                self.together(&tracks, self.plan.kind).await
            } else {
                self.wave(&tracks, self.plan.kind, forming).await
            };
            failed += of_wave;
            let _ = self.recorder.record(Event::WaveDone { wave: index + 1, failed: of_wave }, false);
            // One that is left down is one that the next wave may not take down.
            let left = tracks.iter().any(|track| is_left_down(track.borrow().state));
            if self.exceeds(failed) || left {
                let all = self.plan.policy.on_failure == OnFailure::RollbackAll;
                if all && !left && self.plan.kind == Kind::Promote {
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
        let taken = self.failures.borrow().iter().any(|failed| failed.error.fault == Fault::Locked);
        if !now {
            // A node that was left as it is took its cluster's settings with it.
            for track in all.iter().filter(|track| track.borrow().drained) {
                let at = track.borrow().at();
                if let Err(error) = self.undrain(&at).await {
                    let failed = Failed { at, step: StepKind::Undrain, undo: true, error };
                    self.failures.borrow_mut().push(failed);
                } else {
                    track.borrow_mut().drained = false;
                }
            }
        }
        if !now && !taken {
            let failures = self.put_back_leftovers(true).await;
            self.failures.borrow_mut().extend(failures);
        }
        let nodes: Vec<NodeResult> = all.iter().map(|track| track.borrow().result()).collect();
        let failures: Vec<Failed> = self.failures.borrow().clone();
        let left = failures.iter().any(|failed| failed.step == StepKind::Undrain && failed.undo);
        let is = |state: NodeState| nodes.iter().any(|node| node.state == state);
        let interrupted = self.interrupted.is_set() || self.paused.get();
        let outcome = if is(NodeState::NeedsPerson) || left || (is(NodeState::Guarded) && !interrupted) {
            Outcome::NeedsPerson
        } else if interrupted && !nodes.iter().all(|node| node.state == NodeState::Done) {
            Outcome::Interrupted
        } else if failures.is_empty() && nodes.iter().all(|node| node.state == NodeState::Done) {
            Outcome::Succeeded
        } else {
            Outcome::RolledBack
        };
        let touched = all.iter().any(|track| track.borrow().is_touched());
        // Whoever said "now" does not wait for a node's answer; its lock goes with the connection.
        if !now {
            // A node that does not answer loses its lock with its connection.
            let _ = timeout(UNLOCK, async {
                self.end_errands(all, outcome).await;
                self.nodes.unlock_all().await;
            })
            .await;
        }
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
