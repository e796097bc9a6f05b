//! `windlass drift`: every file of the current releases, hashed again on the nodes; and put back with `--heal`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::Drift;
use super::cluster::{Loaded, claim, run as with_nodes};
use super::context::Context;
use super::error::{Failure, exit};
use crate::agent::{self, HealContext, Healed, NodeStatus, Request};
use crate::inventory::Node;
use crate::model::{Digest, NodeName, Reference, Role};
use crate::nodes::{Fleet, Member, Target, node_error};
use crate::remote::context as node_context;
use crate::report::Table;
use crate::rollout::{Fault, NodeError, NodePlan, Plan};
use crate::store::Store;

/// What differs in one role on one node, and what healing made of it.
struct Told {
    node: NodeName,
    role: Role,
    found: Result<agent::Drift, NodeError>,
    healed: Option<Result<Healed, NodeError>>,
}

/// Names what changed; exit 1 if anything did and is not put back.
pub(super) fn run(context: &Context, args: &Drift) -> Result<u8, Failure> {
    let loaded = args.cluster.load(context)?;
    let selected = args.cluster.select(&loaded.cluster)?;
    let nodes: Vec<&Node> = selected.iter().map(|one| one.node).collect();
    let healer = if args.heal { Some(Healer { loaded: &loaded, store: context.store().ok() }) } else { None };
    let told: Vec<Told> = with_nodes(&context.cancel, async {
        let fleet = Fleet::connect(&loaded.connector, &loaded.agent, nodes, &claim(None)).await;
        let work = async |node: &NodeName, roles: &[&Role]| {
            let mut told = Vec::new();
            for role in roles {
                let found = match fleet.member(node) {
                    Ok(member) => look(member, role).await,
                    Err(error) => Err(fleet.unreachable.get(node).map_or(error, node_error)),
                };
                // What does not run there cannot have drifted.
                let absent = |error: &NodeError| {
                    matches!(error.line.kind.as_str(), "no-role" | "no-root" | "no-current")
                };
                if found.as_ref().is_err_and(absent) {
                    continue;
                }
                let differs = found.as_ref().is_ok_and(|found| !found.drift.is_empty());
                let healed = match (&healer, fleet.member(node)) {
                    (Some(healer), Ok(member)) if differs => Some(healer.heal(member, role).await),
                    _ => None,
                };
                told.push(Told { node: node.clone(), role: (*role).clone(), found, healed });
            }
            told
        };
        let asking = selected.iter().map(|one| work(&one.node.name, &one.roles));
        futures_util::future::join_all(asking).await.into_iter().flatten().collect()
    })?;
    context.result(|| json(&told, args.heal), || human(&told))?;
    Ok(code(&told))
}

/// What differs in the current releases that a plan is about to leave: its changes would be lost. A node that cannot
/// tell says nothing here; the plan itself says what is wrong with it.
pub(super) async fn before(fleet: &Fleet, plan: &Plan) -> Vec<Value> {
    let ask = async |one: &NodePlan| {
        let found = match fleet.member(&one.node) {
            Ok(member) => look(member, &one.role).await.ok(),
            Err(_) => None,
        };
        let row = |differs: &agent::Difference| {
            let mut row = json!(differs);
            (row["node"], row["role"]) = (json!(one.node), json!(one.role));
            row
        };
        found.map(|found| found.drift.iter().map(row).collect::<Vec<_>>()).unwrap_or_default()
    };
    let leaves = |one: &&NodePlan| one.from_release.is_some();
    let asking = plan.nodes().filter(leaves).map(ask);
    futures_util::future::join_all(asking).await.into_iter().flatten().collect()
}

async fn look(member: &Member, role: &Role) -> Result<agent::Drift, NodeError> {
    let request = Request::Drift { role: role.clone(), release: None };
    member.remote.call(request).await.map_err(|error| node_error(&error))
}

/// What is needed to render again what was rendered.
struct Healer<'a> {
    loaded: &'a Loaded,
    store: Option<Store>,
}

impl Healer<'_> {
    async fn heal(&self, member: &Member, role: &Role) -> Result<Healed, NodeError> {
        let failed = |error: crate::remote::RemoteError| node_error(&error);
        let request = Request::Status { role: Some(role.clone()) };
        let status: NodeStatus = member.remote.call(request).await.map_err(failed)?;
        let digest = status.roles.first().and_then(|status| status.digest);
        let with = HealContext {
            context: node_context(&self.loaded.cluster, &member.node, false),
            secrets: digest.map(|digest| self.secrets(&digest)).unwrap_or_default(),
        };
        let request = Request::Heal { role: role.clone(), release: None, with: Some(Box::new(with)) };
        member.remote.call(request).await.map_err(failed)
    }

    /// Those that the bundle asks for; without the bundle, or without a value, what needs them is not healed.
    fn secrets(&self, bundle: &Digest) -> BTreeMap<String, String> {
        let target =
            self.store.as_ref().and_then(|store| Target::read(store, &Reference::Digest(*bundle)).ok());
        let names = target.map(|target| target.secrets(self.loaded.secrets.names())).unwrap_or_default();
        self.loaded.secrets.gather(&names).unwrap_or_default()
    }
}

fn code(told: &[Told]) -> u8 {
    let locked = |told: &Told| matches!(&told.healed, Some(Err(error)) if error.fault == Fault::Locked);
    let clean = |told: &Told| match (&told.found, &told.healed) {
        (Err(_), _) | (_, Some(Err(_))) => false,
        (Ok(_), Some(Ok(healed))) => healed.left.is_empty() && healed.extra.is_empty(),
        (Ok(found), None) => found.drift.is_empty(),
    };
    if told.iter().any(locked) {
        exit::LOCKED
    } else if told.iter().all(clean) {
        exit::DONE
    } else {
        exit::FAILED
    }
}

/// A row for each of something, with its node and role.
fn rows<'t, T: 't>(
    told: &'t [Told],
    of: impl Fn(&'t Told) -> Vec<T> + 't,
) -> impl Iterator<Item = (&'t NodeName, &'t Role, T)> + 't {
    told.iter().flat_map(move |one| of(one).into_iter().map(move |row| (&one.node, &one.role, row)))
}

fn found(told: &Told) -> Vec<&agent::Difference> {
    told.found.iter().flat_map(|found| &found.drift).collect()
}

fn healed(told: &Told) -> Option<&Healed> {
    told.healed.as_ref()?.as_ref().ok()
}

fn errors(told: &Told) -> Vec<&NodeError> {
    told.found
        .as_ref()
        .err()
        .into_iter()
        .chain(told.healed.as_ref().and_then(|one| one.as_ref().err()))
        .collect()
}

fn json(told: &[Told], heal: bool) -> Value {
    let drift: Vec<Value> = rows(told, found)
        .map(|(node, role, one)| json!({ "node": node, "role": role, "path": one.path, "what": one.what }))
        .collect();
    let errors: Vec<Value> = rows(told, errors)
        .map(|(node, role, error)| json!({ "node": node, "role": role, "error": error.full() }))
        .collect();
    let mut value = json!({ "drift": drift, "errors": errors });
    if heal {
        let done = |told| healed(told).map(|healed| healed.healed.iter().collect()).unwrap_or_default();
        let left = |told| healed(told).map(|healed| healed.left.iter().collect()).unwrap_or_default();
        value["healed"] = rows(told, done)
            .map(|(node, role, one): (_, _, &agent::Difference)| {
                json!({ "node": node, "role": role, "path": one.path, "what": one.what })
            })
            .collect();
        value["left"] = rows(told, left)
            .map(|(node, role, one): (_, _, &agent::NotHealed)| {
                json!({ "node": node, "role": role, "path": one.path, "what": one.what, "why": one.why })
            })
            .collect();
    }
    value
}

fn human(told: &[Told]) -> String {
    let differs = |one: &Told| one.found.as_ref().map_or(true, |found| !found.drift.is_empty());
    if !told.iter().any(differs) {
        return format!("no drift in {} releases\n", told.len());
    }
    let word = |what: &agent::What| {
        serde_json::to_value(what).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let mut table = Table::new(&["NODE", "ROLE", "WHAT", "PATH", "NOTE"]);
    for one in told {
        for difference in found(one) {
            let note = match healed(one) {
                Some(healed) if healed.healed.iter().any(|done| done.path == difference.path) => {
                    "put back".to_owned()
                }
                Some(healed) => {
                    let left = healed.left.iter().find(|left| left.path == difference.path);
                    left.map_or_else(|| "left as it is".to_owned(), |left| left.why.clone())
                }
                None => String::new(),
            };
            let (node, role) = (one.node.to_string(), one.role.to_string());
            table.row([node, role, word(&difference.what), difference.path.clone(), note]);
        }
        for error in errors(one) {
            let (node, role) = (one.node.to_string(), one.role.to_string());
            table.row([node, role, "not known".to_owned(), String::new(), error.full()]);
        }
    }
    table.to_string()
}
