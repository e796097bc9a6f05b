//! All that can be done before anything that runs is touched: locks, looks, staging.

use std::cell::RefCell;
use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::engine::Run;
use super::event::{At, Event, Failed, Outcome};
use super::plan::{Goal, NodePlan};
use super::ports::{Fault, NodeError, Nodes, Person, Recorder};
use super::step::StepKind;
use super::track::{Gate, Track};
use crate::agent::{Errand, NodeStatus, RoleStatus};
use crate::model::{NodeName, millis};

impl<N: Nodes, R: Recorder, P: Person> Run<'_, N, R, P> {
    /// Locks, looks and stages: all that can be done before anything that runs is touched.
    pub(super) async fn prepare(&self, all: &[&RefCell<Track>]) -> Result<(), Vec<Failed>> {
        self.begin(all)?;
        self.lock(all).await?;
        self.preflight(all).await?;
        self.stage(all).await?;
        self.note_errands(all).await?;
        // Whoever wants a cluster changed finds it as it was before an earlier rollout was broken off.
        self.put_back_leftovers(false).await;
        Ok(())
    }

    /// Every node knows what is going to be done with it: any machine can go on with that.
    async fn note_errands(&self, all: &[&RefCell<Track>]) -> Result<(), Vec<Failed>> {
        let mut failures = Vec::new();
        for (track, outcome) in self.tell(all.iter().copied(), |track| self.errand(track)).await {
            let mut track = track.borrow_mut();
            track.noted = outcome.is_ok();
            let failed = |error| Failed { at: track.at(), step: StepKind::Stage, undo: false, error };
            failures.extend(outcome.err().map(failed));
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// Writes errands into the nodes' journals, all at once; what became of each.
    pub(super) async fn tell<'t>(
        &self,
        all: impl IntoIterator<Item = &'t RefCell<Track>>,
        errand: impl Fn(&Track) -> Errand,
    ) -> Vec<(&'t RefCell<Track>, Result<(), NodeError>)> {
        let errand = &errand;
        let telling = all.into_iter().map(async |track| {
            let (at, errand) = {
                let track = track.borrow();
                (track.at(), errand(&track))
            };
            (track, self.nodes.plan(&at.node, &at.role, &errand).await)
        });
        join_all(telling).await
    }

    /// What a node's journal shall say.
    pub(super) fn errand(&self, track: &Track) -> Errand {
        Errand {
            rollout: self.id.to_owned(),
            kind: self.plan.kind.command().to_owned(),
            from: track.plan.prior().cloned(),
            to: track.to.clone(),
            who: self.operator.who.clone(),
            host: self.operator.host.clone(),
        }
    }

    /// Every node that can be reached knows that it is over.
    pub(super) async fn end_errands(&self, all: &[&RefCell<Track>], outcome: Outcome) {
        let mut running: FuturesUnordered<_> = all
            .iter()
            .filter(|track| track.borrow().noted)
            .map(async |track| {
                let at = track.borrow().at();
                // Where this is lost, `resume` looks and finds that nothing is left to do.
                let _ = self.nodes.end(&at.node, &at.role, self.id, outcome.name()).await;
            })
            .collect();
        while running.next().await.is_some() {}
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
        // Looked up once: thousands of nodes that each look through all of them cost their square.
        let mut of_node: BTreeMap<NodeName, Vec<&RefCell<Track>>> = BTreeMap::new();
        for track in all {
            of_node.entry(track.borrow().plan.node.clone()).or_default().push(track);
        }
        let names: Vec<NodeName> = of_node.keys().cloned().collect();
        let (work, tracks) = (&work, |node: &NodeName| of_node.get(node).map_or(&[][..], Vec::as_slice));
        let mut running: FuturesUnordered<_> = names
            .into_iter()
            .map(async |node| {
                let begun = Instant::now();
                self.on_tracks(tracks(&node), |at| Event::StepStarted { at, step, then: Vec::new() });
                let outcome = work(&node).await;
                let duration_ms = millis(begun.elapsed());
                self.on_tracks(tracks(&node), |at| match &outcome {
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
                    let track = tracks(&node).first();
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

    fn on_tracks(&self, tracks: &[&RefCell<Track>], event: impl Fn(At) -> Event) {
        for track in tracks {
            // Nothing is changed by these; what matters is written with care later.
            let _ = self.recorder.record(event(track.borrow().at()), false);
        }
    }

    pub(super) async fn lock(&self, all: &[&RefCell<Track>]) -> Result<(), Vec<Failed>> {
        // The first by name before the others: of two rollouts over the same nodes one gets them all, where each
        // would get some.
        let node = |track: &&RefCell<Track>| track.borrow().plan.node.clone();
        let first = all.iter().map(node).min();
        let (first, others): (Vec<_>, Vec<_>) =
            all.iter().copied().partition(|track| first.as_ref() == Some(&track.borrow().plan.node));
        for tracks in [first, others] {
            self.on_each(&tracks, StepKind::Lock, async |node: &NodeName| self.nodes.lock(node).await)
                .await?;
        }
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
                    if track.plan.goes_back_to.is_none() {
                        track.back_gate = Gate::Known(found.probe.clone());
                    }
                    if track.is_there() {
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
        let elapsed = || millis(begun.elapsed());
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

    pub(super) fn check_interrupt(&self, all: &[&RefCell<Track>], step: StepKind) -> Result<(), Vec<Failed>> {
        if !self.interrupted.is_set() {
            return Ok(());
        }
        let error = NodeError::new(Fault::Interrupted, "interrupted", "interrupted; nothing was changed");
        let first = all.first().map(|track| track.borrow().at());
        Err(first.map(|at| Failed { at, step, undo: false, error }).into_iter().collect())
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
