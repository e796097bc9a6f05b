//! `windlass resume`: the rest of the last rollout, planned anew from where the nodes are.
//!
//! What that rollout was is in its own journal, if it was begun from here, and in the journals of its nodes, if it
//! came so far that it could touch one. The newer of the two counts.

use std::collections::{BTreeMap, BTreeSet};

use super::args::Resume;
use super::conduct::{Manner, run as conduct};
use super::context::Context;
use super::error::{Failure, exit};
use super::operate::{Prepared, Wanted, Wish, made, of_plan, problems, rollouts};
use super::session::Session;
use crate::model::{Reference, Role};
use crate::nodes::{Errands, Survey, Surveyor, Target};
use crate::rollout::{At, Goal, Kind, Outcome, Past};

/// Goes on with the last rollout.
pub(super) fn run(context: &Context, args: &Resume) -> Result<u8, Failure> {
    let past = rollouts(context)?.last()?.map(Box::new);
    let wish = Wish::Resume { past, force: args.force };
    conduct(context, &args.cluster, &wish, Manner { now: false, parallel: 8 })
}

/// Plans what is left. `selected` is what the command line leaves to be looked at.
pub(super) async fn prepare(
    context: &Context,
    session: &Session,
    selected: Wanted,
    past: Option<&Past>,
    force: bool,
) -> Result<Prepared, Failure> {
    let errands = Errands::newest(&session.seen);
    match (past, errands) {
        (Some(past), Some(errands)) if errands.rollout > past.id => {
            elsewhere(context, session, selected, &errands, force).await
        }
        (Some(past), Some(errands)) if errands.rollout == past.id && past.is_going_back() => {
            elsewhere(context, session, selected, &errands, force).await
        }
        (Some(past), _) => here(context, session, &selected, past, force).await,
        (None, Some(errands)) => elsewhere(context, session, selected, &errands, force).await,
        (None, None) => {
            let failure = Failure::new(exit::INVALID, "rollout", "there is no rollout to go on with");
            Err(failure.help("begin one: `windlass promote`"))
        }
    }
}

/// What the nodes' journals tell.
async fn elsewhere(
    context: &Context,
    session: &Session,
    mut selected: Wanted,
    errands: &Errands,
    force: bool,
) -> Result<Prepared, Failure> {
    let (what, rollout, who, host) = (errands.kind.command(), &errands.rollout, &errands.who, &errands.host);
    let known = match errands.outcome() {
        Some(outcome) => format!("which ended as `{outcome}`; looking whether something is left"),
        None => "from what its nodes say".to_owned(),
    };
    context.remark(&format!("going on with {what} {rollout} of {who} on {host}, {known}"));
    silent(session, &selected)?;
    let has = |at: &At| errands.nodes.iter().any(|(one, ..)| one == at);
    for (node, roles) in &mut selected {
        roles.retain(|role| has(&At { node: node.clone(), role: role.clone() }));
    }
    let chosen: BTreeSet<At> = selected
        .iter()
        .flat_map(|(node, roles)| roles.iter().map(|role| At { node: node.clone(), role: role.clone() }))
        .collect();
    let mut errands = errands.clone();
    if errands.kind == Kind::Leave {
        errands = errands.undone();
    }
    errands.nodes.retain(|(at, ..)| chosen.contains(at));
    let services = session.services();
    let mut surveyor = session.surveyor(&services, selected);
    surveyor.look().await;
    let survey = surveyor.errands(&errands, force);
    let mut prepared = made(session, &surveyor, errands.kind, survey, BTreeMap::new())?;
    prepared.plan.policy.allow_bad = force;
    Ok(prepared)
}

/// Nodes that do not answer may be the ones that are left half way: nobody goes on without asking for that.
fn silent(session: &Session, selected: &Wanted) -> Result<(), Failure> {
    let found = session.silent(selected);
    if found.is_empty() {
        return Ok(());
    }
    Err(problems(&found).help("`windlass resume --nodes ...` goes on with the others alone"))
}

/// What becomes of a node that should leave: it stays, unless it has left.
fn left(context: &Context, past: &Past) -> Result<(), Failure> {
    let node = past.plan.nodes().next().map_or_else(|| "NODE".to_owned(), |one| one.node.to_string());
    if past.outcome() == Some(Outcome::Succeeded) {
        let message = format!("{node} has left its cluster in {}: there is nothing to go on with", past.id);
        return Err(Failure::new(exit::INVALID, "rollout", message)
            .help(format!("where cluster.toml still has it, `windlass leave {node}` takes it out"))
            .help("to take it in again: `windlass promote --nodes`, with its entry in cluster.toml"));
    }
    context
        .remark(&format!("taking back leave {}: {node} stays; `windlass leave {node}` begins anew", past.id));
    Ok(())
}

/// One that was gone already: nobody can go to it.
fn dead(past: &Past) -> Failure {
    let node = past.plan.nodes().next().map_or_else(|| "NODE".to_owned(), |one| one.node.to_string());
    let message = format!("leave {} of {node}, which was gone, was broken off: nothing goes there", past.id);
    Failure::new(exit::INVALID, "rollout", message)
        .help(format!("`windlass leave {node} --dead` goes on with it"))
        .help("any other rollout looks at what it changed in the cluster's settings before it begins")
}

/// What this machine's journal tells: the same targets again; what is there already is skipped.
async fn here(
    context: &Context,
    session: &Session,
    selected: &Wanted,
    past: &Past,
    force: bool,
) -> Result<Prepared, Failure> {
    if past.plan.kind == Kind::Leave {
        if past.outcome() != Some(Outcome::Succeeded) && past.plan.nodes().all(|one| one.steps.is_empty()) {
            return Err(dead(past));
        }
        left(context, past)?;
    } else if past.outcome() == Some(Outcome::Succeeded) {
        context.remark(&format!("rollout {} succeeded; looking whether that still holds", past.id));
    } else {
        context.remark(&format!("going on with {} {}", past.plan.kind.command(), past.id));
    }
    let mut wanted = of_plan(&past.plan);
    for (node, roles) in &mut wanted {
        let selected = selected.iter().find(|(one, _)| one == node);
        roles.retain(|role| selected.is_some_and(|(_, roles)| roles.contains(role)));
    }
    wanted.retain(|(_, roles)| !roles.is_empty());
    let services = session.services();
    let mut surveyor = session.surveyor(&services, wanted);
    surveyor.look().await;
    let mut prepared = match past.plan.kind {
        Kind::Promote => promote(context, session, &surveyor, past, force).await?,
        Kind::Rollback => {
            let survey = surveyor.go_to(&past.plan);
            let mut prepared = made(session, &surveyor, Kind::Rollback, survey, BTreeMap::new())?;
            prepared.plan.policy.past_return = past.plan.policy.past_return;
            prepared
        }
        Kind::Restart => {
            let done = past.done();
            surveyor.wanted.iter_mut().for_each(|(node, roles)| {
                roles.retain(|role| !done.contains(&At { node: node.clone(), role: role.clone() }));
            });
            let survey = surveyor.restart();
            made(session, &surveyor, Kind::Restart, survey, BTreeMap::new())?
        }
        // One that was broken off is taken back: the data is where it was, or moves back.
        Kind::Leave => {
            let survey = surveyor.go_to(&past.plan.undone());
            made(session, &surveyor, Kind::Rollback, survey, BTreeMap::new())?
        }
    };
    // A role whose canary is done needs no other, and nobody is asked about it again.
    let done: BTreeSet<Role> = past.done().into_iter().map(|at| at.role).collect();
    for wave in &mut prepared.plan.waves {
        wave.canary &= !wave.nodes.iter().all(|node| done.contains(&node.role));
    }
    Ok(prepared)
}

async fn promote(
    context: &Context,
    session: &Session,
    surveyor: &Surveyor<'_>,
    past: &Past,
    force: bool,
) -> Result<Prepared, Failure> {
    let mut targets = BTreeMap::new();
    // A rollout that went on with another machine's has its targets on the nodes alone.
    let mut staged = BTreeSet::new();
    for one in past.plan.nodes() {
        match &one.goal {
            Goal::Bundle(digest) if !targets.contains_key(&one.role) => {
                let target = Target::read(&context.store()?, &Reference::Digest(*digest))?;
                targets.insert(one.role.clone(), target);
            }
            Goal::Bundle(_) => {}
            Goal::Release(_) | Goal::Nothing => drop(staged.insert(one.role.clone())),
        }
    }
    let force = force || past.plan.policy.allow_bad;
    let mut survey = Survey::default();
    if !targets.is_empty() {
        let store = context.store()?;
        survey = surveyor.promote(&store, &session.loaded.secrets, &targets, force).await;
    }
    if !staged.is_empty() {
        let there = surveyor.go_to(&past.plan);
        let meant = |role: Option<&Role>| role.is_none_or(|role| staged.contains(role));
        survey.candidates.extend(there.candidates.into_iter().filter(|one| meant(Some(&one.role))));
        survey.problems.extend(there.problems.into_iter().filter(|one| meant(one.role.as_ref())));
    }
    let mut prepared = made(session, surveyor, Kind::Promote, survey, targets)?;
    prepared.plan.policy.allow_bad = force;
    Ok(prepared)
}
