//! Where the nodes are, and what would change there: the planner's candidates.
//!
//! # Invariants
//!
//! * Nothing is changed, and nothing is guessed: a node that does not answer is a problem, not a default.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::change::Contents;
use super::error::node_error;
use super::fleet::{Fleet, Member};
use super::gate::probe;
use super::services::Services;
use super::target::Target;
use crate::adapters::{self, Upgrade};
use crate::agent::supervise::ProcessState;
use crate::agent::{NodeStatus, Preview, PreviewRequest, ReleaseName, Request, RoleStatus};
use crate::inventory::{Cluster, SupervisorKind};
use crate::model::{Digest, NodeName, Reference, Role};
use crate::recipe::ServiceKind;
use crate::remote::{Secrets, context, has_formed};
use crate::rollout::{At, Candidate, Fault, Goal, Held, Leftover, NodeError};
use crate::store::Store;

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

    /// Candidates for other bundles.
    pub async fn promote(
        &self,
        store: &Store,
        secrets: &Secrets,
        targets: &BTreeMap<Role, Target>,
        allow_bad: bool,
    ) -> Survey {
        let kinds = targets.iter().map(|(role, target)| (role, target.kind()));
        let mut survey = Survey { forming: self.forming(kinds), ..Survey::default() };
        let mut requests: BTreeMap<At, PreviewRequest> = BTreeMap::new();
        for (role, target) in targets {
            let names = target.secrets(secrets.names());
            let with = self.wanted.iter().filter(|(_, roles)| roles.contains(role));
            for node in with.filter_map(|(name, _)| self.cluster.find(name.as_str())) {
                let mut request = target.request(context(self.cluster, node, survey.forming.contains(role)));
                match secrets.needed(&node.root, &request, &names) {
                    Ok(found) => request.secrets = found,
                    Err(error) => {
                        let mut problem = NodeError::new(Fault::Here, "secret", error.to_string());
                        problem.line.help = error.help();
                        let (node, role) = (node.name.clone(), Some(role.clone()));
                        survey.problems.push(Problem { node, role, error: problem });
                        // The other nodes lack the same.
                        break;
                    }
                }
                requests.insert(At { node: node.name.clone(), role: role.clone() }, request);
            }
        }
        if !survey.problems.is_empty() {
            return survey;
        }
        let ask = async |node: &NodeName, role: &Role| {
            let at = At { node: node.clone(), role: role.clone() };
            let request = requests.get(&at).cloned();
            let answer = match (self.fleet.member(node), request) {
                (Ok(member), Some(request)) => {
                    let request = Request::Preview(Box::new(request));
                    let answer = member.remote.call::<Preview>(request).await;
                    match answer {
                        Ok(preview) => Ok(preview),
                        Err(error) => Err(node_error(&error)),
                    }
                }
                (Err(error), _) => Err(error),
                (Ok(_), None) => Err(super::error::not_connected(node)),
            };
            (at, answer)
        };
        let mut asking = FuturesUnordered::new();
        for (node, roles) in &self.wanted {
            for role in roles {
                if targets.contains_key(role) {
                    asking.push(ask(node, role));
                }
            }
        }
        let mut answers = BTreeMap::new();
        while let Some((at, answer)) = asking.next().await {
            answers.insert(at, answer);
        }
        drop(asking);
        let mut known = Known { store, contents: BTreeMap::new() };
        for (at, answer) in answers {
            match answer {
                Ok(preview) => {
                    let Some(target) = targets.get(&at.role) else { continue };
                    let found = self.candidate(
                        &at,
                        target,
                        &preview,
                        (allow_bad, survey.forming.contains(&at.role)),
                        &mut known,
                    );
                    match found {
                        Ok(candidate) => survey.candidates.push(candidate),
                        Err(error) => {
                            let (node, role) = (at.node.clone(), Some(at.role.clone()));
                            survey.problems.push(Problem { node, role, error });
                        }
                    }
                    survey.previews.insert(at, preview);
                }
                Err(error) => {
                    let (node, role) = (at.node, Some(at.role));
                    survey.problems.push(Problem { node, role, error });
                }
            }
        }
        survey
    }

    fn candidate(
        &self,
        at: &At,
        target: &Target,
        preview: &Preview,
        (allow_bad, forming): (bool, bool),
        known: &mut Known<'_>,
    ) -> Result<Candidate, NodeError> {
        let status = self.role(&at.node, &at.role)?;
        let digest = target.bundle.tagged.digest;
        // Going back marks what is left; that is no reason to refuse what is current.
        if let Some(status) = status.filter(|_| !preview.same && !allow_bad) {
            bad_release(at, status, |release| {
                status.staged.iter().any(|one| one.release == *release && one.digest == digest)
            })?;
        }
        let from = status.and_then(|status| status.release.clone());
        let on_node: Vec<Digest> =
            preview.bundles.iter().copied().filter(|bundle| known.load(bundle)).collect();
        let current = status.and_then(|status| status.digest).filter(|digest| known.load(digest));
        let nothing = Contents::default();
        let current = current.and_then(|digest| known.contents.get(&digest)?.as_ref()).unwrap_or(&nothing);
        let there: Vec<&Contents> =
            on_node.iter().filter_map(|digest| known.contents.get(digest)?.as_ref()).collect();
        // What runs is told to read its conf again, where nothing else has changed; whatever is wrong is restarted.
        // Another supervisor than the embedded one names the release in what it was configured with.
        let told = target.record.service.as_ref().is_some_and(|service| service.reload.is_some())
            && self
                .cluster
                .find(at.node.as_str())
                .is_some_and(|node| node.supervisor == SupervisorKind::Pidfile);
        let reloads = told
            && status.is_some_and(healthy)
            && !preview.service_changed
            && target.contents.is_other_conf(current);
        let runs_something = status.is_some_and(|status| status.kind.is_some());
        let (point_of_no_return, together) = going(at, status, target)?;
        Ok(Candidate {
            node: at.node.clone(),
            role: at.role.clone(),
            zone: self.zone(&at.node),
            unconfirmed_from: unconfirmed_from(status, preview.same),
            from,
            goal: Goal::Bundle(digest),
            to: Some(target.bundle.tagged.version.clone()),
            on_target: preview.same,
            up: self.ready.contains(at),
            healthy: status.is_some_and(healthy) && self.ready.contains(at),
            service: target.record.service.is_some() || runs_something,
            drains: self.drains(status) && !reloads,
            reloads,
            rank: self.rank(at),
            change: target.contents.change(current, &there),
            inputs: inputs(self.cluster, &at.node, forming),
            point_of_no_return,
            together,
            joint: target.record.service.as_ref().is_some_and(|service| adapters::needs_peers(service.kind)),
        })
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

/// Whether a service's data has no way back from the target's version, and whether all of its kind stop before one
/// starts; an error if its data cannot come there.
fn going(at: &At, status: Option<&RoleStatus>, target: &Target) -> Result<(bool, bool), NodeError> {
    let Some((service, status)) = target.record.service.as_ref().zip(status) else {
        return Ok((false, false));
    };
    let (from, to) = (status.opened.as_deref().or(status.product.as_deref()), target.product());
    let upgrade = adapters::upgrade(service.kind, from, to.as_deref()).map_err(|error| {
        let message = format!("{} on {}: {error}", at.role, at.node);
        let mut made = NodeError::new(Fault::Refused, "version-path", message);
        made.line.help.push(error.help);
        made
    })?;
    let together = adapters::together(service.kind, status.product.as_deref(), to.as_deref());
    Ok((upgrade == Upgrade::PointOfNoReturn, together))
}

/// Bundles that nodes have and the store still knows, read once.
struct Known<'a> {
    store: &'a Store,
    contents: BTreeMap<Digest, Option<Contents>>,
}

impl Known<'_> {
    /// Whether the store knows it; reads it if it does.
    fn load(&mut self, digest: &Digest) -> bool {
        let store = self.store;
        self.contents
            .entry(*digest)
            .or_insert_with(|| {
                let bundle = store.bundle(&Reference::Digest(*digest)).ok()?;
                let layers: Result<Vec<_>, _> =
                    bundle.manifest.layers.iter().map(|layer| store.layer(layer)).collect();
                let record = store.record(&bundle).ok();
                Some(Contents::of(&bundle, &layers.ok()?, record.as_ref()))
            })
            .is_some()
    }
}
