//! `windlass service`: processes of roles, on all nodes that are meant at once; no gates, no waves.
//!
//! Roles go in the order of `[rollout].order`, and are stopped in the opposite one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::args::{Service, ServiceWhat};
use super::check::kinds;
use super::cluster::{ClusterArgs, claim, run as with_nodes};
use super::context::Context;
use super::error::{Failure, exit};
use crate::agent::supervise::{Process, Reloaded, Stopped};
use crate::agent::{Request, ServiceStarted};
use crate::inventory::Node;
use crate::model::{NodeName, Role};
use crate::nodes::{Fleet, Member, node_error};
use crate::recipe::ServiceKind;
use crate::report::Table;
use crate::rollout::NodeError;

/// One role on one node: its process after what was asked.
type Told = (NodeName, Role, Result<Value, NodeError>);

/// What becomes of Kafka's nodes when all of them stop. Which is the last is not known before, nor how long it takes:
/// KILL any earlier would cost those their orderly end that can still have it.
const WITHOUT_QUORUM: &str = "all its nodes stop: with KRaft the last of them has no quorum of controllers to leave, \
                              waits for one until its stop timeout is over, and is killed; it then looks through its \
                              logs when it starts";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum What {
    Start,
    Stop,
    Restart,
    Reload,
    Status,
}

/// One thing that is done to every role in turn.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// With the word of the command, for the journal.
    Stop(&'static str),
    Start,
    Reload,
    Look,
}

impl What {
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Start => &[Step::Start],
            Self::Stop => &[Step::Stop("stop")],
            Self::Restart => &[Step::Stop("restart"), Step::Start],
            Self::Reload => &[Step::Reload],
            Self::Status => &[Step::Look],
        }
    }
}

impl Step {
    /// Whether what needs a role goes before it, not after.
    fn goes_back(self) -> bool {
        matches!(self, Self::Stop(_))
    }
}

/// Starts, stops, restarts, reloads or looks.
pub(super) fn run(context: &Context, args: &Service) -> Result<u8, Failure> {
    let (what, cluster) = match &args.what {
        ServiceWhat::Start(cluster) => (What::Start, cluster),
        ServiceWhat::Stop(cluster) => (What::Stop, cluster),
        ServiceWhat::Restart(cluster) => (What::Restart, cluster),
        ServiceWhat::Reload(cluster) => (What::Reload, cluster),
        ServiceWhat::Status(cluster) => (What::Status, cluster),
    };
    let told = ask(context, cluster, what)?;
    let locked = told
        .iter()
        .any(|(.., answer)| answer.as_ref().is_err_and(|error| error.fault == crate::rollout::Fault::Locked));
    let failed = told.iter().any(|(.., answer)| answer.is_err());
    context.result(|| json(&told), || human(&told))?;
    Ok(match (locked, failed) {
        (true, _) => exit::LOCKED,
        (false, true) => exit::FAILED,
        (false, false) => exit::DONE,
    })
}

fn ask(context: &Context, cluster: &ClusterArgs, what: What) -> Result<Vec<Told>, Failure> {
    let loaded = cluster.load(context)?;
    let selected = cluster.select(&loaded.cluster)?;
    let nodes: Vec<&Node> = selected.iter().map(|one| one.node).collect();
    let roles: BTreeSet<&Role> = selected.iter().flat_map(|one| one.roles.iter().copied()).collect();
    let order = in_order(&loaded.cluster.rollout.order, &roles);
    if what.steps().iter().any(|step| step.goes_back()) {
        let kinds = kinds(context);
        let kafka = |role: &&&Role| kinds.get(**role) == Some(&ServiceKind::Kafka);
        for role in roles.iter().filter(kafka) {
            let stop = selected.iter().filter(|one| one.roles.contains(role)).count();
            if stop > 1 && stop == loaded.cluster.nodes_with(role).count() {
                context.remark(&format!("{role}: {WITHOUT_QUORUM}"));
            }
        }
    }
    with_nodes(&context.cancel, async {
        let fleet = Fleet::connect(&loaded.connector, &loaded.agent, nodes, &claim(None)).await;
        let mut told: BTreeMap<(&NodeName, &Role), Result<Value, NodeError>> = BTreeMap::new();
        let on = |role: &Role| -> Vec<&NodeName> {
            let has = selected.iter().filter(|one| one.roles.contains(&role));
            has.map(|one| &one.node.name).collect()
        };
        for step in what.steps() {
            let forwards = order.iter().copied();
            let roles: Vec<&Role> =
                if step.goes_back() { forwards.rev().collect() } else { forwards.collect() };
            // A role on all its nodes at once; what it needs was before it, what needs it comes after it.
            for role in roles {
                let nodes = on(role);
                let earlier: Vec<_> = nodes.iter().map(|node| told.remove(&(*node, role))).collect();
                let asking = nodes.iter().zip(earlier).map(async |(node, earlier)| match earlier {
                    Some(Err(error)) => Err(error),
                    earlier => match fleet.member(node) {
                        Ok(member) => one(member, role, *step, earlier.and_then(Result::ok)).await,
                        Err(error) => Err(fleet.unreachable.get(*node).map_or(error, node_error)),
                    },
                });
                let answers: Vec<_> = futures_util::future::join_all(asking).await;
                told.extend(nodes.iter().map(|node| (*node, role)).zip(answers));
            }
        }
        // A role without a service has nothing to be asked.
        let asked = |answer: &Result<Value, NodeError>| {
            !answer.as_ref().is_err_and(|error| error.line.kind == "no-service")
        };
        told.into_iter()
            .filter(|(_, answer)| asked(answer))
            .map(|((node, role), answer)| (node.clone(), role.clone(), answer))
            .collect()
    })
}

/// Roles as rollouts go about them: those that `[rollout].order` names, then the others by name.
fn in_order<'a>(order: &[Role], roles: &BTreeSet<&'a Role>) -> Vec<&'a Role> {
    let mut sorted: Vec<&Role> = roles.iter().copied().collect();
    sorted.sort_by_key(|role| order.iter().position(|named| named == *role).unwrap_or(order.len()));
    sorted
}

async fn one(member: &Member, role: &Role, step: Step, earlier: Option<Value>) -> Result<Value, NodeError> {
    let remote = &member.remote;
    let failed = |error: crate::remote::RemoteError| node_error(&error);
    let earlier = earlier.unwrap_or_default();
    let (mut killed, mut stop_ms) = (earlier["killed"].clone(), earlier["stop_ms"].clone());
    match step {
        Step::Stop(why) => {
            let why = format!("windlass service {why}");
            let request = Request::ServiceStop { role: role.clone(), why, start_within: None };
            let stopped: Stopped = remote.call(request).await.map_err(failed)?;
            (killed, stop_ms) = (json!(stopped.killed), json!(stopped.duration_ms));
        }
        Step::Start => {
            let request = Request::ServiceStart { role: role.clone(), release: None };
            let _: ServiceStarted = remote.call(request).await.map_err(failed)?;
        }
        Step::Reload => {
            let _: Reloaded = remote
                .call(Request::ServiceReload { role: role.clone(), release: None })
                .await
                .map_err(failed)?;
        }
        Step::Look => {}
    }
    let process: Process =
        remote.call(Request::ServiceStatus { role: role.clone() }).await.map_err(failed)?;
    Ok(json!({
        "process": process.state,
        "pid": process.pid,
        "release": process.release,
        "killed": killed,
        "stop_ms": stop_ms,
    }))
}

fn json(told: &[Told]) -> Value {
    let row = |(node, role, answer): &Told| {
        let mut row = answer.clone().unwrap_or_else(|_| json!({ "process": "unknown" }));
        row["node"] = json!(node);
        row["role"] = json!(role);
        row["error"] = json!(answer.as_ref().err().map(NodeError::full));
        row
    };
    json!({ "services": told.iter().map(row).collect::<Vec<_>>() })
}

fn human(told: &[Told]) -> String {
    let mut table = Table::new(&["NODE", "ROLE", "PROCESS", "PID", "RELEASE", "NOTE"]);
    for (node, role, answer) in told {
        let (node, role) = (node.to_string(), role.to_string());
        match answer {
            Ok(value) => {
                let text = |key: &str| value[key].as_str().unwrap_or("-").to_owned();
                let pid = value["pid"].as_u64().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
                let note = if value["killed"] == json!(true) { "had to be killed" } else { "" };
                table.row([node, role, text("process"), pid, text("release"), note.to_owned()]);
            }
            Err(error) => {
                let dash = || "-".to_owned();
                table.row([node, role, "unknown".to_owned(), dash(), dash(), error.full()]);
            }
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_roles_go_first_and_the_others_follow_by_name() {
        let roles: Vec<Role> =
            ["kibana", "app", "zookeeper", "kafka"].map(|name| name.parse().unwrap()).to_vec();
        let order: Vec<Role> = ["zookeeper", "none", "kafka"].map(|name| name.parse().unwrap()).to_vec();
        let sorted = in_order(&order, &roles.iter().collect());
        let names: Vec<&str> = sorted.iter().map(|role| role.as_str()).collect();
        assert_eq!(names, ["zookeeper", "kafka", "app", "kibana"]);
    }
}
