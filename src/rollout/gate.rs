//! Waiting for gates: until one holds, and until it has held for long enough.
//!
//! # Invariants
//!
//! * Every wait ends: by the gate, by its limit, or by a person. The limit's error says what did not hold.
//! * Whoever watches is told what is waited for whenever that changes, and every few seconds.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::event::Event;
use super::interrupt::Interrupt;
use super::node::NodeRun;
use super::ports::{Fault, Held, NodeError, Nodes, Person, Recorder};
use super::step::StepKind;
use super::track::Gate;
use crate::agent::ReleaseName;
use crate::model::{Span, millis};
use crate::recipe::{OrTemplate, Ready};

/// How long a single probe may take.
const PROBE: Duration = Duration::from_secs(10);
/// The pause after the first probe; each further one is longer by half, up to [`PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const PAUSE: Duration = Duration::from_millis(500);
/// How often a wait that does not change is told about.
const REMIND: Duration = Duration::from_secs(5);

/// Which release is waited for, in which step, and what may end the wait.
pub(super) struct Wait<'a> {
    pub(super) step: StepKind,
    pub(super) release: &'a ReleaseName,
    pub(super) ready: Option<&'a Ready>,
    /// A person's wish to stop ends it.
    pub(super) interruptible: bool,
}

impl<N: Nodes, R: Recorder, P: Person> NodeRun<'_, N, R, P> {
    /// Waits until the gate holds.
    pub(super) async fn wait_ready(&self, wait: &Wait<'_>) -> Result<(), NodeError> {
        let policy = &self.run.plan.policy;
        let own = wait.ready.and_then(|ready| match &ready.within {
            OrTemplate::Value(within) => Some(within.0),
            OrTemplate::Template(_) => None,
        });
        let limit = policy.gate_timeout.0.min(policy.progress_deadline.0);
        let limit = own.map_or(limit, |own| own.min(limit));
        let begun = Instant::now();
        let mut told = Told::new(begun);
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(why) = self.probe(wait).await? else { return Ok(()) };
            if begun.elapsed() >= limit {
                let message = format!("not ready after {}: {why}", Span(limit));
                return Err(NodeError::new(Fault::Service, "gate", message));
            }
            told.tell(self, wait.step, &why)?;
            let left = limit.saturating_sub(begun.elapsed());
            tokio::select! {
                () = sleep(pause.min(left)) => {}
                () = self.run.interrupted.reached(Interrupt::Soon), if wait.interruptible => {
                    let message = format!("interrupted while it was not ready: {why}");
                    return Err(NodeError::new(Fault::Interrupted, "interrupted", message));
                }
            }
            pause = (pause * 3 / 2).min(PAUSE);
        }
    }

    /// Waits until the gate has held for `min_healthy` without a break.
    pub(super) async fn settle(&self, wait: &Wait<'_>) -> Result<(), NodeError> {
        let policy = &self.run.plan.policy;
        let healthy = policy.min_healthy.0;
        let limit = policy.gate_timeout.0.saturating_add(healthy);
        let begun = Instant::now();
        let mut held_since = begun;
        let mut told = Told::new(begun);
        loop {
            match self.probe(wait).await? {
                None if held_since.elapsed() >= healthy => return Ok(()),
                None => {}
                Some(why) if begun.elapsed() >= limit => {
                    let message = format!("it did not stay ready for {}: {why}", policy.min_healthy);
                    return Err(NodeError::new(Fault::Service, "gate", message));
                }
                Some(why) => {
                    told.tell(self, wait.step, &why)?;
                    sleep(PAUSE.min(healthy.max(FIRST_PAUSE))).await;
                    held_since = Instant::now();
                    continue;
                }
            }
            if begun.elapsed() >= limit {
                let message = format!("it did not stay ready for {}", policy.min_healthy);
                return Err(NodeError::new(Fault::Service, "gate", message));
            }
            sleep(PAUSE.min(healthy.saturating_sub(held_since.elapsed()).max(FIRST_PAUSE))).await;
        }
    }

    /// Asks once; `None` if the gate holds, else why it does not.
    async fn probe(&self, wait: &Wait<'_>) -> Result<Option<String>, NodeError> {
        let (node, role) = self.names();
        let probe = self.run.nodes.probe(&node, &role, wait.release, wait.ready);
        match timeout(PROBE, probe).await {
            Err(_) => Ok(Some(format!("the probe had no answer within {}", Span(PROBE)))),
            Ok(Ok(Held::Yes)) => Ok(None),
            Ok(Ok(Held::NotYet(why))) => Ok(Some(why)),
            Ok(Ok(Held::Never(why))) => Err(NodeError::new(Fault::Service, "gate", why)),
            Ok(Err(error)) => Err(error),
        }
    }

    /// The gate of what is current on the node; asked for if it is not known.
    pub(super) async fn gate_of_current(&self, known: Gate) -> Result<Option<Ready>, NodeError> {
        if let Gate::Known(ready) = known {
            return Ok(ready);
        }
        let (node, role) = self.names();
        let status = self.run.nodes.status(&node).await?;
        Ok(status.roles.into_iter().find(|one| one.role == role).and_then(|one| one.probe))
    }
}

/// What was told about a wait, and when.
struct Told {
    begun: Instant,
    last: Option<(String, Instant)>,
}

impl Told {
    fn new(begun: Instant) -> Self {
        Self { begun, last: None }
    }

    fn tell<N: Nodes, R: Recorder, P: Person>(
        &mut self,
        node: &NodeRun<'_, N, R, P>,
        step: StepKind,
        why: &str,
    ) -> Result<(), NodeError> {
        if self.last.as_ref().is_some_and(|(what, when)| what == why && when.elapsed() < REMIND) {
            return Ok(());
        }
        self.last = Some((why.to_owned(), Instant::now()));
        let elapsed_ms = millis(self.begun.elapsed());
        let waits_for = Some(why.to_owned());
        let at = node.at();
        let event = Event::StepProgress { at, step, waits_for, bytes: None, total: None, elapsed_ms };
        Ok(node.run.recorder.record(event, false)?)
    }
}
