//! What `plan`, `promote`, `rollback`, `restart` and `resume` share: connecting, planning, running, telling.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;

use camino::{Utf8Path, Utf8PathBuf};

use super::cluster::{ClusterArgs, Loaded};
use super::context::Context;
use super::error::{Failure, exit};
use super::session::Session;
use crate::agent::Preview;
use crate::model::{Cancelled, NodeName, Reference, Role, Timestamp, Version};
use crate::nodes::{Problem, Survey, Surveyor, Target, inputs};
use crate::rollout::{At, Goal, Interrupt, Interrupted, Kind, Past, Plan, Rollouts, Scope, interrupt, plan};
use crate::store::Store;

/// What an operator wants.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// These bundles, or the newest of each role.
    Promote { references: Vec<String>, force: bool },
    /// What was planned and saved.
    Saved(Box<Plan>),
    /// Back to that version, or to each node's prior release.
    Rollback { to: Option<Version>, now: bool, force: bool },
    /// What is current, started anew.
    Restart,
    /// What the last rollout left.
    Resume { past: Option<Box<Past>>, force: bool },
}

/// What is going to be done.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) targets: BTreeMap<Role, Target>,
    pub(super) forming: BTreeSet<Role>,
    pub(super) previews: BTreeMap<At, Preview>,
}

/// The store, which is where rollouts are written down too.
pub(super) fn out(context: &Context) -> Result<Utf8PathBuf, Failure> {
    Ok(context.folder()?.join("out"))
}

/// Runs `work` unless a person asks to stop before it is done: nothing was changed then.
pub(super) async fn before_anything<T>(
    interrupted: &Interrupted,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = interrupted.reached(Interrupt::Soon) => Err(Cancelled.into()),
    }
}

/// Both ends of a person's wish to stop, listening to signals.
pub(super) fn signals() -> Interrupted {
    let (interrupter, interrupted) = interrupt();
    super::signals::watch_rollout(interrupter);
    interrupted
}

/// Which roles of which nodes are meant.
pub(super) type Wanted = Vec<(NodeName, Vec<Role>)>;

/// The nodes and roles that a wish is about.
pub(super) fn wanted(args: &ClusterArgs, loaded: &Loaded, wish: &Wish) -> Result<Wanted, Failure> {
    let selected = args.select(&loaded.cluster)?;
    let all: Wanted = selected
        .into_iter()
        .map(|one| (one.node.name.clone(), one.roles.into_iter().cloned().collect()))
        .collect();
    let wanted = match wish {
        Wish::Promote { .. } | Wish::Rollback { .. } | Wish::Restart | Wish::Resume { .. } => all,
        Wish::Saved(plan) => of_plan(plan),
    };
    Ok(wanted)
}

/// The nodes and roles of a plan.
pub(super) fn of_plan(plan: &Plan) -> Wanted {
    let mut wanted: BTreeMap<NodeName, Vec<Role>> = BTreeMap::new();
    for one in plan.nodes() {
        wanted.entry(one.node.clone()).or_default().push(one.role.clone());
    }
    wanted.into_iter().collect()
}

/// Looks at the nodes and makes the plan.
pub(super) async fn prepare(
    context: &Context,
    session: &Session,
    wanted: Wanted,
    wish: &Wish,
) -> Result<Prepared, Failure> {
    match wish {
        Wish::Promote { references, force } => {
            let store = context.store()?;
            let targets = targets(context, &store, references, &wanted)?;
            promote(session, wanted, &store, targets, *force).await
        }
        Wish::Saved(plan) => saved(context, session, &wanted, plan),
        Wish::Rollback { to, now, force } => {
            let services = session.services();
            let mut surveyor = session.surveyor(&services, wanted);
            if !now {
                surveyor.look().await;
            }
            let survey = surveyor.rollback(to.as_ref(), *force);
            let mut prepared = made(session, &surveyor, Kind::Rollback, survey, BTreeMap::new())?;
            prepared.plan.policy.past_return = *force;
            Ok(prepared)
        }
        Wish::Restart => {
            let services = session.services();
            let mut surveyor = session.surveyor(&services, wanted);
            surveyor.look().await;
            let survey = surveyor.restart();
            made(session, &surveyor, Kind::Restart, survey, BTreeMap::new())
        }
        Wish::Resume { past, force } => {
            super::resume::prepare(context, session, wanted, past.as_deref(), *force).await
        }
    }
}

async fn promote(
    session: &Session,
    wanted: Wanted,
    store: &Store,
    targets: BTreeMap<Role, Target>,
    force: bool,
) -> Result<Prepared, Failure> {
    let services = session.services();
    let mut surveyor = session.surveyor(&services, wanted);
    surveyor.look().await;
    let survey = surveyor.promote(store, &session.loaded.secrets, &targets, force).await;
    let mut prepared = made(session, &surveyor, Kind::Promote, survey, targets)?;
    prepared.plan.policy.allow_bad = force;
    Ok(prepared)
}

pub(super) fn made(
    session: &Session,
    surveyor: &Surveyor<'_>,
    kind: Kind,
    survey: Survey,
    targets: BTreeMap<Role, Target>,
) -> Result<Prepared, Failure> {
    if !survey.problems.is_empty() {
        return Err(problems(&survey.problems));
    }
    let cluster = &session.loaded.cluster;
    let scope = Scope {
        kind,
        cluster: &cluster.name,
        rollout: &cluster.rollout,
        totals: surveyor.totals(),
        forming: survey.forming.clone(),
        leftovers: surveyor.leftovers(),
        time: Timestamp::now(),
    };
    let plan = plan(&scope, survey.candidates);
    Ok(Prepared { plan, targets, forming: survey.forming, previews: survey.previews })
}

/// Nodes of the same roles that a promotion leaves alone, and that would be made another way now: a node that
/// comes or goes is in the conf of others.
pub(super) async fn left_alone(
    context: &Context,
    session: &Session,
    prepared: &Prepared,
) -> Result<Vec<At>, Failure> {
    let plan = &prepared.plan;
    let meant = |node: &NodeName, role: &Role| {
        plan.nodes().any(|one| one.node == *node && one.role == *role)
            || plan.skipped.iter().any(|one| one.node == *node && one.role == *role)
    };
    let others: Wanted = session
        .loaded
        .cluster
        .nodes
        .iter()
        .map(|node| {
            let roles = node.roles.iter().filter(|role| prepared.targets.contains_key(role));
            (node.name.clone(), roles.filter(|role| !meant(&node.name, role)).cloned().collect())
        })
        .filter(|(_, roles): &(NodeName, Vec<Role>)| !roles.is_empty())
        .collect();
    if others.is_empty() || plan.kind != Kind::Promote {
        return Ok(Vec::new());
    }
    let services = session.services();
    let surveyor = session.surveyor(&services, others);
    let survey = surveyor.promote(&context.store()?, &session.loaded.secrets, &prepared.targets, true).await;
    let moved = survey.candidates.into_iter().filter(|one| !one.on_target && one.from.is_some());
    Ok(moved.map(|one| At { node: one.node, role: one.role }).collect())
}

/// The bundles that are meant: those that are named, or the newest of each role.
fn targets(
    context: &Context,
    store: &Store,
    references: &[String],
    wanted: &Wanted,
) -> Result<BTreeMap<Role, Target>, Failure> {
    let roles: BTreeSet<&Role> = wanted.iter().flat_map(|(_, roles)| roles).collect();
    let mut targets = BTreeMap::new();
    if references.is_empty() {
        let index = store.index()?;
        let built: BTreeSet<Role> = index.bundles().map(|tagged| tagged.role).collect();
        for role in roles {
            if built.contains(role) {
                let target = Target::read(store, &Reference::Newest(role.clone()))?;
                targets.insert(role.clone(), target);
            } else {
                context.remark(&format!("{role} is left out: out/ has no bundle of it"));
            }
        }
        if targets.is_empty() {
            let failure =
                Failure::new(exit::FAILED, "store", "out/ has no bundle of any role of these nodes");
            return Err(failure.help("build some: `windlass build`"));
        }
        return Ok(targets);
    }
    for text in references {
        let target = Target::read(store, &text.parse()?)?;
        let role = target.role().clone();
        if !roles.contains(&role) {
            let message = format!("{text}: no node that is meant runs role `{role}`");
            return Err(Failure::new(exit::INVALID, "usage", message));
        }
        if targets.insert(role.clone(), target).is_some() {
            let message = format!("two bundles of role `{role}` are named");
            return Err(Failure::new(exit::INVALID, "usage", message));
        }
    }
    Ok(targets)
}

/// A saved plan, checked against the cluster that there is.
fn saved(context: &Context, session: &Session, wanted: &Wanted, plan: &Plan) -> Result<Prepared, Failure> {
    let cluster = &session.loaded.cluster;
    if plan.cluster != cluster.name {
        let message = format!("the plan is for cluster `{}`, and this is `{}`", plan.cluster, cluster.name);
        return Err(Failure::new(exit::INVALID, "plan", message));
    }
    let mut found = Vec::new();
    let forming: BTreeSet<&Role> = plan
        .waves
        .iter()
        .filter(|wave| wave.forming)
        .flat_map(|wave| &wave.nodes)
        .map(|one| &one.role)
        .collect();
    let status = |node: &NodeName| session.seen.get(node)?.as_ref().ok();
    let seen = |node: &NodeName, role: &Role| inputs(cluster, node, forming.contains(role));
    for (node, role, error) in plan.moved(status, seen) {
        found.push(Problem { node, role: Some(role), error });
    }
    if let Some((node, _)) = wanted.iter().find(|(node, _)| !session.seen.contains_key(node)) {
        let message = format!("the plan has node `{node}`, which the cluster has not");
        return Err(Failure::new(exit::INVALID, "plan", message));
    }
    found.extend(session.silent(wanted));
    if !found.is_empty() {
        return Err(problems(&found));
    }
    let store = context.store()?;
    let mut targets = BTreeMap::new();
    for one in plan.nodes() {
        if let Goal::Bundle(digest) = &one.goal
            && !targets.contains_key(&one.role)
        {
            targets.insert(one.role.clone(), Target::read(&store, &Reference::Digest(*digest))?);
        }
    }
    let forming = forming.into_iter().cloned().collect();
    Ok(Prepared { plan: plan.clone(), targets, forming, previews: BTreeMap::new() })
}

/// What stands in the way, as one failure.
pub(super) fn problems(problems: &[Problem]) -> Failure {
    let message: Vec<String> = problems
        .iter()
        .map(|problem| {
            let text = problem.error.full();
            if text.contains(problem.node.as_str()) { text } else { format!("{}: {text}", problem.node) }
        })
        .collect();
    let kind = problems.first().map_or("nodes", |one| one.error.line.kind.as_str());
    let code = if kind == "secret" { exit::INVALID } else { exit::FAILED };
    let mut failure = Failure::new(code, "nodes", message.join("\n"));
    failure.kind = kind.into();
    let mut seen = BTreeSet::new();
    for line in problems.iter().flat_map(|problem| &problem.error.line.help) {
        if seen.insert(line) {
            failure = failure.help(line.clone());
        }
    }
    failure
}

/// Whether a text names a saved plan, not a bundle.
pub(super) fn is_plan(text: &str) -> bool {
    Utf8Path::new(text).extension() == Some("json")
}

/// Where rollouts are written down.
pub(super) fn rollouts(context: &Context) -> Result<Rollouts, Failure> {
    Ok(Rollouts::new(&out(context)?))
}

/// Whether a person says yes, at a terminal.
pub(super) async fn says_yes() -> bool {
    // A thread of its own: reading a terminal cannot be given up.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        let yes = read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes");
        let _ = sender.send(yes);
    });
    receiver.await.unwrap_or(false)
}

/// Whether a person can be asked.
pub(super) fn has_terminal(context: &Context) -> bool {
    !context.is_json() && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}
