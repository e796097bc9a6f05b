//! One look at a cluster: its nodes, its shards, its health, and who of those that should be there is away.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::Value;

use super::super::adapter::AdapterError;
use super::super::view::{Instance, View};
use super::ask::{get, send};
use super::member::{Member, members};
use super::who::{Who, who};
use crate::model::ProductVersion;

/// How well a cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Color {
    Green,
    Yellow,
    #[default]
    Red,
}

/// What a cluster says of its health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) color: Color,
    /// It has things to do that stand before the question.
    pub(super) busy: bool,
    pub(super) fetching: u64,
    pub(super) initializing: u64,
    pub(super) relocating: u64,
    pub(super) unassigned: u64,
}

/// A copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) index: String,
    pub(super) shard: u64,
    pub(super) primary: bool,
    pub(super) started: bool,
    /// The name of the node that holds it.
    pub(super) node: Option<String>,
}

impl Copy {
    /// Whether two are copies of the same shard.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.shard == other.shard && self.index == other.index
    }

    /// The shard's name.
    pub(super) fn name(&self) -> String {
        format!("{}[{}]", self.index, self.shard)
    }
}

/// Another service of the same kind that cluster.toml names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// `role of node`.
    pub(super) title: String,
    /// It has the same role, in windlass's sense.
    pub(super) same_role: bool,
    /// Its name in the cluster, if it is there.
    pub(super) name: Option<String>,
}

/// One look at a cluster, from where one of its nodes stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    /// The name of the node that is asked about, if the cluster has it.
    pub(super) this: Option<String>,
    pub(super) members: Vec<Member>,
    /// The elected master's name.
    pub(super) elected: Option<String>,
    pub(super) health: Health,
    pub(super) copies: Vec<Copy>,
    pub(super) peers: Vec<Peer>,
    /// The names of nodes that the cluster still has and that are on their way out.
    pub(super) leaving: BTreeSet<String>,
    /// The version that this node shall have next, if that is known.
    pub(super) target: Option<ProductVersion>,
    /// How many nodes of its role may be away.
    pub(super) budget: usize,
}

impl Cluster {
    /// The node that is asked about, as the cluster sees it.
    pub(super) fn member(&self) -> Option<&Member> {
        let name = self.this.as_ref()?;
        self.members.iter().find(|member| member.name == *name)
    }

    /// The others.
    pub(super) fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| Some(&member.name) != self.this.as_ref())
    }

    /// Whether a node is of an older version than this one shall have next.
    pub(super) fn is_old(&self, member: &Member) -> bool {
        self.target.as_ref().is_some_and(|target| member.version < *target)
    }

    /// A node's place in the order in which they go.
    pub(super) fn rank(&self, member: &Member) -> u32 {
        member.rank(self.elected.as_ref() == Some(&member.name))
    }

    /// Whether nodes differ in their versions.
    pub(super) fn is_mixed(&self) -> bool {
        self.members.windows(2).any(|pair| pair[0].version != pair[1].version)
    }

    /// Whether a copy of the same shard is started on a node that stays, other than `node`.
    pub(super) fn has_other(&self, copy: &Copy, node: &str) -> bool {
        self.copies.iter().any(|other| {
            let elsewhere = other.node.as_deref().is_some_and(|at| at != node && !self.leaving.contains(at));
            other.started && elsewhere && other.is_of(copy)
        })
    }

    /// Primaries on a node, of shards that have replicas, without another started copy.
    pub(super) fn only_there(&self, node: &str) -> Vec<String> {
        let on_it = self.copies.iter().filter(|copy| copy.primary && copy.node.as_deref() == Some(node));
        let replicated = |copy: &&Copy| self.copies.iter().any(|other| !other.primary && other.is_of(copy));
        on_it.filter(replicated).filter(|copy| !self.has_other(copy, node)).map(Copy::name).collect()
    }
}

/// The service that speaks for the cluster: the one that is asked about, or the first peer of its cluster that
/// answers. An error is that of the service itself.
pub(super) async fn spokesman<'v, 'a>(view: &'v View<'a>) -> Result<(&'v Instance<'a>, Who), AdapterError> {
    let mut first = None;
    for instance in view.all() {
        match joined(instance, who(instance).await) {
            Ok(found) => return Ok((instance, found)),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(|| AdapterError::new("nobody can be asked")))
}

/// One that is in a cluster can speak for it.
fn joined(instance: &Instance<'_>, answer: Result<Who, AdapterError>) -> Result<Who, AdapterError> {
    let found = answer?;
    if found.cluster.is_none() {
        let message = format!("{} of {} has not joined a cluster", instance.role, instance.node);
        return Err(AdapterError::new(message));
    }
    Ok(found)
}

/// Looks at the cluster, and at everybody who should be there.
pub(super) async fn look(view: &View<'_>) -> Result<Cluster, AdapterError> {
    // All at once: one that hangs holds up nobody.
    let answers = join_all(view.all().map(who)).await;
    let mut spoken = view.all().zip(&answers).map(|(one, answer)| (one, joined(one, answer.clone())));
    let own = spoken.next();
    let (spokesman, said) = match own {
        Some((instance, Ok(said))) => (instance, said),
        Some((_, Err(error))) => {
            spoken.find_map(|(instance, answer)| Some((instance, answer.ok()?))).ok_or(error)?
        }
        None => return Err(AdapterError::new("nobody can be asked")),
    };
    let mut cluster = look_through(spokesman, view).await?;
    cluster.leaving = shutting_down(spokesman, &cluster.members).await;
    for (index, (instance, answer)) in view.all().zip(&answers).enumerate() {
        let answer = answer.as_ref().ok();
        let (name, stops) = named(instance, answer, &said, &cluster.members);
        if index == 0 {
            // It may be sick: that is no reason to leave it alone.
            cluster.this = name;
        } else if !is_elsewhere(answer, &said) {
            cluster.leaving.extend(name.clone().filter(|_| stops));
            let title = format!("{} of {}", instance.role, instance.node);
            cluster.peers.push(Peer { title, same_role: instance.role == view.this.role, name });
        }
    }
    Ok(cluster)
}

/// Looks at the cluster alone, with the eyes of one of its nodes.
pub(super) async fn look_through(instance: &Instance<'_>, view: &View<'_>) -> Result<Cluster, AdapterError> {
    let members = nodes(instance).await?;
    Ok(Cluster {
        this: None,
        elected: master(instance, &members).await?,
        members,
        health: health(instance).await?,
        copies: parse_copies(&get(instance, COPIES).await?),
        peers: Vec::new(),
        leaving: BTreeSet::new(),
        target: view.target.as_deref().and_then(|target| target.parse().ok()),
        budget: view.budget,
    })
}

const COPIES: &str = "/_cat/shards?format=json&h=index,shard,prirep,state,node";

const NODES: &str = "/_nodes/http?filter_path=nodes.*.name,nodes.*.version,nodes.*.roles,\
                     nodes.*.attributes,nodes.*.http.publish_address";

/// The nodes, as the cluster sees them.
pub(super) async fn nodes(instance: &Instance<'_>) -> Result<Vec<Member>, AdapterError> {
    Ok(members(&get(instance, NODES).await?))
}

/// The elected master.
pub(super) async fn master(
    instance: &Instance<'_>,
    members: &[Member],
) -> Result<Option<String>, AdapterError> {
    Ok(elected(&get(instance, "/_cluster/state/master_node").await?, members))
}

fn elected(state: &Value, members: &[Member]) -> Option<String> {
    let id = state["master_node"].as_str().or(state["cluster_manager_node"].as_str())?;
    members.iter().find(|member| member.id == id).map(|member| member.name.clone())
}

/// A service's name in the cluster, if it is there, and whether it is on its way out: the cluster has it, and it
/// does not answer on a node that can be reached.
pub(super) fn named(
    instance: &Instance<'_>,
    answer: Option<&Who>,
    said: &Who,
    members: &[Member],
) -> (Option<String>, bool) {
    if let Some(found) = answer {
        let there = found.cluster == said.cluster && members.iter().any(|one| one.name == found.name);
        return (there.then(|| found.name.clone()), false);
    }
    let at = (instance.address.clone(), instance.port());
    let found = members.iter().find(|member| member.http.as_ref() == Some(&at));
    (found.map(|member| member.name.clone()), found.is_some() && instance.reach.is_some())
}

/// Whether a service belongs to another cluster.
fn is_elsewhere(answer: Option<&Who>, said: &Who) -> bool {
    answer.is_some_and(|found| found.cluster.is_some() && found.cluster != said.cluster)
}

/// Nodes that somebody told the cluster to be on their way out; most clusters have no such list.
async fn shutting_down(instance: &Instance<'_>, members: &[Member]) -> BTreeSet<String> {
    let answer = send(instance, Method::GET, "/_nodes/shutdown", None).await;
    let Some(body) = answer.ok().and_then(|answer| answer.json().ok()) else { return BTreeSet::new() };
    let ids: Vec<&str> =
        body["nodes"].as_array().into_iter().flatten().filter_map(|one| one["node_id"].as_str()).collect();
    let named = members.iter().filter(|member| ids.contains(&member.id.as_str()));
    named.map(|member| member.name.clone()).collect()
}

/// Asks for the cluster's health, behind everything that it has to do.
pub(super) async fn health(instance: &Instance<'_>) -> Result<Health, AdapterError> {
    let path = "/_cluster/health?wait_for_events=languid&timeout=0s";
    let answer = send(instance, Method::GET, path, None).await?;
    // 408 is how some versions say that they are busy.
    if answer.status != 408 {
        super::ask::accepted(instance, path, &answer)?;
    }
    let mut health = parse_health(&answer.json()?);
    health.busy |= answer.status == 408;
    Ok(health)
}

fn parse_health(body: &Value) -> Health {
    let number = |name: &str| body[name].as_u64().unwrap_or(0);
    Health {
        color: match body["status"].as_str() {
            Some("green") => Color::Green,
            Some("yellow") => Color::Yellow,
            _ => Color::Red,
        },
        busy: body["timed_out"].as_bool().unwrap_or(true),
        fetching: number("number_of_in_flight_fetch"),
        initializing: number("initializing_shards"),
        relocating: number("relocating_shards"),
        unassigned: number("unassigned_shards"),
    }
}

fn parse_copies(body: &Value) -> Vec<Copy> {
    let copy = |row: &Value| {
        // A copy that moves is still where it was: `one -> 10.0.0.1 id two`.
        let node = row["node"].as_str().and_then(|node| node.split(" -> ").next());
        let state = row["state"].as_str().unwrap_or_default();
        Some(Copy {
            index: row["index"].as_str()?.to_owned(),
            shard: row["shard"].as_str()?.parse().ok()?,
            primary: row["prirep"].as_str() == Some("p"),
            started: matches!(state, "STARTED" | "RELOCATING"),
            node: node.map(str::trim).filter(|node| !node.is_empty()).map(str::to_owned),
        })
    };
    body.as_array().into_iter().flatten().filter_map(copy).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_of_servers_are_understood() {
        let health = parse_health(&json!({"status": "yellow", "timed_out": false,
            "number_of_in_flight_fetch": 1, "initializing_shards": 2, "relocating_shards": 3,
            "unassigned_shards": 4}));
        let wanted = Health {
            color: Color::Yellow,
            busy: false,
            fetching: 1,
            initializing: 2,
            relocating: 3,
            unassigned: 4,
        };
        assert_eq!(health, wanted);
        let copies = parse_copies(&json!([
            {"index": "a", "shard": "0", "prirep": "p", "state": "RELOCATING", "node": "one -> 10.0.0.1 x two"},
            {"index": "a", "shard": "0", "prirep": "r", "state": "UNASSIGNED", "node": null},
        ]));
        assert_eq!((copies[0].node.as_deref(), copies[0].started), (Some("one"), true));
        assert_eq!((copies[1].node.as_deref(), copies[1].started, copies[1].primary), (None, false, false));
    }
}
