//! Waiting for gates: until one holds, and until it has held for long enough.
//!
//! # Invariants
//!
//! * Every wait ends: by the gate, by its limit, or by a person. The limit's error says what did not hold.
//! * Whoever watches is told what is waited for whenever that changes, and every few seconds.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::event::{At, Event};
use super::interrupt::Interrupt;
use super::node::NodeRun;
use super::plan::Kind;
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
/// The longest one while something moves, which may take hours.
const MOVING: Duration = Duration::from_secs(2);
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
    let (mut last, mut mark_before) = (String::new(), None);
    let mut pause = FIRST_PAUSE;
    loop {
        let asked = timeout(PROBE, ask()).await;
        if asked.is_ok() {
            heard = Instant::now();
        } else if heard.elapsed() >= SILENCE {
            return Err(silent());
        }
        let moves = matches!(asked, Ok(Ok(Held::Moving { .. })));
        let (why, mark) = match asked {
            Err(_) => (format!("no answer within {}", Span(PROBE)), None),
            Ok(held) => {
                let held = held?;
                let mark = if let Held::Moving { mark, .. } = &held { Some(mark.clone()) } else { None };
                match super::settings::held(held, &fails)? {
                    None => return Ok(()),
                    Some(why) => (why, mark),
                }
            }
        };
        // Where something was seen to move, other words are no progress any more.
        let progress =
            if mark.is_some() { mark != mark_before } else { mark_before.is_none() && why != last };
        if progress {
            moved = Instant::now();
        }
        last.clone_from(&why);
        mark_before = mark.or(mark_before);
        if begun.elapsed() >= patience.limit {
            return Err(fails(format!("after {}: {why}", Span(patience.limit))));
        }
        if moved.elapsed() >= patience.progress {
            return Err(fails(format!("no progress for {}: {why}", Span(patience.progress))));
        }
        told.tell(&why)?;
        let left = patience.limit.saturating_sub(begun.elapsed());
        sleep(pause.min(left)).await;
        pause = (pause * 3 / 2).min(if moves { MOVING } else { PAUSE });
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
        let what = if self.kind == Kind::Leave { "may not leave" } else { "may not be stopped now" };
        let fails = |why: String| {
            let message = format!("{role} on {node} {what}: {why}");
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
        // Data that moves for good takes the time that it takes, as long as it moves.
        let limit = if self.kind == Kind::Leave { Duration::MAX } else { policy.gate_timeout.0 };
        let patience = Patience { limit, progress: policy.progress_deadline.0 };
        let fails = |why: String| NodeError::new(Fault::Refused, "drain", format!("not drained: {why}"));
        // How much there was at first is known here alone.
        let most = Cell::new(0);
        let ask = async || {
            let held = self.run.nodes.drain(&at.node, &at.role, &settings).await?;
            let Held::Moving { left, what, mark } = held else { return Ok(held) };
            most.set(left.max(most.get()));
            Ok(Held::Moving { left, what: format!("of {} {what}", most.get()), mark })
        };
        self.wait(StepKind::Drain, !self.run.is_going_back(), patience, ask, fails).await
    }

    /// Waits until its cluster has been well without it for `min_healthy`.
    pub(super) async fn wait_gone(&self) -> Result<(), NodeError> {
        let (node, role) = self.names();
        let Some(release) = self.track.borrow().plan.from_release.clone() else { return Ok(()) };
        let policy = &self.run.plan.policy;
        let healthy = policy.min_healthy.0;
        let patience = Patience {
            limit: policy.gate_timeout.0.saturating_add(healthy),
            progress: policy.progress_deadline.0.max(healthy.saturating_add(PAUSE * 2)),
        };
        let fails = |why: String| {
            NodeError::new(Fault::Refused, "gone", format!("its cluster is not as it was: {why}"))
        };
        let since = Cell::new(None::<Instant>);
        let ask = async || {
            let held = self.run.nodes.settled(&node, &role, &release).await?;
            if held != Held::Yes {
                since.set(None);
                return Ok(held);
            }
            let begun = since.get().unwrap_or_else(Instant::now);
            since.set(Some(begun));
            if begun.elapsed() >= healthy {
                return Ok(Held::Yes);
            }
            Ok(Held::NotYet(format!(
                "its cluster is well without it, and not yet for {}",
                policy.min_healthy
            )))
        };
        self.wait(StepKind::Gone, true, patience, ask, fails).await
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
