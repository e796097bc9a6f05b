//! `windlass status`: what runs where; the nodes' own words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::args::Status;
use super::cluster::{Loaded, claim, run as with_nodes};
use super::context::Context;
use super::error::{Failure, exit};
use crate::agent::supervise::ProcessState;
use crate::agent::{NodeStatus, RoleStatus};
use crate::inventory::Node;
use crate::model::{NodeName, Role};
use crate::nodes::{Fleet, Seen, Services, Surveyor, statuses};
use crate::report::{Table, version};
use crate::rollout::At;

/// A node that was asked, and the roles of it that are meant.
type Asked = (NodeName, Vec<Role>);

/// Asks all nodes at once.
pub(super) fn run(context: &Context, args: &Status) -> Result<u8, Failure> {
    let loaded = args.cluster.load(context)?;
    let selected = args.cluster.select(&loaded.cluster)?;
    let asked: Vec<Asked> = selected
        .iter()
        .map(|one| (one.node.name.clone(), one.roles.iter().copied().cloned().collect()))
        .collect();
    let nodes: Vec<&Node> = selected.iter().map(|one| one.node).collect();
    let (seen, ready) = with_nodes(&context.cancel, async {
        let fleet = Fleet::connect(&loaded.connector, &loaded.agent, nodes, &claim(None)).await;
        let seen = statuses(&fleet).await;
        let wanted = asked.clone();
        let Loaded { cluster, secrets, folder, .. } = &loaded;
        let services = Services::new(cluster, &fleet, secrets, folder, &seen);
        let (ready, ranks) = (BTreeSet::new(), BTreeMap::new());
        let mut surveyor =
            Surveyor { cluster, fleet: &fleet, seen: &seen, wanted, ready, services: &services, ranks };
        surveyor.look().await;
        let ready = std::mem::take(&mut surveyor.ready);
        (seen, ready)
    })?;
    // Without --role a node tells about everything that it has, also of roles it should no longer run.
    let only = !args.cluster.roles.is_empty();
    context.result(|| json(&asked, &seen, &ready, only), || human(&asked, &seen, &ready, only))?;
    let silent = asked.iter().any(|(node, _)| !matches!(seen.get(node), Some(Ok(_))));
    Ok(if silent { exit::FAILED } else { exit::DONE })
}

fn roles<'s>((_, roles): &Asked, status: &'s NodeStatus, only: bool) -> Vec<&'s RoleStatus> {
    status.roles.iter().filter(|one| !only || roles.contains(&one.role)).collect()
}

fn is_ready(node: &NodeName, role: &RoleStatus, ready: &BTreeSet<At>) -> bool {
    ready.contains(&At { node: node.clone(), role: role.role.clone() })
}

fn json(asked: &[Asked], seen: &Seen, ready: &BTreeSet<At>, only: bool) -> Value {
    let node = |asked: &Asked| {
        let name = &asked.0;
        match seen.get(name) {
            Some(Ok(status)) => json!({
                "node": name,
                "reachable": true,
                "error": null,
                "lock": status.lock,
                "roles": roles(asked, status, only)
                    .into_iter()
                    .map(|role| of_role(role, is_ready(name, role, ready)))
                    .collect::<Vec<_>>(),
            }),
            Some(Err(error)) => {
                json!({ "node": name, "reachable": false, "error": error.full(), "roles": [] })
            }
            None => json!({ "node": name, "reachable": false, "error": "it was not asked", "roles": [] }),
        }
    };
    json!({ "nodes": asked.iter().map(node).collect::<Vec<_>>() })
}

fn of_role(role: &RoleStatus, ready: bool) -> Value {
    json!({
        "role": role.role,
        "release": role.release,
        "version": role.version,
        "digest": role.digest,
        "prior": role.prior,
        "staged": role.staged.iter().map(|one| &one.release).collect::<Vec<_>>(),
        "bad": role.bad.iter().map(|one| &one.release).collect::<Vec<_>>(),
        "process": role.process,
        "ready": ready,
        "pid": role.pid,
        "runs": role.runs,
        "said": role.said,
        "unconfirmed": role.unconfirmed,
        "interrupted": role.interrupted,
        "problem": role.problem,
        "opened": role.opened,
        "gave_up": role.gave_up,
    })
}

fn human(asked: &[Asked], seen: &Seen, ready: &BTreeSet<At>, only: bool) -> String {
    let mut table = Table::new(&["NODE", "ROLE", "RELEASE", "PROCESS", "READY", "PRIOR", "NOTE"]);
    let dash = || "-".to_owned();
    for one in asked {
        let name = &one.0;
        match seen.get(name) {
            Some(Ok(status)) => {
                let roles = roles(one, status, only);
                if roles.is_empty() {
                    table.row([name.to_string(), dash(), dash(), dash(), dash(), dash(), note_of(status)]);
                }
                for role in roles {
                    let is_ready = if is_ready(name, role, ready) { "yes" } else { "no" };
                    table.row([
                        name.to_string(),
                        role.role.to_string(),
                        role.release.as_ref().map_or_else(dash, ToString::to_string),
                        process(role.process).to_owned(),
                        is_ready.to_owned(),
                        version(role.prior.as_ref().map(crate::agent::ReleaseName::version)),
                        note(status, role),
                    ]);
                }
            }
            Some(Err(error)) => {
                let why = error.full();
                table.row([name.to_string(), dash(), dash(), "unreachable".to_owned(), dash(), dash(), why]);
            }
            None => {}
        }
    }
    table.to_string()
}

fn process(state: ProcessState) -> &'static str {
    match state {
        ProcessState::Running => "running",
        ProcessState::Stopped => "stopped",
        ProcessState::Failed => "failed",
        ProcessState::Unknown => "unknown",
    }
}

fn note_of(status: &NodeStatus) -> String {
    let lock = status.lock.as_ref();
    lock.map_or_else(
        || "nothing was ever staged".to_owned(),
        |lock| format!("locked by {} since {}", lock.who, lock.since),
    )
}

fn note(status: &NodeStatus, role: &RoleStatus) -> String {
    let mut notes = Vec::new();
    if let Some(lock) = &status.lock {
        notes.push(format!("locked by {}@{} since {}", lock.who, lock.host, lock.since));
    }
    if let Some(waiting) = &role.unconfirmed {
        notes.push(match waiting.left_ms {
            Some(left) => format!("unconfirmed, goes back in {} s", left / 1000),
            None => "unconfirmed".to_owned(),
        });
    }
    if let (Some(runs), Some(release)) = (&role.runs, &role.release)
        && runs != release
    {
        notes.push(format!("{runs} still runs"));
    }
    notes.extend(role.said.as_ref().map(|said| format!("it said: {said}")));
    if let Some(what) = &role.interrupted {
        notes.push(format!("interrupted while {what}"));
    }
    notes.extend(role.gave_up.as_ref().map(|why| format!("left as it is: {why}")));
    notes.extend(role.problem.clone());
    if let Some(bad) = role.bad.last() {
        notes.push(format!("{} is bad: {}", bad.release, bad.why));
    }
    notes.join("; ")
}
