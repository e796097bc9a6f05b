//! `windlass push [REF...]`

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::args::Push;
use super::cluster;
use super::context::Context;
use super::error::{Failure, exit};
use crate::inventory::Cluster;
use crate::model::{ByteSize, NodeName, Reference, Role, millis};
use crate::push::{Load, NodeOutcome, Observer, Options, Pushed, Pusher, Ready, World, push, wants};
use crate::report::{PushProgress, Table};
use crate::store::Store;

/// Stages bundles on nodes; nothing that runs is touched.
pub(super) fn run(context: &Context, args: &Push) -> Result<u8, Failure> {
    let store = context.store()?;
    let loaded = args.cluster.load(context)?;
    let loads = loads(context, args, &store, &loaded.cluster)?;
    let options = Options { parallel: args.parallel, claim: cluster::claim(None) };
    let world = Arc::new(World {
        cluster: loaded.cluster,
        secrets: loaded.secrets,
        connector: loaded.connector,
        agent: loaded.agent,
        pusher: Pusher::new(store, args.parallel.min(loads.len()), &context.cancel)?,
    });
    let observer: Arc<dyn Observer> = Arc::new(PushProgress::new(context.bars(), context.common.quiet));
    let outcomes = cluster::run(&context.cancel, push(&world, loads, &options, &observer))?;
    context.result(|| json(&outcomes), || table(&outcomes))?;
    Ok(failures(context, &outcomes))
}

/// The bundles that each selected node gets.
fn loads(context: &Context, args: &Push, store: &Store, cluster: &Cluster) -> Result<Vec<Load>, Failure> {
    let mut wanted: BTreeMap<Role, Reference> = BTreeMap::new();
    for text in &args.references {
        let reference: Reference = text.parse()?;
        let role = match &reference {
            Reference::Tagged(role, _) | Reference::Newest(role) => role.clone(),
            Reference::Digest(_) => context.bundle(store, text)?.tagged.role,
        };
        if wanted.insert(role.clone(), reference).is_some() {
            return Err(Failure::new(exit::INVALID, "usage", format!("role {role} is named twice")));
        }
    }
    let mut roles = args.cluster.clone();
    roles.roles.extend(wanted.keys().cloned());
    let mut ready: BTreeMap<Role, Arc<Ready>> = BTreeMap::new();
    let mut loads = Vec::new();
    for selected in roles.select(cluster)? {
        let mut bundles = Vec::new();
        for role in selected.roles {
            if !ready.contains_key(role) {
                let reference = wanted.get(role).cloned().unwrap_or_else(|| Reference::Newest(role.clone()));
                let bundle = store.bundle(&reference)?;
                let wants = wants(store, &bundle)?;
                let record = store.record(&bundle)?;
                ready.insert(role.clone(), Arc::new(Ready { bundle, record, wants }));
            }
            bundles.extend(ready.get(role).cloned());
        }
        if !bundles.is_empty() {
            loads.push(Load { node: selected.node.name.clone(), bundles });
        }
    }
    if loads.is_empty() {
        return Err(Failure::new(exit::INVALID, "usage", "none of the nodes has a role")
            .help("give nodes roles in cluster.toml, or in conf/<role>.list"));
    }
    Ok(loads)
}

fn json(outcomes: &[NodeOutcome]) -> Value {
    let nodes =
        outcomes.iter().flat_map(|outcome| outcome.pushed.iter().map(|pushed| row(&outcome.node, pushed)));
    let failed = outcomes.iter().filter_map(|outcome| {
        let failure = Failure::from(outcome.failed.as_ref()?);
        Some(json!({ "node": outcome.node, "error": failure.json()["error"] }))
    });
    json!({ "nodes": nodes.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>() })
}

fn row(node: &NodeName, pushed: &Pushed) -> Value {
    json!({
        "node": node,
        "role": pushed.role,
        "version": pushed.version,
        "digest": pushed.bundle,
        "release": pushed.release,
        "existing": pushed.existing,
        "bytes_sent": pushed.bytes_sent,
        "objects_sent": pushed.objects_sent,
        "objects_reused": pushed.objects_reused,
        "patches_sent": pushed.patches_sent,
        "patching_ms": millis(pushed.patching),
        "duration_ms": millis(pushed.took),
    })
}

fn table(outcomes: &[NodeOutcome]) -> String {
    let mut table =
        Table::new(&["NODE", "ROLE", "RELEASE", "SENT", "OBJECTS", "REUSED", "TIME"]).right(&[3, 4, 5, 6]);
    for outcome in outcomes {
        for pushed in &outcome.pushed {
            table.row([
                outcome.node.to_string(),
                pushed.role.to_string(),
                pushed.release.to_string(),
                ByteSize(pushed.bytes_sent).to_string(),
                pushed.objects_sent.to_string(),
                pushed.objects_reused.to_string(),
                format!("{:.2} s", pushed.took.as_secs_f64()),
            ]);
        }
        if outcome.failed.is_some() {
            table.row([outcome.node.to_string(), "failed".to_owned()]);
        }
    }
    table.to_string()
}

/// Tells what failed; the exit code is the worst, a lock that somebody else holds before others.
fn failures(context: &Context, outcomes: &[NodeOutcome]) -> u8 {
    let failed: Vec<Failure> =
        outcomes.iter().filter_map(|outcome| outcome.failed.as_ref()).map(Failure::from).collect();
    let code = failed.iter().map(|failure| failure.exit).max().unwrap_or(exit::DONE);
    for failure in &failed {
        failure.tell(context.colour_stderr());
    }
    code
}
