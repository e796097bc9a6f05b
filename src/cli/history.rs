//! `windlass history`: rollouts begun from here; with `--on-nodes`, what the nodes' own journals say.

use serde_json::{Value, json};

use super::args::History;
use super::cluster::{claim, run as with_nodes};
use super::context::Context;
use super::error::{Failure, exit};
use super::operate::rollouts;
use crate::agent::{self, Entry, Request};
use crate::inventory::Node;
use crate::model::{NodeName, Role};
use crate::nodes::{Fleet, node_error};
use crate::report::Table;
use crate::rollout::{Event, NodeError, Past};

/// Lists rollouts, shows one, or asks the nodes.
pub(super) fn run(context: &Context, args: &History) -> Result<u8, Failure> {
    if args.on_nodes {
        return on_nodes(context, args);
    }
    let rollouts = rollouts(context)?;
    if let Some(id) = &args.rollout {
        let past = rollouts.read(id)?;
        context.result(
            || json!({ "rollout": past.id, "plan": past.plan, "events": past.lines }),
            || one(&past),
        )?;
        return Ok(exit::DONE);
    }
    let mut all = Vec::new();
    for id in rollouts.ids()? {
        match rollouts.read(&id) {
            Ok(past) => all.push(past),
            // One that cannot be read does not hide the others.
            Err(error) => context.remark(&format!("{id}: {error}")),
        }
    }
    context.result(|| json!({ "rollouts": all.iter().map(row).collect::<Vec<_>>() }), || table(&all))?;
    Ok(exit::DONE)
}

fn who(past: &Past) -> &str {
    past.lines
        .iter()
        .find_map(|line| match &line.event {
            Event::RolloutStarted { who, .. } => Some(who.as_str()),
            _ => None,
        })
        .unwrap_or_default()
}

fn outcome(past: &Past) -> Value {
    past.outcome().map_or(Value::Null, |outcome| serde_json::to_value(outcome).unwrap_or_default())
}

fn row(past: &Past) -> Value {
    let done = past.done().len();
    json!({
        "rollout": past.id,
        "kind": past.plan.kind,
        "time": past.plan.time,
        "who": who(past),
        "nodes": past.plan.nodes().count(),
        "done": done,
        "outcome": outcome(past),
    })
}

fn table(all: &[Past]) -> String {
    if all.is_empty() {
        return "no rollout was begun from here\n".to_owned();
    }
    let mut table = Table::new(&["ROLLOUT", "WHAT", "WHO", "NODES", "DONE", "OUTCOME"]).right(&[3, 4]);
    for past in all {
        table.row([
            past.id.clone(),
            past.plan.kind.command().to_owned(),
            who(past).to_owned(),
            past.plan.nodes().count().to_string(),
            past.done().len().to_string(),
            outcome(past).as_str().unwrap_or("broken off, or still running").to_owned(),
        ]);
    }
    table.to_string()
}

fn one(past: &Past) -> String {
    let mut table = Table::new(&["TIME", "EVENT", "NODE", "ROLE", "STEP", "WHAT"]);
    for line in &past.lines {
        let value = serde_json::to_value(line).unwrap_or_default();
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let what = match &line.event {
            Event::StepFailed { error, .. } | Event::UndoFailed { error, .. } => error.full(),
            Event::StepProgress { waits_for, .. } => waits_for.clone().unwrap_or_default(),
            Event::StepDone { duration_ms, .. } => format!("{duration_ms} ms"),
            _ => text("outcome") + &text("state"),
        };
        table.row([line.time.to_string(), text("event"), text("node"), text("role"), text("step"), what]);
    }
    table.to_string()
}

/// One role's journal on one node, or why it is not known.
type Told = (NodeName, Role, Result<Vec<Entry>, NodeError>);

fn on_nodes(context: &Context, args: &History) -> Result<u8, Failure> {
    let loaded = args.cluster.load(context)?;
    let selected = args.cluster.select(&loaded.cluster)?;
    let nodes: Vec<&Node> = selected.iter().map(|one| one.node).collect();
    let told: Vec<Told> = with_nodes(&context.cancel, async {
        let fleet = Fleet::connect(&loaded.connector, &loaded.agent, nodes, &claim(None)).await;
        let ask = async |node: &NodeName, role: &Role| {
            let answer = match fleet.member(node) {
                Ok(member) => {
                    let request = Request::Journal { role: role.clone() };
                    match member.remote.call::<agent::History>(request).await {
                        Ok(history) => Ok(history.entries),
                        // What was never there has no history.
                        Err(error) if matches!(error.kind(), "no-role" | "no-root") => Ok(Vec::new()),
                        Err(error) => Err(node_error(&error)),
                    }
                }
                Err(error) => Err(fleet.unreachable.get(node).map_or(error, node_error)),
            };
            (node.clone(), role.clone(), answer)
        };
        let asking = selected.iter().flat_map(|one| one.roles.iter().map(|role| ask(&one.node.name, role)));
        futures_util::future::join_all(asking).await
    })?;
    let failed = told.iter().any(|(.., answer)| answer.is_err());
    let json = || {
        let row = |(node, role, answer): &Told| match answer {
            Ok(entries) => json!({ "node": node, "role": role, "error": null, "entries": entries }),
            Err(error) => json!({ "node": node, "role": role, "error": error.full(), "entries": [] }),
        };
        json!({ "journals": told.iter().map(row).collect::<Vec<_>>() })
    };
    context.result(json, || journals(&told))?;
    Ok(if failed { exit::FAILED } else { exit::DONE })
}

fn journals(told: &[Told]) -> String {
    let mut table = Table::new(&["TIME", "NODE", "ROLE", "RECORD", "RELEASE", "WHY"]);
    let mut rows = Vec::new();
    for (node, role, answer) in told {
        match answer {
            Ok(entries) => {
                for entry in entries {
                    let value = serde_json::to_value(entry).unwrap_or_default();
                    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
                    let release = if value["release"].is_string() { text("release") } else { text("to") };
                    let (node, role) = (node.to_string(), role.to_string());
                    rows.push([entry.time.to_string(), node, role, text("record"), release, text("why")]);
                }
            }
            Err(error) => {
                let (node, role) = (node.to_string(), role.to_string());
                rows.push([String::new(), node, role, "unreachable".to_owned(), String::new(), error.full()]);
            }
        }
    }
    rows.sort();
    for row in rows {
        table.row(row);
    }
    table.to_string()
}
