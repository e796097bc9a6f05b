//! Where the nodes are, and what would change there: the planner's candidates.
//!
//! # Invariants
//!
//! * Nothing is changed, and nothing is guessed: a node that does not answer is a problem, not a default.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::error::node_error;
use super::fleet::{Fleet, Member};
use super::gate::probe;
use super::services::Services;
use crate::adapters;
use crate::agent::supervise::ProcessState;
use crate::agent::{NodeStatus, Preview, ReleaseName, Request, RoleStatus};
use crate::inventory::Cluster;
use crate::model::{Digest, NodeName, Role};
use crate::recipe::ServiceKind;
use crate::remote::{context, has_formed};
use crate::rollout::{At, Candidate, Fault, Held, Leftover, NodeError};

/// Where a node is, or why it does not say.
pub type Seen = BTreeMap<NodeName, Result<NodeStatus, NodeError>>;

/// What stands in the way of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub node: NodeName,
    /// Which role, if it is about one.
    pub role: Option<Role>,
    /// What.
    pub error: NodeError,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every role on every node that was asked after.
    pub candidates: Vec<Candidate>,
    /// Roles that no node has run yet.
    pub forming: BTreeSet<Role>,
    /// What staging would render.
    pub previews: BTreeMap<At, Preview>,
    /// What stands in the way.
    pub problems: Vec<Problem>,
}

/// Asks every node where it is, all at once.
pub async fn statuses(fleet: &Fleet) -> Seen {
    let ask = async |member: &Member| {
        let answer = member.remote.call::<NodeStatus>(Request::Status { role: None }).await;
        (member.node.name.clone(), answer.map_err(|error| node_error(&error)))
    };
    let mut asking: FuturesUnordered<_> = fleet.members().map(ask).collect();
    let mut seen = Seen::new();
    while let Some((node, status)) = asking.next().await {
        seen.insert(node, status);
    }
    for (node, error) in &fleet.unreachable {
        seen.insert(node.clone(), Err(node_error(error)));
    }
    seen
}

/// Whether what is current runs, is confirmed, and nothing is known against it.
pub fn healthy(status: &RoleStatus) -> bool {
    let Some(release) = &status.release else { return false };
    let runs = status.kind.is_none()
        || (status.process == ProcessState::Running && status.runs.as_ref() == Some(release));
    runs && status.unconfirmed.is_none()
        && status.interrupted.is_none()
        && status.problem.is_none()
        && status.bad.iter().all(|bad| bad.release != *release)
}

/// What was current before an earlier rollout made the target so, while that is not confirmed.
pub(super) fn unconfirmed_from(status: Option<&RoleStatus>, on_target: bool) -> Option<ReleaseName> {
    status.filter(|_| on_target)?.unconfirmed.as_ref()?.from.clone()
}

/// Of what templates see on a node besides secrets.
pub fn inputs(cluster: &Cluster, node: &NodeName, forming: bool) -> Option<Digest> {
    let node = cluster.find(node.as_str())?;
    serde_json::to_vec(&context(cluster, node, forming)).ok().map(|bytes| Digest::of(&bytes))
}

/// Fails if a release that is meant was marked bad.
pub(super) fn bad_release(
    at: &At,
    status: &RoleStatus,
    meant: impl Fn(&ReleaseName) -> bool,
) -> Result<(), NodeError> {
    let Some(bad) = status.bad.iter().rev().find(|bad| meant(&bad.release)) else { return Ok(()) };
    let message = format!("{} of {} on {} was marked bad: {}", bad.release, at.role, at.node, bad.why);
    let mut error = NodeError::new(Fault::Refused, "bad-release", message);
    error
        .line
        .help
        .push("build another version; or --force, if something else was wrong and is put right".to_owned());
    Err(error)
}

/// The version of the product in a release that is on a node.
pub fn product_of(seen: &Seen, at: &At, release: &ReleaseName) -> Option<String> {
    let status = seen.get(&at.node)?.as_ref().ok()?;
    let role = status.roles.iter().find(|one| one.role == at.role)?;
    role.staged.iter().find(|one| one.release == *release)?.product.clone()
}

/// Looks at nodes for a plan.
#[derive(Debug)]
pub struct Surveyor<'a> {
    /// What cluster.toml says.
    pub cluster: &'a Cluster,
    /// The nodes that are connected: at least all with one of the roles.
    pub fleet: &'a Fleet,
    /// Where they are.
    pub seen: &'a Seen,
    /// The nodes that shall change, and which of their roles.
    pub wanted: Vec<(NodeName, Vec<Role>)>,
    /// Those whose service is ready; see [`Self::look`].
    pub ready: BTreeSet<At>,
    /// What is known about services.
    pub services: &'a Services<'a>,
    /// The places of nodes among those of their role; see [`Self::look`].
    pub ranks: BTreeMap<At, u32>,
}

impl Surveyor<'_> {
    /// How many nodes of the cluster have each role.
    pub fn totals(&self) -> BTreeMap<Role, usize> {
        self.cluster
            .roles()
            .into_iter()
            .map(|role| (role.clone(), self.cluster.nodes_with(role).count()))
            .collect()
    }

    /// Asks every service that seems healthy whether it is ready, once and all at the same time.
    pub async fn look(&mut self) {
        let ask = async |node: &NodeName, role: &Role| {
            let ready = match self.fleet.member(node) {
                Ok(member) => self.is_ready(member, role).await,
                Err(_) => false,
            };
            ready.then(|| At { node: node.clone(), role: role.clone() })
        };
        let mut asking: FuturesUnordered<_> = self.pairs().map(|(node, role)| ask(node, role)).collect();
        let mut ready = BTreeSet::new();
        while let Some(found) = asking.next().await {
            ready.extend(found);
        }
        drop(asking);
        let rank = async |at: At| (at.clone(), self.services.rank(&at).await.unwrap_or(0));
        // One that cannot be asked has no say in who leads.
        let mut asking: FuturesUnordered<_> = ready.iter().cloned().map(rank).collect();
        let mut ranks = BTreeMap::new();
        while let Some((at, rank)) = asking.next().await {
            ranks.insert(at, rank);
        }
        drop(asking);
        (self.ready, self.ranks) = (ready, ranks);
    }

    /// Whether a service leaves its cluster before it is stopped: one that does not run has left.
    pub(super) fn drains(&self, status: Option<&RoleStatus>) -> bool {
        status
            .is_some_and(|one| one.process == ProcessState::Running && one.kind.is_some_and(adapters::drains))
    }

    pub(super) fn rank(&self, at: &At) -> u32 {
        self.ranks.get(at).copied().unwrap_or(0)
    }

    /// What earlier rollouts changed in services' clusters, and did not put back.
    pub fn leftovers(&self) -> Vec<Leftover> {
        let of_node = |(node, status): (&NodeName, &Result<NodeStatus, NodeError>)| {
            let roles = status.as_ref().map(|status| status.roles.clone()).unwrap_or_default();
            let left = |role: RoleStatus| {
                (!role.settings.is_empty()).then(|| Leftover {
                    node: node.clone(),
                    role: role.role,
                    settings: role.settings,
                })
            };
            roles.into_iter().filter_map(left).collect::<Vec<_>>()
        };
        self.seen.iter().flat_map(of_node).collect()
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&NodeName, &Role)> {
        self.wanted.iter().flat_map(|(node, roles)| roles.iter().map(move |role| (node, role)))
    }

    pub(super) fn zone(&self, node: &NodeName) -> Option<String> {
        self.cluster.find(node.as_str()).and_then(|node| node.zone.clone())
    }

    pub(super) fn role(&self, node: &NodeName, role: &Role) -> Result<Option<&RoleStatus>, NodeError> {
        match self.seen.get(node) {
            Some(Ok(status)) => Ok(status.roles.iter().find(|one| one.role == *role)),
            Some(Err(error)) => Err(error.clone()),
            None => Err(super::error::not_connected(node)),
        }
    }

    /// Roles that no node of the cluster has run, nor any other role of the same cluster of services, as far as
    /// nodes say. One that does not answer may have.
    pub(super) fn forming<'r>(
        &self,
        roles: impl Iterator<Item = (&'r Role, Option<ServiceKind>)>,
    ) -> BTreeSet<Role> {
        let formed =
            |role: &Role, kind| self.seen.values().flatten().any(|status| has_formed(status, role, kind));
        let all_answer = |role: &Role| {
            self.cluster.nodes_with(role).all(|node| matches!(self.seen.get(&node.name), Some(Ok(_))))
        };
        let never_ran =
            |(role, kind): &(&Role, Option<ServiceKind>)| all_answer(role) && !formed(role, *kind);
        roles.filter(never_ran).map(|(role, _)| role.clone()).collect()
    }

    /// Whether the service of what is current is ready, asked once.
    async fn is_ready(&self, member: &Member, role: &Role) -> bool {
        let Ok(Some(status)) = self.role(&member.node.name, role) else { return false };
        let Some(release) = &status.release else { return false };
        matches!(probe(member, self.services, role, release, status.probe.as_ref()).await, Ok(Held::Yes))
    }
}
