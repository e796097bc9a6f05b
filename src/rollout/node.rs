//! One role on one node: its steps, forwards.
//!
//! # Invariants
//!
//! * A step that may touch what runs is on record before it begins. Between the activation and the start
//!   nothing waits for the controller's disk: the record made before covers all of them.
//! * A person's wish to stop is heeded before anything is touched, and while a gate does not hold.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::engine::Run;
use super::event::{At, Event, Failed, NodeState};
use super::gate::Wait;
use super::plan::{Goal, Kind, Policy};
use super::ports::{Back, Fault, NodeError, Nodes, Person, Recorder, Swap};
use super::step::{Step, StepKind};
use super::track::{Gate, Track};
use crate::agent::ReleaseName;
use crate::model::{NodeName, Role, Span, millis};

/// How long a service may be down without a word from the controller. Nothing stands between the two steps, and
/// stopping it does not count.
const START_WITHIN: Span = Span(Duration::from_secs(30));
/// How long a guard that is told to count anew may take to answer.
const RENEW: Duration = Duration::from_secs(10);

/// One role on one node, in a run.
pub(super) struct NodeRun<'a, N, R, P> {
    pub(super) run: &'a Run<'a, N, R, P>,
    pub(super) track: &'a RefCell<Track>,
    pub(super) kind: Kind,
}

impl<N: Nodes, R: Recorder, P: Person> NodeRun<'_, N, R, P> {
    pub(super) fn at(&self) -> At {
        self.track.borrow().at()
    }

    pub(super) fn names(&self) -> (NodeName, Role) {
        let At { node, role } = self.at();
        (node, role)
    }

    /// Everything after staging and up to the confirmation.
    pub(super) async fn switch(&self) -> Result<(), Failed> {
        self.steps(|_| true).await
    }

    /// Those of these steps that `part` names.
    pub(super) async fn steps(&self, part: impl Fn(StepKind) -> bool) -> Result<(), Failed> {
        let steps: Vec<Step> = self.track.borrow().plan.steps.clone();
        let steps: Vec<Step> = steps
            .into_iter()
            .filter(|step| step.step > StepKind::Stage && !ends(step.step) && part(step.step))
            .collect();
        if self.run.interrupted.is_set() {
            let step = steps.first().map_or(StepKind::Ready, |step| step.step);
            let error =
                NodeError::new(Fault::Interrupted, "interrupted", "interrupted before it was touched");
            return Err(Failed { at: self.at(), step, undo: false, error });
        }
        self.track.borrow_mut().state = NodeState::Changing;
        // Of two services that may each leave their cluster only one may: whoever asks second sees the first gone.
        let mut turn = None;
        for (index, step) in steps.iter().enumerate() {
            if step.step == StepKind::Drain {
                turn = Some(self.run.turn.lock().await);
            }
            let then: Vec<StepKind> = if index > 0 && steps[index - 1].step.touches() {
                Vec::new()
            } else {
                steps[index + 1..].iter().map(|step| step.step).take_while(|step| step.touches()).collect()
            };
            self.step(*step, then).await?;
            if step.step >= StepKind::Stop {
                turn = None;
            }
        }
        drop(turn);
        Ok(())
    }

    /// Tells the node that its release is good, or that it has none any more.
    pub(super) async fn confirm(&self) -> Result<(), Failed> {
        let step = self.track.borrow().plan.steps.iter().find(|one| ends(one.step)).copied();
        if let Some(step) = step {
            self.step(step, Vec::new()).await?;
            self.track.borrow_mut().confirmed = true;
        }
        self.track.borrow_mut().state = NodeState::Done;
        Ok(())
    }

    /// Has the node's guard count anew.
    pub(super) async fn renew(&self) {
        let (node, role) = self.names();
        let to = self.track.borrow().to.clone();
        let Policy { confirm_within, allow_bad, .. } = self.run.plan.policy;
        // From itself to itself: where the guard has gone back this is refused, and does not go there again.
        let swap = Swap { from: to.clone(), to, confirm_within, allow_bad };
        let _ = timeout(RENEW, self.run.nodes.activate(&node, &role, &swap)).await;
    }

    /// The activation alone: what a node does by itself when it goes back.
    pub(super) async fn jump(&self) -> Result<(), Failed> {
        let step = self.track.borrow().plan.steps.iter().find(|one| one.step == StepKind::Activate).copied();
        if let Some(step) = step {
            self.track.borrow_mut().state = NodeState::Changing;
            self.step(step, Vec::new()).await?;
            self.track.borrow_mut().is_up();
        }
        self.track.borrow_mut().state = NodeState::Done;
        Ok(())
    }

    async fn step(&self, step: Step, then: Vec<StepKind>) -> Result<(), Failed> {
        let Step { step, within, .. } = step;
        let begun = Instant::now();
        // What covers the steps after it is on the disk before it begins; so is a confirmation.
        let first = step.touches() && !self.track.borrow().is_touched();
        let durable = first || step == StepKind::Confirm;
        let started = Event::StepStarted { at: self.at(), step, then };
        let outcome = if let Err(error) = self.run.recorder.record(started, durable) {
            Err(NodeError::from(error))
        } else if step == StepKind::Drain
            && let Err(error) = self.wait_to_leave().await
        {
            Err(error)
        } else {
            if step.touches() {
                let mut track = self.track.borrow_mut();
                track.begun.push(step);
                track.drained |= step == StepKind::Drain;
            }
            let has_gate = matches!(
                step,
                StepKind::Drain | StepKind::Ready | StepKind::Gone | StepKind::Undrain | StepKind::Settle
            );
            if has_gate {
                // Gates have limits of their own, and say what did not hold.
                self.perform(step).await
            } else {
                let done = timeout(within.0, self.perform(step)).await;
                done.unwrap_or_else(|_| Err(slow(step, within)))
            }
        };
        let duration_ms = millis(begun.elapsed());
        let outcome = outcome.and_then(|release| {
            let done = Event::StepDone { at: self.at(), step, duration_ms, release, bytes_sent: None };
            Ok(self.run.recorder.record(done, false)?)
        });
        outcome.map_err(|error| {
            let failed = Failed { at: self.at(), step, undo: false, error: error.clone() };
            let event = Event::StepFailed { at: self.at(), step, duration_ms, error };
            // What failed is told of even if it cannot be written down.
            let _ = self.run.recorder.record(event, false);
            failed
        })
    }

    /// Does a step; the release, where that became known or changed.
    async fn perform(&self, step: StepKind) -> Result<Option<ReleaseName>, NodeError> {
        let (node, role) = self.names();
        let nodes = self.run.nodes;
        let to = self.track.borrow().to.clone();
        match step {
            StepKind::Drain => self.drain().await.map(|()| None),
            StepKind::Undrain => {
                self.run.undrain(&self.at()).await?;
                self.track.borrow_mut().drained = false;
                Ok(None)
            }
            StepKind::Activate => self.activate().await,
            StepKind::Stop if self.kind == Kind::Leave => {
                // For good: no guard of the node's own starts it again.
                let stopped = nodes.stop(&node, &role, &self.why(), None).await?;
                if !stopped.ran {
                    // There is nothing to be started on the way back.
                    self.track.borrow_mut().begun.retain(|begun| *begun != StepKind::Stop);
                }
                Ok(None)
            }
            StepKind::Gone => self.wait_gone().await.map(|()| None),
            StepKind::Forget => {
                let from = self.track.borrow().plan.from_release.clone();
                let swap = Swap { from, to: None, confirm_within: None, allow_bad: false };
                nodes.activate(&node, &role, &swap).await?;
                self.track.borrow_mut().release = None;
                Ok(None)
            }
            StepKind::Stop => {
                self.track.borrow_mut().goes_down();
                let within = self.run.plan.policy.confirm_within.map(|within| within.min(START_WITHIN));
                let stopped = nodes.stop(&node, &role, &self.why(), within).await?;
                let mut track = self.track.borrow_mut();
                if stopped.ran {
                    track.took_itself(Duration::from_millis(stopped.duration_ms));
                } else {
                    track.was_down_before();
                }
                Ok(None)
            }
            StepKind::Start => {
                if let Some(to) = &to {
                    nodes.start(&node, &role, to).await?;
                }
                Ok(None)
            }
            StepKind::Reload => {
                if let Some(to) = &to {
                    nodes.reload(&node, &role, to).await?;
                }
                Ok(None)
            }
            StepKind::Ready | StepKind::Settle => {
                let Some(to) = &to else { return Ok(None) };
                let begun = Instant::now();
                let known = self.track.borrow().gate.clone();
                let ready = self.gate_of_current(known).await?;
                self.track.borrow_mut().gate = Gate::Known(ready.clone());
                let interruptible = !self.run.is_going_back();
                let wait = Wait { step, release: to, ready: ready.as_ref(), interruptible };
                if step == StepKind::Settle {
                    self.settle(&wait).await?;
                    return Ok(None);
                }
                let outcome = self.wait_ready(&wait).await;
                let mut track = self.track.borrow_mut();
                track.took_itself(begun.elapsed());
                if outcome.is_ok() {
                    track.is_up();
                }
                outcome.map(|()| None)
            }
            StepKind::Confirm => match &to {
                Some(to) => nodes.confirm(&node, &role, to).await.map(|()| None),
                None => Ok(None),
            },
            // They are done for all nodes at once, before the first wave.
            StepKind::Lock | StepKind::Preflight | StepKind::Stage => Ok(None),
        }
    }

    async fn activate(&self) -> Result<Option<ReleaseName>, NodeError> {
        let (node, role) = self.names();
        let (from, to, service, goal) = {
            let track = self.track.borrow();
            (track.plan.from_release.clone(), track.to.clone(), track.plan.service, track.plan.goal.clone())
        };
        let policy = &self.run.plan.policy;
        match (&to, self.kind, goal) {
            (Some(to), Kind::Rollback, _) if from.as_ref() != Some(to) => {
                if service {
                    self.track.borrow_mut().goes_down();
                }
                let (bad, force) = (false, policy.past_return);
                let back = Back { from, to: to.clone(), why: self.why(), bad, restart: service, force };
                let done = self.run.nodes.go_back(&node, &role, &back).await?;
                self.track.borrow_mut().took_itself(Duration::from_millis(done.stop_ms));
                self.track.borrow_mut().release = Some(to.clone());
                if let Some(why) = done.service_error {
                    return Err(NodeError::new(Fault::Service, "service", why));
                }
            }
            // It is current and does not run: there is nothing to go back to, only to start.
            (Some(to), Kind::Rollback, _) => {
                if service {
                    self.run.nodes.start(&node, &role, to).await?;
                }
            }
            (Some(_), _, _) | (None, _, Goal::Nothing) => {
                if to.is_none() && service {
                    self.run.nodes.stop(&node, &role, &self.why(), None).await?;
                }
                let confirm_within = policy.confirm_within.filter(|_| to.is_some());
                let swap = Swap { from, to: to.clone(), confirm_within, allow_bad: policy.allow_bad };
                self.run.nodes.activate(&node, &role, &swap).await?;
                self.track.borrow_mut().release.clone_from(&to);
            }
            (None, _, Goal::Bundle(_) | Goal::Release(_)) => {
                return Err(NodeError::new(Fault::Here, "internal", "its release was not staged"));
            }
        }
        Ok(to)
    }

    /// What the node's journal shall say.
    pub(super) fn why(&self) -> String {
        format!("{} {}", self.kind.command(), self.run.id)
    }
}

/// The step that comes when every role of the node is through all others.
fn ends(step: StepKind) -> bool {
    matches!(step, StepKind::Confirm | StepKind::Forget)
}

/// A step that had no answer in time. Nobody knows whether it was done.
fn slow(step: StepKind, within: Span) -> NodeError {
    let message = format!("{step} had no answer within {within}");
    NodeError::new(Fault::Lost, "timeout", message)
}
