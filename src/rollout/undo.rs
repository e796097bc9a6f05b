//! One role on one node: back to where it was.
//!
//! # Invariants
//!
//! * Where to go back to is what the plan says, never what looks like it.
//! * Undoing goes on after a failed undo, and every failure is told of.
//! * A node counts as back only when the gate of what it is back on holds.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::event::{Event, Failed, NodeState};
use super::gate::Wait;
use super::node::NodeRun;
use super::ports::{Back, Fault, NodeError, Nodes, Person, Recorder, Swap};
use super::step::StepKind;
use crate::agent::ReleaseName;

impl<N: Nodes, R: Recorder, P: Person> NodeRun<'_, N, R, P> {
    /// Undoes what was begun, in reverse order; gives what could not be undone.
    pub(super) async fn undo(&self, why: &Failed) -> Vec<Failed> {
        let (touched, from) = {
            let track = self.track.borrow();
            (track.is_touched(), track.plan.prior().cloned())
        };
        if !touched {
            self.track.borrow_mut().state = NodeState::Untouched;
            return Vec::new();
        }
        // The intent; if it cannot be written down, going back is still what has to be done.
        let (at, error) = (self.at(), why.error.full());
        let _ = self.run.recorder.record(Event::UndoStarted { at, step: why.step }, true);
        let mut failures = Vec::new();
        match from {
            Some(from) => self.back_to(&from, why, &error, &mut failures).await,
            None => self.back_to_nothing(why, &error, &mut failures).await,
        }
        self.join_again(&mut failures).await;
        let guarded = self.is_guarded();
        let mut track = self.track.borrow_mut();
        track.state = match failures.is_empty() {
            true => NodeState::RolledBack,
            false if guarded && failures.iter().all(|one| one.error.fault == Fault::Lost) => {
                NodeState::Guarded
            }
            false => NodeState::NeedsPerson,
        };
        if !failures.is_empty() {
            let at = track.at();
            let passed = failures.iter().any(|one| one.error.line.kind == "no-return");
            track.next = Some(if passed {
                format!(
                    "windlass promote --nodes {} --role {}  # forward: there is no way back",
                    at.node, at.role
                )
            } else {
                format!("windlass status --nodes {}", at.node)
            });
        }
        failures
    }

    /// Ends its absence from its cluster, if that was begun, whatever else becomes of it.
    pub(super) async fn join_again(&self, failures: &mut Vec<Failed>) {
        if self.track.borrow().drained {
            let outcome = self.run.undrain(&self.at()).await;
            self.track.borrow_mut().drained = outcome.is_err();
            self.undone(StepKind::Drain, outcome, failures);
        }
    }

    /// Whether a guard on the node goes back by itself.
    pub(super) fn is_guarded(&self) -> bool {
        let track = self.track.borrow();
        self.run.plan.policy.confirm_within.is_some()
            && self.kind == super::plan::Kind::Promote
            && track.has_begun(StepKind::Activate)
            && !track.confirmed
            && track.plan.prior().is_some()
            && track.moves()
    }

    async fn back_to(&self, from: &ReleaseName, why: &Failed, text: &str, failures: &mut Vec<Failed>) {
        let (node, role) = self.names();
        let (moves, service, reloads, activated, stopped, left) = {
            let track = self.track.borrow();
            let begun = |step| track.has_begun(step);
            (
                track.moves() && (begun(StepKind::Activate) || begun(StepKind::Forget)),
                track.plan.service,
                track.plan.reloads,
                begun(StepKind::Activate),
                begun(StepKind::Stop) || self.kind == super::plan::Kind::Rollback,
                track.to.clone(),
            )
        };
        let limit = self.run.plan.policy.progress_deadline;
        let mut restarted = false;
        if moves {
            // A release is bad if it was given its chance and its service did not take it.
            let bad = why.error.fault == Fault::Service;
            let restart = service && !reloads;
            let (why, force) = (text.to_owned(), false);
            let back = Back { from: None, to: from.clone(), why, bad, restart, force };
            let outcome = within(limit.0, self.run.nodes.go_back(&node, &role, &back)).await;
            let outcome = outcome.and_then(|done| {
                self.track.borrow_mut().release = Some(from.clone());
                restarted = restart && !done.already;
                match done.service_error {
                    Some(why) => Err(NodeError::new(Fault::Service, "service", why)),
                    None => Ok(()),
                }
            });
            if outcome.is_ok()
                && bad
                && !restarted
                && let Some(left) = &left
            {
                // It was back already: the guard was quicker, and marked what it left.
                let _ = self.run.nodes.mark_bad(&node, &role, left, text).await;
            }
            self.undone(StepKind::Activate, outcome, failures);
            if reloads && failures.is_empty() {
                self.reload_back(from, failures).await;
            }
        } else if activated && left.is_some() {
            self.undone(StepKind::Activate, Ok(()), failures);
        }
        if service && stopped && !restarted && failures.is_empty() {
            let outcome = within(limit.0, self.run.nodes.start(&node, &role, from)).await;
            self.undone(StepKind::Stop, outcome, failures);
        } else if service && stopped && failures.is_empty() {
            self.undone(StepKind::Stop, Ok(()), failures);
        }
        if service && failures.is_empty() {
            let outcome = self.wait_back(from).await;
            if let Err(error) = outcome {
                self.undo_failed(StepKind::Ready, error, failures);
            }
        }
        // Going back took it out of what was confirmed; without that word a later rollback would pass it by.
        if moves && self.kind == super::plan::Kind::Rollback && failures.is_empty() {
            let outcome = within(limit.0, self.run.nodes.confirm(&node, &role, from)).await;
            if let Err(error) = outcome {
                self.undo_failed(StepKind::Confirm, error, failures);
            }
        }
    }

    /// What runs reads the conf of what it is back on; one that does not live any more is started.
    async fn reload_back(&self, from: &ReleaseName, failures: &mut Vec<Failed>) {
        let (node, role) = self.names();
        let limit = self.run.plan.policy.progress_deadline;
        let outcome = within(limit.0, self.run.nodes.reload(&node, &role, from)).await;
        let outcome = match outcome {
            Err(error) if error.fault == Fault::Service => {
                within(limit.0, self.run.nodes.start(&node, &role, from)).await
            }
            outcome => outcome,
        };
        self.undone(StepKind::Reload, outcome, failures);
    }

    /// Waits until what it is back on is ready.
    async fn wait_back(&self, from: &ReleaseName) -> Result<(), NodeError> {
        let begun = Instant::now();
        let known = self.track.borrow().back_gate.clone();
        let ready = self.gate_of_current(known).await?;
        let wait = Wait { step: StepKind::Ready, release: from, ready: ready.as_ref(), interruptible: false };
        let outcome = self.wait_ready(&wait).await;
        let mut track = self.track.borrow_mut();
        track.took_itself(begun.elapsed());
        if outcome.is_ok() {
            track.is_up();
        }
        outcome
    }

    /// There was no release before, and there is none after.
    async fn back_to_nothing(&self, why: &Failed, text: &str, failures: &mut Vec<Failed>) {
        let (node, role) = self.names();
        let (to, service) = {
            let track = self.track.borrow();
            (track.to.clone(), track.plan.service)
        };
        let limit = self.run.plan.policy.progress_deadline;
        if service {
            let outcome = within(limit.0, self.run.nodes.stop(&node, &role, text, None)).await;
            self.undone(StepKind::Start, outcome.map(drop), failures);
        }
        let swap = Swap { from: to.clone(), to: None, confirm_within: None, allow_bad: false };
        let outcome = within(limit.0, self.run.nodes.activate(&node, &role, &swap)).await.map(drop);
        if outcome.is_ok() {
            self.track.borrow_mut().release = None;
        }
        self.undone(StepKind::Activate, outcome, failures);
        if let Some(to) = to
            && why.error.fault == Fault::Service
            && let Err(error) = self.run.nodes.mark_bad(&node, &role, &to, text).await
        {
            self.undo_failed(StepKind::Activate, error, failures);
        }
        self.track.borrow_mut().is_up();
    }

    fn undone(&self, step: StepKind, outcome: Result<(), NodeError>, failures: &mut Vec<Failed>) {
        match outcome {
            Ok(()) => drop(self.run.recorder.record(Event::StepUndone { at: self.at(), step }, false)),
            Err(error) => self.undo_failed(step, error, failures),
        }
    }

    fn undo_failed(&self, step: StepKind, error: NodeError, failures: &mut Vec<Failed>) {
        let at = self.at();
        let _ =
            self.run.recorder.record(Event::UndoFailed { at: at.clone(), step, error: error.clone() }, false);
        failures.push(Failed { at, step, undo: true, error });
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, NodeError>>,
) -> Result<T, NodeError> {
    match timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(NodeError::new(Fault::Lost, "timeout", "the node had no answer in time")),
    }
}
