//! `windlass service`: processes of roles, on all nodes that are meant at once; no gates, no waves.

use serde_json::{Value, json};

use super::args::{Service, ServiceWhat};
use super::cluster::{ClusterArgs, claim, run as with_nodes};
use super::context::Context;
use super::error::{Failure, exit};
use crate::agent::supervise::{Process, Stopped};
use crate::agent::{Request, ServiceStarted};
use crate::inventory::Node;
use crate::model::{NodeName, Role};
use crate::nodes::{Fleet, Member, node_error};
use crate::report::Table;
use crate::rollout::NodeError;

/// One role on one node: its process after what was asked.
type Told = (NodeName, Role, Result<Value, NodeError>);

/// Starts, stops, restarts or looks.
pub(super) fn run(context: &Context, args: &Service) -> Result<u8, Failure> {
    let (what, cluster) = match &args.what {
        ServiceWhat::Start(cluster) => ("start", cluster),
        ServiceWhat::Stop(cluster) => ("stop", cluster),
        ServiceWhat::Restart(cluster) => ("restart", cluster),
        ServiceWhat::Status(cluster) => ("status", cluster),
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

fn ask(context: &Context, cluster: &ClusterArgs, what: &str) -> Result<Vec<Told>, Failure> {
    let loaded = cluster.load(context)?;
    let selected = cluster.select(&loaded.cluster)?;
    let nodes: Vec<&Node> = selected.iter().map(|one| one.node).collect();
    with_nodes(&context.cancel, async {
        let fleet = Fleet::connect(&loaded.connector, &loaded.agent, nodes, &claim(None)).await;
        let work = async |node: &NodeName, roles: &[&Role]| {
            let mut told = Vec::new();
            for role in roles {
                let answer = match fleet.member(node) {
                    Ok(member) => one(member, role, what).await,
                    Err(error) => Err(fleet.unreachable.get(node).map_or(error, node_error)),
                };
                // A role without a service has nothing to be asked.
                if !answer.as_ref().is_err_and(|error| error.line.kind == "no-service") {
                    told.push((node.clone(), (*role).clone(), answer));
                }
            }
            told
        };
        let asking = selected.iter().map(|one| work(&one.node.name, &one.roles));
        futures_util::future::join_all(asking).await.into_iter().flatten().collect()
    })
}

async fn one(member: &Member, role: &Role, what: &str) -> Result<Value, NodeError> {
    let remote = &member.remote;
    let failed = |error: crate::remote::RemoteError| node_error(&error);
    let (mut killed, mut stop_ms) = (None, None);
    if matches!(what, "stop" | "restart") {
        let why = format!("windlass service {what}");
        let request = Request::ServiceStop { role: role.clone(), why };
        let stopped: Stopped = remote.call(request).await.map_err(failed)?;
        (killed, stop_ms) = (Some(stopped.killed), Some(stopped.duration_ms));
    }
    if matches!(what, "start" | "restart") {
        let request = Request::ServiceStart { role: role.clone(), release: None };
        let _: ServiceStarted = remote.call(request).await.map_err(failed)?;
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
