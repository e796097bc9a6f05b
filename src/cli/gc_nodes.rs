//! `windlass gc --on-nodes`: old releases, bundles and objects on nodes go.

use serde_json::{Value, json};

use super::args::Gc;
use super::cluster::{claim, run as with_nodes};
use super::context::Context;
use super::error::{Failure, exit};
use crate::agent::{Collected, GcRequest, Request};
use crate::inventory::Node;
use crate::model::{ByteSize, NodeName};
use crate::nodes::{Fleet, node_error};
use crate::report::Table;
use crate::rollout::{Fault, NodeError};

/// What went on one node.
type Told = (NodeName, Result<Collected, NodeError>);

/// Collects on all nodes that are meant, at once.
pub(super) fn run(context: &Context, args: &Gc) -> Result<u8, Failure> {
    let loaded = args.cluster.load(context)?;
    let selected = args.cluster.select(&loaded.cluster)?;
    let keep = args.keep.unwrap_or(usize::try_from(loaded.cluster.rollout.keep).unwrap_or(usize::MAX));
    let request = GcRequest { keep, dry_run: args.dry_run };
    let nodes: Vec<&Node> = selected.iter().map(|one| one.node).collect();
    let told: Vec<Told> = with_nodes(&context.cancel, async {
        let fleet = Fleet::connect(&loaded.connector, &loaded.agent, nodes, &claim(None)).await;
        let work = async |node: &NodeName| {
            let answer = match fleet.member(node) {
                Ok(member) => match member.remote.call(Request::Gc(request)).await {
                    // Where nothing was ever staged there is nothing to collect.
                    Err(error) if error.kind() == "no-root" => Ok(Collected::default()),
                    answer => answer.map_err(|error| node_error(&error)),
                },
                Err(error) => Err(fleet.unreachable.get(node).map_or(error, node_error)),
            };
            (node.clone(), answer)
        };
        futures_util::future::join_all(selected.iter().map(|one| work(&one.node.name))).await
    })?;
    context.result(|| json(&told, args.dry_run), || human(&told, args.dry_run))?;
    let errors: Vec<&NodeError> = told.iter().filter_map(|(_, answer)| answer.as_ref().err()).collect();
    Ok(if errors.iter().any(|error| error.fault == Fault::Locked) {
        exit::LOCKED
    } else if errors.is_empty() {
        exit::DONE
    } else {
        exit::FAILED
    })
}

fn json(told: &[Told], dry_run: bool) -> Value {
    let node = |(node, answer): &Told| match answer {
        Ok(done) => json!({
            "node": node,
            "error": null,
            "releases": done.releases,
            "bundles": done.bundles,
            "objects": done.objects,
            "bytes": done.bytes,
        }),
        Err(error) => json!({
            "node": node,
            "error": error.full(),
            "releases": [],
            "bundles": [],
            "objects": 0,
            "bytes": 0,
        }),
    };
    json!({ "nodes": told.iter().map(node).collect::<Vec<_>>(), "dry_run": dry_run })
}

fn human(told: &[Told], dry_run: bool) -> String {
    let freed = if dry_run { "WOULD FREE" } else { "FREED" };
    let mut table = Table::new(&["NODE", "RELEASES", "OBJECTS", freed]).right(&[2, 3]);
    for (node, answer) in told {
        match answer {
            Ok(done) => {
                let releases: Vec<String> =
                    done.releases.iter().map(|one| format!("{} {}", one.role, one.release)).collect();
                let releases = if releases.is_empty() { "-".to_owned() } else { releases.join(", ") };
                table.row([
                    node.to_string(),
                    releases,
                    done.objects.to_string(),
                    ByteSize(done.bytes).to_string(),
                ]);
            }
            Err(error) => table.row([node.to_string(), error.full(), String::new(), String::new()]),
        }
    }
    table.to_string()
}
