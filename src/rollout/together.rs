//! A wave of a service of which no two versions may run at the same time: all stop, then all start.
//!
//! # Invariants
//!
//! * No instance starts before every instance has stopped, neither forwards nor on the way back.
//! * All of them are confirmed, or none.

use std::cell::RefCell;

use futures_util::future::join_all;

use super::engine::Run;
use super::event::Failed;
use super::node::NodeRun;
use super::plan::Kind;
use super::ports::{Fault, Nodes, Person, Recorder};
use super::step::StepKind;
use super::track::Track;
use super::wave::{Group, groups};
use crate::inventory::OnFailure;

impl<N: Nodes, R: Recorder, P: Person> Run<'_, N, R, P> {
    /// Runs the wave; gives the number of nodes that failed.
    pub(super) async fn together(&self, tracks: &[&RefCell<Track>], kind: Kind) -> usize {
        let groups = groups(tracks);
        let stops = |step| step <= StepKind::Stop;
        let mut outcomes = join_all(groups.iter().map(async |group| match kind {
            // Its activation stops and starts what runs: all of it has to be stopped before.
            Kind::Rollback => self.all_down(group).await,
            Kind::Promote | Kind::Restart | Kind::Leave => self.part(group, kind, stops).await,
        }))
        .await;
        if outcomes.iter().all(Option::is_none) {
            let rest = |step| kind == Kind::Rollback || step > StepKind::Stop;
            outcomes = join_all(groups.iter().map(|group| self.part(group, kind, rest))).await;
        }
        let Some(first) = outcomes.iter().flatten().next().cloned() else {
            for track in groups.iter().flatten() {
                let node = NodeRun { run: self, track, kind };
                match node.confirm().await {
                    Ok(()) => self.node_done(track),
                    Err(failed) => self.fail(&[*track], kind, &failed).await,
                }
            }
            return 0;
        };
        if self.plan.policy.on_failure != OnFailure::Halt {
            let touched = groups.iter().filter(|group| group.iter().any(|one| one.borrow().is_touched()));
            let _ = join_all(touched.map(|group| self.all_down(group))).await;
        }
        let failed = outcomes.iter().flatten().filter(|one| one.error.fault != Fault::Interrupted).count();
        for (group, outcome) in groups.iter().zip(outcomes) {
            // One that did as it was told goes back with the others, and its release is not bad.
            let mut innocent = first.clone();
            innocent.error.fault = Fault::Interrupted;
            self.fail(group, kind, &outcome.unwrap_or(innocent)).await;
        }
        failed
    }

    async fn part(
        &self,
        group: &Group<'_>,
        kind: Kind,
        part: impl Fn(StepKind) -> bool + Copy,
    ) -> Option<Failed> {
        for track in group {
            let node = NodeRun { run: self, track, kind };
            if let Err(failed) = node.steps(part).await {
                return Some(failed);
            }
        }
        None
    }

    /// Stops what runs.
    async fn all_down(&self, group: &Group<'_>) -> Option<Failed> {
        for track in group {
            let at = track.borrow().at();
            {
                let mut track = track.borrow_mut();
                track.goes_down();
                track.begun.push(StepKind::Stop);
            }
            let outcome =
                self.nodes.stop(&at.node, &at.role, "two versions may not run together", None).await;
            if let Err(error) = outcome {
                return Some(Failed { at, step: StepKind::Stop, undo: false, error });
            }
        }
        None
    }
}
