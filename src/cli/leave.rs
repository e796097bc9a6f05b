//! `windlass leave`: a node's data goes to the others, its services are stopped for good, and it is forgotten.
//!
//! It is a rollout of its own kind: locked, journalled and undone as the others are. Its plan is one wave, the
//! node's roles in the reverse of the order in which they are changed.
//!
//! # Invariants
//!
//! * Every role is asked whether its cluster can do without it before any is touched.
//! * cluster.toml changes last, when all else succeeded. Data on the node is never deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::args::Leave;
use super::check::kinds;
use super::cluster::{ClusterArgs, Loaded, runtime};
use super::conduct::{Manner, conduct};
use super::context::Context;
use super::error::{Failure, exit};
use super::leave_entry::Entry;
use super::operate::{Prepared, Wanted, before_anything, has_terminal, problems, says_yes, signals};
use super::session::Session;
use crate::inventory::Cluster;
use crate::model::{NodeName, Role, Timestamp};
use crate::nodes::{Problem, Surveyor};
use crate::recipe::ServiceKind;
use crate::report::plan_text;
use crate::rollout::{At, Fault, Held, Interrupted, Kind, NodeError, Scope, leave};

/// Which node leaves, and what of it.
#[derive(Clone, Debug)]
pub(super) struct Leaver {
    pub(super) node: NodeName,
    /// What leaves.
    pub(super) roles: BTreeSet<Role>,
    /// That is all that it has.
    pub(super) whole: bool,
}

/// Has a node leave.
pub(super) fn run(context: &Context, args: &Leave) -> Result<u8, Failure> {
    let interrupted = signals();
    let cluster_args = ClusterArgs {
        cluster: args.cluster.clone(),
        roles: args.roles.clone(),
        nodes: vec![args.node.clone()],
    };
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let loaded = cluster_args.load(context)?;
        let leaver = leaver(&cluster_args, &loaded.cluster)?;
        let cluster = loaded.cluster.clone();
        let entry = entry_of(context, &cluster_args, &cluster, &leaver)?;
        if !args.keep_entry {
            // What cannot be written down at the end is not begun.
            entry.files()?;
        }
        let went = if args.dead {
            dead(context, args, &interrupted, loaded, &leaver).await?
        } else {
            let wanted = wanted(&cluster, &leaver);
            let opened = before_anything(&interrupted, async { Ok(Session::open(loaded, &wanted).await) });
            let session = Box::pin(opened).await?;
            if session.fleet.unreachable.contains_key(&leaver.node) && may_ask(context, args) {
                context.remark(&format!("{} cannot be reached", leaver.node));
                dead(context, args, &interrupted, session.loaded, &leaver).await?
            } else {
                Box::pin(alive(context, args, &interrupted, (&session, wanted), &leaver)).await?
            }
        };
        if went == exit::DONE {
            forget(context, args, &entry, &leaver)?;
        }
        Ok(went)
    });
    // Connections to nodes that hang must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// One that can be reached; the exit code.
async fn alive(
    context: &Context,
    args: &Leave,
    interrupted: &Interrupted,
    (session, wanted): (&Session, Wanted),
    leaver: &Leaver,
) -> Result<u8, Failure> {
    let prepared = before_anything(interrupted, Box::pin(prepare(session, leaver, wanted))).await?;
    if prepared.plan.is_empty() {
        context.remark(&format!("nothing of windlass runs on {}", leaver.node));
        return Ok(exit::DONE);
    }
    if may_ask(context, args) {
        context.remark(plan_text(&prepared.plan, &BTreeMap::new()).trim_end());
    }
    let roles: Vec<&str> = leaver.roles.iter().map(Role::as_str).collect();
    let what = format!("{} leaves the cluster for good with {}", leaver.node, roles.join(", "));
    goes_on(context, args, interrupted, &what).await?;
    let manner = Manner { now: false, parallel: 1 };
    Box::pin(conduct(context, session, &prepared, manner, interrupted.clone())).await
}

/// One that is gone; the exit code.
async fn dead(
    context: &Context,
    args: &Leave,
    interrupted: &Interrupted,
    loaded: Loaded,
    leaver: &Leaver,
) -> Result<u8, Failure> {
    let what = format!("{} is gone for good, and its cluster forgets it", leaver.node);
    goes_on(context, args, interrupted, &what).await?;
    let work = super::leave_dead::run(context, loaded, leaver);
    before_anything(interrupted, Box::pin(work)).await
}

fn may_ask(context: &Context, args: &Leave) -> bool {
    !args.yes && has_terminal(context)
}

/// Asks a person, where there is one to be asked.
async fn goes_on(
    context: &Context,
    args: &Leave,
    interrupted: &Interrupted,
    what: &str,
) -> Result<(), Failure> {
    if !may_ask(context, args) {
        return Ok(());
    }
    context.remark(&format!("{what}; go on? [y/N]"));
    if before_anything(interrupted, async { Ok(says_yes().await) }).await? {
        return Ok(());
    }
    Err(Failure::new(exit::FAILED, "declined", "nothing was changed"))
}

fn leaver(args: &ClusterArgs, cluster: &Cluster) -> Result<Leaver, Failure> {
    let selected = args.select(cluster)?;
    let one = selected
        .into_iter()
        .next()
        .ok_or_else(|| Failure::new(exit::INVALID, "usage", "no node is meant"))?;
    let roles: BTreeSet<Role> = one.roles.into_iter().cloned().collect();
    Ok(Leaver { node: one.node.name.clone(), whole: roles == one.node.roles, roles })
}

/// Everybody who has one of its roles: they are looked at, and nothing else is done with them.
fn wanted(cluster: &Cluster, leaver: &Leaver) -> Wanted {
    let of = |roles: &BTreeSet<Role>| -> Vec<Role> { roles.intersection(&leaver.roles).cloned().collect() };
    let all = cluster.nodes.iter().map(|node| (node.name.clone(), of(&node.roles)));
    all.filter(|(node, roles)| !roles.is_empty() || *node == leaver.node).collect()
}

/// Asks whether everybody can do without it, and makes the plan.
async fn prepare(session: &Session, leaver: &Leaver, wanted: Wanted) -> Result<Prepared, Failure> {
    let cluster = &session.loaded.cluster;
    let services = session.services().for_good();
    let mut surveyor = session.surveyor(&services, wanted);
    surveyor.look().await;
    let (mut candidates, mut found) = (Vec::new(), Vec::new());
    for role in &leaver.roles {
        let at = At { node: leaver.node.clone(), role: role.clone() };
        match surveyor.leaves(&at) {
            Ok(Some(candidate)) => candidates.push(candidate),
            Ok(None) => continue,
            Err(mut error) => {
                if error.fault == Fault::Lost {
                    error
                        .line
                        .help
                        .push(format!("if it is gone for good: `windlass leave {} --dead`", at.node));
                }
                found.push(Problem { node: at.node, role: Some(at.role), error });
                continue;
            }
        }
        let last = last_of_role(session, &surveyor, &at);
        let against = last.into_iter().chain(refusal(services.may_leave(&at).await, &at));
        found.extend(against.map(|error| Problem {
            node: at.node.clone(),
            role: Some(at.role.clone()),
            error,
        }));
    }
    if !found.is_empty() {
        return Err(problems(&found));
    }
    let scope = Scope {
        kind: Kind::Leave,
        cluster: &cluster.name,
        rollout: &cluster.rollout,
        totals: surveyor.totals(),
        forming: BTreeSet::new(),
        leftovers: surveyor.leftovers(),
        time: Timestamp::now(),
    };
    let plan = leave(&scope, candidates);
    Ok(Prepared { plan, targets: BTreeMap::new(), forming: BTreeSet::new(), previews: BTreeMap::new() })
}

/// Why a role may not go, as its adapter has it.
fn refusal(answer: Result<Held, NodeError>, at: &At) -> Option<NodeError> {
    let why = match answer {
        Ok(Held::Yes) => return None,
        Ok(Held::NotYet(why) | Held::Never(why) | Held::Moving { what: why, .. }) => why,
        Err(error) => return Some(error),
    };
    let message = format!("{} on {} may not leave: {why}", at.role, at.node);
    Some(NodeError::new(Fault::Refused, "may-not-leave", message))
}

/// Why nobody would be left who does what it does.
pub(super) fn last_of_role(session: &Session, surveyor: &Surveyor<'_>, at: &At) -> Option<NodeError> {
    let cluster = &session.loaded.cluster;
    if cluster.rollout.predicates_off.iter().any(|off| off == "last-of-role") {
        return None;
    }
    let others: Vec<&NodeName> =
        cluster.nodes_with(&at.role).map(|node| &node.name).filter(|node| **node != at.node).collect();
    let is_ready = |node: &NodeName| {
        surveyor.ready.contains(&At { node: node.clone(), role: at.role.clone() })
            || runs_nothing(session, node, at)
    };
    if others.iter().any(|node| is_ready(node)) {
        return None;
    }
    let why =
        if others.is_empty() { "no other node has that role" } else { "no other node of the role is ready" };
    let message = format!("{} on {} may not leave: last-of-role: {why}", at.role, at.node);
    let mut error = NodeError::new(Fault::Refused, "may-not-leave", message);
    error.line.help.push(format!("promote another node of {} first: `windlass promote --nodes`", at.role));
    error
        .line
        .help
        .push("or, if it is meant to end: [rollout] predicates_off = [\"last-of-role\"]".to_owned());
    Some(error)
}

/// A role without a service is there as soon as its release is.
fn runs_nothing(session: &Session, node: &NodeName, at: &At) -> bool {
    let status = session.seen.get(node).and_then(|status| status.as_ref().ok());
    let role = status.and_then(|status| status.roles.iter().find(|one| one.role == at.role));
    role.is_some_and(|role| role.release.is_some() && role.kind.is_none())
}

fn entry_of<'a>(
    context: &Context,
    args: &ClusterArgs,
    cluster: &'a Cluster,
    leaver: &'a Leaver,
) -> Result<Entry<'a>, Failure> {
    let roles = (!leaver.whole).then_some(&leaver.roles);
    Ok(Entry { path: args.path(context)?, cluster, node: &leaver.node, roles })
}

/// Takes it out of the files, and says what is left.
fn forget(context: &Context, args: &Leave, entry: &Entry<'_>, leaver: &Leaver) -> Result<(), Failure> {
    let node = &leaver.node;
    if args.keep_entry {
        context.remark(&format!("cluster.toml still has {node}: the next promote would take it in again"));
    } else {
        let files = entry.take_out()?;
        let files: Vec<&str> = files.iter().map(|path| path.as_str()).collect();
        context.remark(&format!("{node} was taken out of {}", files.join(" and ")));
        context.remark(&format!(
            "conf of other nodes that names {node} is rendered anew by the next promote: `windlass plan` shows it"
        ));
    }
    let kinds = kinds(context);
    if leaver.roles.iter().any(|role| kinds.get(role) == Some(&ServiceKind::Zookeeper)) {
        context.remark(&format!(
            "the other servers' zoo.cfg still names {node} (server.N), and their quorum counts it: promote them next"
        ));
    }
    let Some(found) = entry.cluster.find(node.as_str()) else { return Ok(()) };
    for role in &leaver.roles {
        if args.dead {
            continue;
        }
        context.remark(&format!(
            "left on {node}: {root}/roles/{role}, with its data in shared/; to remove it, there: rm -r {root}/roles/{role}",
            root = found.root
        ));
    }
    Ok(())
}
