//! `on_failure = "rollback-all"`: what the rollout finished before goes back too.
//!
//! # Invariants
//!
//! * It is a rollout: the same waves, the last first, with the same gates.
//! * What each node goes back to is found on all of them before the first one moves.

use std::cell::RefCell;

use futures_util::future::join_all;

use super::engine::{Run, is_left_down};
use super::event::{Event, Failed, NodeState};
use super::plan::{Goal, Kind, NodePlan};
use super::planner::steps;
use super::ports::{Fault, NodeError, Nodes, Person, Recorder};
use super::prepare::check;
use super::step::StepKind;
use super::track::Track;
use crate::agent::Errand;

impl<N: Nodes, R: Recorder, P: Person> Run<'_, N, R, P> {
    /// Brings every node that is done back to where it was.
    pub(super) async fn all_back(&self, waves: &[Vec<RefCell<Track>>]) {
        self.turn_back();
        let mut ways: Vec<Vec<(&RefCell<Track>, RefCell<Track>)>> = Vec::new();
        for wave in waves.iter().rev() {
            let done = wave.iter().rev().filter(|track| track.borrow().state == NodeState::Done);
            ways.push(done.map(|track| (track, RefCell::new(Track::new(self.inverse(track))))).collect());
        }
        ways.retain(|wave| !wave.is_empty());
        if !self.can_go_back(&ways).await {
            return;
        }
        // Whoever goes on with this, from whatever machine, goes on going back.
        let errand = |way: &Track| Errand { kind: Kind::Rollback.command().to_owned(), ..self.errand(way) };
        // The nodes are told for the case that this process dies; that they cannot be is none to stop for.
        let _ = self.tell(ways.iter().flatten().map(|(_, way)| way), errand).await;
        for (index, wave) in ways.iter().enumerate() {
            let tracks: Vec<&RefCell<Track>> = wave.iter().map(|(_, way)| way).collect();
            let nodes = tracks.iter().map(|track| track.borrow().at()).collect();
            let wave_number = waves.len() + index + 1;
            let (canary, forming) = (false, false);
            let started = Event::WaveStarted { wave: wave_number, canary, forming, back: true, nodes };
            let _ = self.recorder.record(started, true);
            let failed = self.wave(&tracks, Kind::Rollback, false).await;
            for (track, way) in wave {
                adopt(track, way);
            }
            let _ = self.recorder.record(Event::WaveDone { wave: wave_number, failed }, false);
            // The next wave may not take down what this one left standing alone; `resume` goes on going back.
            if wave.iter().any(|(track, _)| is_left_down(track.borrow().state)) {
                return;
            }
        }
    }

    /// The way back of a node that is done.
    fn inverse(&self, track: &RefCell<Track>) -> NodePlan {
        let track = track.borrow();
        let plan = &track.plan;
        NodePlan {
            from: plan.to.clone(),
            to: plan.prior().map(|prior| prior.version().clone()),
            from_release: track.to.clone(),
            goes_back_to: None,
            goal: plan.prior().cloned().map_or(Goal::Nothing, Goal::Release),
            healthy: true,
            bytes_to_send: 0,
            files_added: plan.files_removed,
            files_removed: plan.files_added,
            files_changed: plan.files_changed,
            point_of_no_return: false,
            steps: steps(
                Kind::Rollback,
                &self.plan.policy,
                plan.service && plan.prior().is_some(),
                plan.drains,
                false,
            ),
            reloads: false,
            ..plan.clone()
        }
    }

    async fn can_go_back(&self, ways: &[Vec<(&RefCell<Track>, RefCell<Track>)>]) -> bool {
        let looks = ways.iter().flatten().map(async |(track, way)| {
            let plan = way.borrow().plan.clone();
            let found = match self.nodes.status(&plan.node).await {
                Ok(_) if track.borrow().plan.point_of_no_return => Err(no_return(&plan)),
                Ok(status) => check(&plan, &status),
                Err(error) => Err(error),
            };
            (track, found)
        });
        let mut failures = Vec::new();
        for (track, found) in join_all(looks).await {
            if let Err(error) = found {
                let mut track = track.borrow_mut();
                track.state = NodeState::NeedsPerson;
                track.next = Some(format!("windlass status --nodes {}", track.plan.node));
                let (at, step) = (track.at(), StepKind::Preflight);
                let event = Event::UndoFailed { at: at.clone(), step, error: error.clone() };
                let _ = self.recorder.record(event, false);
                failures.push(Failed { at, step, undo: true, error });
            }
        }
        let all = failures.is_empty();
        self.failures.borrow_mut().extend(failures);
        all
    }
}

/// What the plan has shown beforehand.
fn no_return(plan: &NodePlan) -> NodeError {
    let message = format!(
        "{} on {} is past its point of no return: a newer version has opened the data",
        plan.role, plan.node
    );
    let mut error = NodeError::new(Fault::Refused, "no-return", message);
    error.line.help.push("roll the others forward: `windlass promote`; or restore a snapshot".to_owned());
    error
}

/// Takes over where the way back ended.
fn adopt(track: &RefCell<Track>, way: &RefCell<Track>) {
    let (mut track, way) = (track.borrow_mut(), way.borrow());
    let was_touched = way.is_touched();
    track.release.clone_from(&way.release);
    track.state = match way.state {
        NodeState::Done => NodeState::RolledBack,
        NodeState::Untouched | NodeState::Changing if !was_touched => NodeState::Done,
        NodeState::Untouched
        | NodeState::Changing
        | NodeState::RolledBack
        | NodeState::Guarded
        | NodeState::NeedsPerson => NodeState::NeedsPerson,
    };
    track.next.clone_from(&way.next);
    track.add_downtime(&way);
}
