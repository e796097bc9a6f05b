//! `windlass drift`: every file of the current releases, hashed again on the nodes.

use serde_json::{Value, json};

use super::args::Drift;
use super::cluster::{claim, run as with_nodes};
use super::context::Context;
use super::error::{Failure, exit};
use crate::agent::{self, Request};
use crate::inventory::Node;
use crate::model::{NodeName, Role};
use crate::nodes::{Fleet, node_error};
use crate::report::Table;
use crate::rollout::NodeError;

/// What differs in one role on one node.
type Told = (NodeName, Role, Result<agent::Drift, NodeError>);

/// Names what changed; exit 1 if anything did.
pub(super) fn run(context: &Context, args: &Drift) -> Result<u8, Failure> {
    let loaded = args.cluster.load(context)?;
    let selected = args.cluster.select(&loaded.cluster)?;
    let nodes: Vec<&Node> = selected.iter().map(|one| one.node).collect();
    let told: Vec<Told> = with_nodes(&context.cancel, async {
        let fleet = Fleet::connect(&loaded.connector, &loaded.agent, nodes, &claim(None)).await;
        let work = async |node: &NodeName, roles: &[&Role]| {
            let mut told = Vec::new();
            for role in roles {
                let answer = match fleet.member(node) {
                    Ok(member) => {
                        let request = Request::Drift { role: (*role).clone(), release: None };
                        let answer = member.remote.call::<agent::Drift>(request).await;
                        answer.map_err(|error| node_error(&error))
                    }
                    Err(error) => Err(fleet.unreachable.get(node).map_or(error, node_error)),
                };
                // What does not run there cannot have drifted.
                let absent = |error: &NodeError| {
                    matches!(error.line.kind.as_str(), "no-role" | "no-root" | "no-current")
                };
                if !answer.as_ref().is_err_and(absent) {
                    told.push((node.clone(), (*role).clone(), answer));
                }
            }
            told
        };
        let asking = selected.iter().map(|one| work(&one.node.name, &one.roles));
        futures_util::future::join_all(asking).await.into_iter().flatten().collect()
    })?;
    let rows: Vec<[Value; 4]> = told
        .iter()
        .flat_map(|(node, role, answer)| {
            let found = answer.as_ref().map(|found| found.drift.as_slice()).unwrap_or_default();
            found.iter().map(move |one| [json!(node), json!(role), json!(one.path), json!(one.what)])
        })
        .collect();
    let errors: Vec<(&NodeName, &Role, &NodeError)> =
        told.iter().filter_map(|(node, role, answer)| Some((node, role, answer.as_ref().err()?))).collect();
    context.result(
        || {
            let row = |[node, role, path, what]: &[Value; 4]| {
                json!({ "node": node, "role": role, "path": path, "what": what })
            };
            let error = |(node, role, error): &(&NodeName, &Role, &NodeError)| {
                json!({ "node": node, "role": role, "error": error.full() })
            };
            json!({
                "drift": rows.iter().map(row).collect::<Vec<_>>(),
                "errors": errors.iter().map(error).collect::<Vec<_>>(),
            })
        },
        || human(&rows, &errors, told.len()),
    )?;
    Ok(if rows.is_empty() && errors.is_empty() { exit::DONE } else { exit::FAILED })
}

fn human(rows: &[[Value; 4]], errors: &[(&NodeName, &Role, &NodeError)], looked: usize) -> String {
    if rows.is_empty() && errors.is_empty() {
        return format!("no drift in {looked} releases\n");
    }
    let mut table = Table::new(&["NODE", "ROLE", "WHAT", "PATH"]);
    for [node, role, path, what] in rows {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        table.row([text(node), text(role), text(what), text(path)]);
    }
    for (node, role, error) in errors {
        table.row([node.to_string(), role.to_string(), "not known".to_owned(), error.full()]);
    }
    table.to_string()
}
