//! A wave: its nodes at the same time, each role of a node after the other.
//!
//! # Invariants
//!
//! * A node that failed is undone at once, while the others of its wave go on; all its roles go back.
//! * The guard of a role that waits for the node's other roles counts from the last word about it, so that it does
//!   not go back beside a controller that is well.
//! * A forming role is confirmed, or undone, as a whole.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::pending;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::engine::Run;
use super::event::{Event, Failed, NodeState, Outcome};
use super::node::NodeRun;
use super::plan::Kind;
use super::ports::{Fault, Nodes, Person, Recorder};
use super::track::Track;
use crate::inventory::OnFailure;

/// How often a guard is told in the time that it gives: two words may be lost.
const RENEWALS: u32 = 3;

/// The roles of one node in a wave, in order.
pub(super) type Group<'t> = Vec<&'t RefCell<Track>>;

impl<N: Nodes, R: Recorder, P: Person> Run<'_, N, R, P> {
    /// Runs a wave; gives the number of nodes that failed.
    pub(super) async fn wave(&self, tracks: &[&RefCell<Track>], kind: Kind, forming: bool) -> usize {
        if forming {
            // The roles of a node too: a cluster may need them all before any of them is ready.
            let each: Vec<Group<'_>> = tracks.iter().map(|track| vec![*track]).collect();
            return self.forming(&each, kind).await;
        }
        let groups = groups(tracks);
        let mut running: FuturesUnordered<_> = groups.iter().map(|group| self.group(group, kind)).collect();
        let mut failed = 0;
        while let Some(fails) = running.next().await {
            failed += usize::from(fails);
        }
        failed
    }

    /// All roles of a node; whether it failed.
    async fn group(&self, group: &Group<'_>, kind: Kind) -> bool {
        let mut why = None;
        for (index, track) in group.iter().enumerate() {
            let node = NodeRun { run: self, track, kind };
            let outcome = tokio::select! {
                biased;
                outcome = node.switch() => outcome,
                never = self.renew(&group[..index], kind) => match never {},
            };
            if let Err(failed) = outcome {
                why = Some((&group[..=index], failed));
                break;
            }
        }
        if why.is_none() {
            for track in group {
                let node = NodeRun { run: self, track, kind };
                if let Err(failed) = node.confirm().await {
                    // All of them were switched.
                    why = Some((&group[..], failed));
                    break;
                }
                if kind == Kind::Restart {
                    // Nothing else on the node tells that this one need not be started once more.
                    let at = track.borrow().at();
                    let _ = self.nodes.end(&at.node, &at.role, self.id, Outcome::Succeeded.name()).await;
                }
                self.node_done(track);
            }
        }
        let Some((switched, failed)) = why else { return false };
        // Those confirmed in this very group stay on record as such: they go back as the others do.
        self.fail(switched, kind, &failed).await;
        failed.error.fault != Fault::Interrupted
    }

    /// Has the guards of these roles count anew, again and again, while another role of their node is changed. Never
    /// ends. One that cannot be told goes back in its time, which the confirmation will find out.
    async fn renew(&self, waiting: &[&RefCell<Track>], kind: Kind) -> Infallible {
        let Some(within) = self.plan.policy.confirm_within else { return pending().await };
        loop {
            sleep(within.0 / RENEWALS).await;
            for track in waiting {
                let node = NodeRun { run: self, track, kind };
                if node.is_guarded() {
                    node.renew().await;
                }
            }
        }
    }

    /// Brings the roles of a node back, the last first.
    pub(super) async fn fail(&self, group: &[&RefCell<Track>], kind: Kind, failed: &Failed) {
        let interrupted = failed.error.fault == Fault::Interrupted;
        if !interrupted {
            self.failures.borrow_mut().push(failed.clone());
        }
        let halts = self.plan.policy.on_failure == OnFailure::Halt && !interrupted;
        for track in group.iter().rev() {
            let node = NodeRun { run: self, track, kind };
            let touched = track.borrow().is_touched();
            // One that shall leave is put back as it was, whatever that was.
            let was_wrong = !matches!(kind, Kind::Promote | Kind::Leave) && !track.borrow().plan.healthy;
            if self.is_going_back() || was_wrong || (kind == Kind::Restart && interrupted) {
                // Forward again would be to what was left for a reason; and what is being started already can
                // only be waited for.
                self.needs_person(track, touched);
                self.join_again(&node).await;
            } else if halts {
                self.halted(&node, touched);
                self.join_again(&node).await;
            } else {
                // Only the release that failed is to blame; what goes back with it is not.
                let mut why = failed.clone();
                if track.borrow().at() != failed.at && why.error.fault == Fault::Service {
                    why.error.fault = Fault::Refused;
                }
                let failures = node.undo(&why).await;
                self.failures.borrow_mut().extend(failures);
            }
            self.node_done(track);
        }
    }

    /// A node that is left as it is leaves nothing changed in its cluster.
    async fn join_again(&self, node: &NodeRun<'_, N, R, P>) {
        let mut failures = Vec::new();
        node.join_again(&mut failures).await;
        self.failures.borrow_mut().extend(failures);
    }

    fn halted(&self, node: &NodeRun<'_, N, R, P>, touched: bool) {
        let guarded = node.is_guarded();
        self.needs_person(node.track, touched);
        if guarded && let Some(within) = self.plan.policy.confirm_within {
            let mut track = node.track.borrow_mut();
            let node = track.plan.node.clone();
            track.next = Some(format!(
                "windlass status --nodes {node}  # its guard goes back {within} after the activation"
            ));
        }
    }

    fn needs_person(&self, track: &RefCell<Track>, touched: bool) {
        let mut track = track.borrow_mut();
        if touched {
            track.state = NodeState::NeedsPerson;
            let at = track.at();
            track.next = Some(format!("windlass rollback --nodes {} --role {}", at.node, at.role));
        } else {
            track.state = NodeState::Untouched;
        }
    }

    /// All at once, since the first alone cannot be ready; then all are confirmed, or none.
    async fn forming(&self, groups: &[Group<'_>], kind: Kind) -> usize {
        let switch = async |group: &Group<'_>, index: usize| {
            for track in group {
                let node = NodeRun { run: self, track, kind };
                if let Err(failed) = node.switch().await {
                    return (index, Some(failed));
                }
            }
            (index, None)
        };
        let mut running: FuturesUnordered<_> =
            groups.iter().enumerate().map(|(index, group)| switch(group, index)).collect();
        let mut outcomes: Vec<Option<Failed>> = groups.iter().map(|_| None).collect();
        while let Some((index, outcome)) = running.next().await {
            outcomes[index] = outcome;
        }
        drop(running);
        let failed = outcomes
            .iter()
            .filter(|one| fault(one.as_ref()).is_some_and(|one| one != Fault::Interrupted))
            .count();
        let interrupted = outcomes.iter().any(|one| fault(one.as_ref()) == Some(Fault::Interrupted));
        let broken = interrupted || self.exceeds(failed);
        let first = outcomes.iter().flatten().next().cloned();
        let mut ending: FuturesUnordered<_> = groups
            .iter()
            .zip(outcomes)
            .map(async |(group, outcome)| match (outcome, &first) {
                (Some(failed), _) => self.fail(group, kind, &failed).await,
                (None, Some(first)) if broken => {
                    // It is not this node's fault, and its release is not bad.
                    let mut failed = first.clone();
                    failed.error.fault = Fault::Interrupted;
                    self.fail(group, kind, &failed).await;
                }
                (None, _) => {
                    for track in group {
                        let node = NodeRun { run: self, track, kind };
                        match node.confirm().await {
                            Ok(()) => self.node_done(track),
                            Err(failed) => self.fail(group, kind, &failed).await,
                        }
                    }
                }
            })
            .collect();
        while ending.next().await.is_some() {}
        failed
    }

    pub(super) fn node_done(&self, track: &RefCell<Track>) {
        let result = track.borrow().result();
        // What the node's own journal says is on its disk already.
        let _ = self.recorder.record(Event::NodeDone { result }, false);
    }
}

fn fault(outcome: Option<&Failed>) -> Option<Fault> {
    outcome.map(|failed| failed.error.fault)
}

pub(super) fn groups<'t>(tracks: &[&'t RefCell<Track>]) -> Vec<Group<'t>> {
    let mut groups: Vec<Group<'t>> = Vec::new();
    for track in tracks {
        let node = track.borrow().plan.node.clone();
        match groups.iter_mut().find(|group| group[0].borrow().plan.node == node) {
            Some(group) => group.push(track),
            None => groups.push(vec![track]),
        }
    }
    groups
}
