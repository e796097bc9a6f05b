//! Waiting for gates: until one holds, and until it has held for long enough.
//!
//! # Invariants
//!
//! * Every wait ends: by the gate, by its limit, or by a person. The limit's error says what did not hold.
//! * Whoever watches is told what is waited for whenever that changes, and every few seconds.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::event::{At, Event};
use super::interrupt::Interrupt;
use super::node::NodeRun;
use super::ports::{Fault, Held, NodeError, Nodes, Person, Recorder};
use super::step::StepKind;
use super::track::Gate;
use crate::agent::ReleaseName;
use crate::model::{Span, millis};
use crate::recipe::Ready;

/// How long a single probe may take.
const PROBE: Duration = Duration::from_secs(10);
/// For how long a node may give no answer at all before it counts as lost: nobody knows what it did, and what it
/// runs is not to blame.
const SILENCE: Duration = Duration::from_mins(1);
/// The pause after the first probe; each further one is longer by half, up to [`PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const PAUSE: Duration = Duration::from_millis(500);
/// How often a wait that does not change is told about.
const REMIND: Duration = Duration::from_secs(5);

/// How long something may be waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// In all.
    pub(super) limit: Duration,
    /// Without any change of what it waits for.
    pub(super) progress: Duration,
}

/// Asks until it holds, with pauses that grow; `fails` makes the error of what does not hold in time, or never
/// will.
pub(super) async fn wait_until<R: Recorder>(
    patience: &Patience,
    told: &mut Told<'_, R>,
    ask: impl AsyncFn() -> Result<Held, NodeError>,
    fails: impl Fn(String) -> NodeError,
) -> Result<(), NodeError> {
    let begun = Instant::now();
    let mut moved = begun;
    let mut heard = begun;
    let mut last = String::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let asked = timeout(PROBE, ask()).await;
        if asked.is_ok() {
            heard = Instant::now();
        } else if heard.elapsed() >= SILENCE {
            return Err(silent());
        }
        let why = match asked {
            Err(_) => format!("no answer within {}", Span(PROBE)),
            Ok(held) => match super::settings::held(held?, &fails)? {
                None => return Ok(()),
                Some(why) => why,
            },
        };
        if why != last {
            (last, moved) = (why.clone(), Instant::now());
        }
        if begun.elapsed() >= patience.limit {
            return Err(fails(format!("after {}: {why}", Span(patience.limit))));
        }
        if moved.elapsed() >= patience.progress {
            return Err(fails(format!("no progress for {}: {why}", Span(patience.progress))));
        }
        told.tell(&why)?;
        let left = patience.limit.saturating_sub(begun.elapsed());
        sleep(pause.min(left)).await;
        pause = (pause * 3 / 2).min(PAUSE);
    }
}

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
        let own = wait.ready.and_then(|ready| ready.within.value()).map(|within| within.0);
        let limit = own.map_or(policy.gate_timeout.0, |own| own.min(policy.gate_timeout.0));
        let patience = Patience { limit, progress: policy.progress_deadline.0 };
        let fails = |why: String| NodeError::new(Fault::Service, "gate", format!("not ready: {why}"));
        self.wait(wait.step, wait.interruptible, patience, async || self.ask(wait).await, fails).await
    }

    /// Waits until the service may leave its cluster. Nothing was touched yet.
    pub(super) async fn wait_to_leave(&self) -> Result<(), NodeError> {
        let (node, role) = self.names();
        let policy = &self.run.plan.policy;
        let patience = Patience { limit: policy.gate_timeout.0, progress: policy.progress_deadline.0 };
        let fails = |why: String| {
            let message = format!("{role} on {node} may not be stopped now: {why}");
            NodeError::new(Fault::Refused, "may-not-leave", message)
        };
        let ask = async || self.run.nodes.may_leave(&node, &role).await;
        self.wait(StepKind::Drain, !self.run.is_going_back(), patience, ask, fails).await
    }

    /// Has the service hand its work to its peers.
    pub(super) async fn drain(&self) -> Result<(), NodeError> {
        let at = self.at();
        let settings = self.run.change_settings(&at).await?;
        let policy = &self.run.plan.policy;
        let patience = Patience { limit: policy.gate_timeout.0, progress: policy.progress_deadline.0 };
        let fails = |why: String| NodeError::new(Fault::Refused, "drain", format!("not drained: {why}"));
        let ask = async || self.run.nodes.drain(&at.node, &at.role, &settings).await;
        self.wait(StepKind::Drain, !self.run.is_going_back(), patience, ask, fails).await
    }

    async fn wait(
        &self,
        step: StepKind,
        interruptible: bool,
        patience: Patience,
        ask: impl AsyncFn() -> Result<Held, NodeError>,
        fails: impl Fn(String) -> NodeError,
    ) -> Result<(), NodeError> {
        let mut told = Told::new(self.run.recorder, self.at(), step);
        tokio::select! {
            biased;
            done = wait_until(&patience, &mut told, ask, fails) => done,
            () = self.run.interrupted.reached(Interrupt::Soon), if interruptible => {
                let message = "interrupted while it waited".to_owned();
                Err(NodeError::new(Fault::Interrupted, "interrupted", message))
            }
        }
    }

    /// Waits until the gate has held for `min_healthy` without a break.
    pub(super) async fn settle(&self, wait: &Wait<'_>) -> Result<(), NodeError> {
        let policy = &self.run.plan.policy;
        let healthy = policy.min_healthy.0;
        let limit = policy.gate_timeout.0.saturating_add(healthy);
        let begun = Instant::now();
        let mut held_since = begun;
        let mut heard = begun;
        let mut told = Told::new(self.run.recorder, self.at(), wait.step);
        loop {
            let (asked, answered) = self.probe(wait).await?;
            if answered {
                heard = Instant::now();
            } else if heard.elapsed() >= SILENCE {
                return Err(silent());
            }
            match asked {
                None if held_since.elapsed() >= healthy => return Ok(()),
                None => {}
                Some(why) if begun.elapsed() >= limit => {
                    let message = format!("it did not stay ready for {}: {why}", policy.min_healthy);
                    return Err(NodeError::new(Fault::Service, "gate", message));
                }
                Some(why) => {
                    told.tell(&why)?;
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

    /// Asks once; `None` if the gate holds, else why it does not, and whether there was an answer.
    async fn probe(&self, wait: &Wait<'_>) -> Result<(Option<String>, bool), NodeError> {
        let never = |why: String| NodeError::new(Fault::Service, "gate", why);
        match timeout(PROBE, self.ask(wait)).await {
            Err(_) => Ok((Some(format!("the probe had no answer within {}", Span(PROBE))), false)),
            Ok(held) => Ok((super::settings::held(held?, never)?, true)),
        }
    }

    /// The service itself; once that is up, its cluster too.
    async fn ask(&self, wait: &Wait<'_>) -> Result<Held, NodeError> {
        let (node, role) = self.names();
        match self.run.nodes.probe(&node, &role, wait.release, wait.ready).await? {
            Held::Yes if wait.step == StepKind::Settle => {
                self.run.nodes.settled(&node, &role, wait.release).await
            }
            held => Ok(held),
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

fn silent() -> NodeError {
    let message = format!("the node had no answer for {}", Span(SILENCE));
    NodeError::new(Fault::Lost, "silent", message)
}

/// What was told about a wait, and when.
pub(super) struct Told<'a, R> {
    recorder: &'a R,
    at: At,
    step: StepKind,
    begun: Instant,
    last: Option<(String, Instant)>,
}

impl<'a, R: Recorder> Told<'a, R> {
    pub(super) fn new(recorder: &'a R, at: At, step: StepKind) -> Self {
        Self { recorder, at, step, begun: Instant::now(), last: None }
    }

    fn tell(&mut self, why: &str) -> Result<(), NodeError> {
        if self.last.as_ref().is_some_and(|(what, when)| what == why && when.elapsed() < REMIND) {
            return Ok(());
        }
        self.last = Some((why.to_owned(), Instant::now()));
        let elapsed_ms = millis(self.begun.elapsed());
        let (at, step, waits_for) = (self.at.clone(), self.step, Some(why.to_owned()));
        let event = Event::StepProgress { at, step, waits_for, bytes: None, total: None, elapsed_ms };
        Ok(self.recorder.record(event, false)?)
    }
}
