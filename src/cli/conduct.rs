//! Runs a plan for an operator: the journal, the view, the person who is asked, the exit code.

use std::io::Write as _;

use super::cluster::{ClusterArgs, claim, runtime};
use super::context::{Context, print};
use super::error::{Failure, exit};
use super::operate::{
    Prepared, Wish, before_anything, has_terminal, prepare, rollouts, says_yes, signals, wanted,
};
use super::session::Session;
use crate::fs::IoError;
use crate::model::{Span, Timestamp};
use crate::nodes::{Live, NoStager, PushStager, Stager};
use crate::push::Pusher;
use crate::report::{RolloutView, finished_text};
use crate::rollout::{
    Event, Finished, Goal, Interrupted, Journal, Kind, Line, Operator, Outcome, Person, Plan, Recorder, Run,
};

/// How a wish is carried out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Without waves and gates.
    pub(super) now: bool,
    /// Nodes that are staged at a time.
    pub(super) parallel: usize,
}

/// Plans a wish and runs the plan.
pub(super) fn run(context: &Context, args: &ClusterArgs, wish: &Wish, manner: Manner) -> Result<u8, Failure> {
    let interrupted = signals();
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let loaded = args.load(context)?;
        let wanted = wanted(args, &loaded, wish)?;
        let ready = before_anything(&interrupted, async {
            let session = Session::open(loaded, &wanted).await;
            let prepared = prepare(context, &session, wanted, wish).await?;
            super::check::before(context, &session, &prepared, wish).await?;
            Ok((session, prepared))
        });
        let (session, prepared) = ready.await?;
        Box::pin(conduct(context, &session, &prepared, manner, interrupted.clone())).await
    });
    // Connections to nodes that hang must not hold up the end.
    runtime.shutdown_background();
    outcome
}

pub(super) async fn conduct(
    context: &Context,
    session: &Session,
    prepared: &Prepared,
    manner: Manner,
    interrupted: Interrupted,
) -> Result<u8, Failure> {
    let plan = &prepared.plan;
    if plan.is_empty() {
        return nothing_to_do(context, prepared);
    }
    warn_of_guard(context, plan);
    let journal = rollouts(context)?.begin(plan)?;
    let claim = claim(Some(journal.id().to_owned()));
    let operator = Operator { who: claim.who.clone(), host: claim.host.clone() };
    let view = RolloutView::new(context.bars(), context.common.quiet, context.is_json());
    let recorder = Told { journal: &journal, view: &view, json: context.is_json() };
    let person = Asked { context, view: &view };
    let services = session.services_for(prepared);
    // What goes on with another machine's rollout finds everything on the nodes.
    let stages = plan.nodes().any(|one| matches!(one.goal, Goal::Bundle(_)));
    let finished = if stages {
        let stager = PushStager {
            pusher: Pusher::new(context.store()?, manner.parallel, &context.cancel)?,
            cluster: &session.loaded.cluster,
            secrets: &session.loaded.secrets,
            targets: &prepared.targets,
            forming: &prepared.forming,
            parallel: manner.parallel,
            rollout: journal.id().to_owned(),
            who: operator.who.clone(),
            observer: &view,
        };
        let live = Live { fleet: &session.fleet, claim, stager, services: &services };
        Box::pin(ran(&journal, plan, (&live, &recorder, &person), interrupted, operator, manner.now)).await
    } else {
        let live = Live { fleet: &session.fleet, claim, stager: NoStager, services: &services };
        Box::pin(ran(&journal, plan, (&live, &recorder, &person), interrupted, operator, manner.now)).await
    };
    view.end();
    tell(context, &journal, prepared, &finished)?;
    Ok(code(&finished))
}

/// A guard that is quicker than the gates goes back while they are still waited for.
fn warn_of_guard(context: &Context, plan: &Plan) {
    let policy = &plan.policy;
    let gates = Span(policy.gate_timeout.0.saturating_add(policy.min_healthy.0));
    if let Some(within) = policy.confirm_within
        && plan.kind == Kind::Promote
        && within.0 <= gates.0
    {
        context.remark(&format!(
            "confirm_within is {within}, and gates may take {gates}: a node may go back before they hold"
        ));
    }
}

async fn ran<S: Stager>(
    journal: &Journal,
    plan: &Plan,
    ports: (&Live<'_, S>, &Told<'_>, &Asked<'_>),
    interrupted: Interrupted,
    operator: Operator,
    now: bool,
) -> Finished {
    let run = Run::new(journal.id(), plan, ports, interrupted, operator);
    if now { run.run_now().await } else { run.run().await }
}

fn nothing_to_do(context: &Context, prepared: &Prepared) -> Result<u8, Failure> {
    if context.is_json() {
        let (nodes, failures) = (Vec::new(), Vec::new());
        let event = Event::RolloutFinished { outcome: Outcome::Succeeded, nodes, failures };
        let line = Line { time: Timestamp::now(), rollout: String::new(), event };
        print(&format!("{}\n", serde_json::to_value(&line).unwrap_or_default()))?;
    } else {
        let what = match prepared.plan.kind {
            Kind::Promote | Kind::Rollback => "every node is on target and healthy",
            Kind::Restart => "none of these nodes runs anything",
            Kind::Leave => "nothing of windlass runs there",
        };
        print(&format!("nothing to do: {what}\n"))?;
    }
    Ok(exit::DONE)
}

/// The exit code of a rollout.
pub(super) fn code(finished: &Finished) -> u8 {
    match finished.outcome {
        Outcome::Succeeded => exit::DONE,
        Outcome::NeedsPerson => exit::NEEDS_PERSON,
        Outcome::Interrupted => exit::INTERRUPTED,
        Outcome::RolledBack if finished.is_locked() => exit::LOCKED,
        Outcome::RolledBack if !finished.touched => exit::FAILED,
        Outcome::RolledBack => exit::ROLLED_BACK,
    }
}

fn tell(
    context: &Context,
    journal: &Journal,
    prepared: &Prepared,
    finished: &Finished,
) -> Result<(), Failure> {
    if context.is_json() {
        return Ok(());
    }
    print(&finished_text(journal.id(), &prepared.plan, finished))
}

/// Writes down and tells what is done without the engine.
pub(super) fn record(
    context: &Context,
    journal: &Journal,
    events: impl IntoIterator<Item = Event>,
) -> Result<(), Failure> {
    let view = RolloutView::new(false, true, context.is_json());
    let told = Told { journal, view: &view, json: context.is_json() };
    for event in events {
        told.record(event, true)?;
    }
    Ok(())
}

/// The journal first, then whoever watches.
struct Told<'a> {
    journal: &'a Journal,
    view: &'a RolloutView,
    json: bool,
}

impl Recorder for Told<'_> {
    fn record(&self, event: Event, durable: bool) -> Result<(), IoError> {
        let line = self.journal.append(event, durable);
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                self.view
                    .remark(&format!("the rollout's journal cannot be written: {error}: {}", error.source));
                return Err(error);
            }
        };
        if self.json {
            // Whoever reads it may be gone; the rollout is not theirs to stop.
            let text = serde_json::to_string(&line).unwrap_or_default();
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
        self.view.event(&line.event);
        Ok(())
    }
}

struct Asked<'a> {
    context: &'a Context,
    view: &'a RolloutView,
}

impl Person for Asked<'_> {
    async fn goes_on(&self) -> bool {
        if !has_terminal(self.context) {
            return false;
        }
        self.view.remark("the canary is done; go on with the rest? [y/N]");
        says_yes().await
    }
}
