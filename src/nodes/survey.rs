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
use super::target::Target;
use crate::agent::supervise::ProcessState;
use crate::agent::{BadStatus, NodeStatus, Preview, PreviewRequest, Request, RoleStatus};
use crate::inventory::Cluster;
use crate::model::{Digest, NodeName, Reference, Role, Version};
use crate::remote::{Secrets, context, has_run};
use crate::rollout::{At, Candidate, Change, Fault, Goal, Held, NodeError, Plan};
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
        self.ready = ready;
    }

    /// Candidates for other bundles.
    pub async fn promote(
        &self,
        store: &Store,
        secrets: &Secrets,
        targets: &BTreeMap<Role, Target>,
        allow_bad: bool,
    ) -> Survey {
        let mut survey = Survey { forming: self.forming(targets.keys()), ..Survey::default() };
        let mut values: BTreeMap<&Role, BTreeMap<String, String>> = BTreeMap::new();
        for (role, target) in targets {
            match secrets.gather(&target.secrets(secrets.names())) {
                Ok(found) => drop(values.insert(role, found)),
                Err(error) => {
                    let mut problem = NodeError::new(Fault::Here, "secret", error.to_string());
                    problem.line.help = error.help();
                    let node = self.wanted.iter().find(|(_, roles)| roles.contains(role));
                    let node = node.map(|(node, _)| node.clone());
                    let role = Some(role.clone());
                    survey.problems.extend(node.map(|node| Problem { node, role, error: problem }));
                }
            }
        }
        if !survey.problems.is_empty() {
            return survey;
        }
        let ask = async |node: &NodeName, role: &Role, target: &Target| {
            let at = At { node: node.clone(), role: role.clone() };
            let request = self.preview_request(node, role, target, &survey.forming, &values);
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
                if let Some(target) = targets.get(role) {
                    asking.push(ask(node, role, target));
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
                    let found = self.candidate(&at, target, &preview, allow_bad, &mut known);
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
        allow_bad: bool,
        known: &mut Known<'_>,
    ) -> Result<Candidate, NodeError> {
        let status = self.role(&at.node, &at.role)?;
        let digest = target.bundle.tagged.digest;
        let of_bundle = |bad: &&BadStatus| {
            let mut staged = status.iter().flat_map(|status| &status.staged);
            staged.any(|one| one.release == bad.release && one.digest == digest)
        };
        // Going back marks what is left; that is no reason to refuse what is current.
        let bad = status.filter(|_| !preview.same).and_then(|status| status.bad.iter().rev().find(of_bundle));
        if let Some(bad) = bad.filter(|_| !allow_bad) {
            let message =
                format!("{} of {} on {} was marked bad: {}", bad.release, at.role, at.node, bad.why);
            let mut error = NodeError::new(Fault::Refused, "bad-release", message);
            error.line.help.push(
                "build another version; or --force, if something else was wrong and is put right".to_owned(),
            );
            return Err(error);
        }
        let from = status.and_then(|status| status.release.clone());
        let on_node: Vec<Digest> =
            preview.bundles.iter().copied().filter(|bundle| known.load(bundle)).collect();
        let current = status.and_then(|status| status.digest).filter(|digest| known.load(digest));
        let nothing = Contents::default();
        let current = current.and_then(|digest| known.contents.get(&digest)?.as_ref()).unwrap_or(&nothing);
        let there: Vec<&Contents> =
            on_node.iter().filter_map(|digest| known.contents.get(digest)?.as_ref()).collect();
        let runs_something = status.is_some_and(|status| status.kind.is_some());
        Ok(Candidate {
            node: at.node.clone(),
            role: at.role.clone(),
            zone: self.zone(&at.node),
            from,
            goal: Goal::Bundle(digest),
            to: Some(target.bundle.tagged.version.clone()),
            on_target: preview.same,
            healthy: status.is_some_and(healthy) && self.ready.contains(at),
            service: target.record.service.is_some() || runs_something,
            drains: false,
            change: target.contents.change(current, &there),
            point_of_no_return: false,
        })
    }

    /// Candidates for going back: to the release of that version, or to each node's prior.
    pub fn rollback(&self, to: Option<&Version>) -> Survey {
        let mut survey = Survey::default();
        let mut priors: BTreeMap<&Role, BTreeSet<Option<Version>>> = BTreeMap::new();
        for (node, role) in self.pairs() {
            let status = match self.role(node, role) {
                Ok(status) => status,
                Err(error) => {
                    let (node, role) = (node.clone(), Some(role.clone()));
                    survey.problems.push(Problem { node, role, error });
                    continue;
                }
            };
            // What never ran here has nothing to go back from.
            let Some((status, from)) = status.and_then(|one| Some((one, one.release.clone()?))) else {
                continue;
            };
            let goal = match to {
                Some(version) if from.version() == version => Some(from.clone()),
                Some(version) => {
                    let mut of_version: Vec<_> =
                        status.staged.iter().filter(|one| one.release.version() == version).collect();
                    of_version.sort_by_key(|one| (one.good, one.release.number()));
                    of_version.last().map(|one| one.release.clone())
                }
                None => status.prior.clone(),
            };
            priors.entry(role).or_default().insert(goal.as_ref().map(|goal| goal.version().clone()));
            let Some(goal) = goal else {
                let what = to.map_or_else(
                    || "has no prior release: none before the current one was ever confirmed".to_owned(),
                    |version| format!("has no release of version {version} on the disk"),
                );
                let message = format!("{role} on {node} {what}");
                let error = NodeError::new(Fault::Refused, "no-prior", message);
                let (node, role) = (node.clone(), Some(role.clone()));
                survey.problems.push(Problem { node, role, error });
                continue;
            };
            let at = At { node: node.clone(), role: role.clone() };
            survey.candidates.push(Candidate {
                node: node.clone(),
                role: role.clone(),
                zone: self.zone(node),
                on_target: goal == from,
                healthy: healthy(status) && self.ready.contains(&at),
                from: Some(from),
                to: Some(goal.version().clone()),
                goal: Goal::Release(goal),
                service: status.kind.is_some(),
                drains: false,
                change: Change::default(),
                point_of_no_return: false,
            });
        }
        // A role that was never changed has nowhere to go, and does not keep the others from it.
        if to.is_none() && !survey.candidates.is_empty() {
            priors.retain(|_, versions| versions.iter().any(Option::is_some));
            survey.problems.retain(|problem| {
                problem.role.as_ref().is_none_or(|role| priors.contains_key(role))
                    || problem.error.line.kind != "no-prior"
            });
        }
        if to.is_none() {
            for (role, versions) in priors.into_iter().filter(|(_, versions)| versions.len() > 1) {
                survey.problems.extend(self.mixed(role, &versions));
            }
        }
        survey
    }

    /// Candidates for what a plan that goes back had fixed.
    pub fn go_to(&self, plan: &Plan) -> Survey {
        let mut survey = Survey::default();
        for one in plan.nodes() {
            let at = At { node: one.node.clone(), role: one.role.clone() };
            match self.role(&one.node, &one.role) {
                Err(error) => {
                    let (node, role) = (at.node, Some(at.role));
                    survey.problems.push(Problem { node, role, error });
                }
                Ok(status) => {
                    let from = status.and_then(|status| status.release.clone());
                    survey.candidates.push(Candidate {
                        on_target: one.goal == from.clone().map_or(Goal::Nothing, Goal::Release),
                        healthy: status.is_some_and(healthy) && self.ready.contains(&at),
                        node: at.node,
                        role: at.role,
                        zone: one.zone.clone(),
                        from,
                        goal: one.goal.clone(),
                        to: one.to.clone(),
                        service: one.service,
                        drains: false,
                        change: Change::default(),
                        point_of_no_return: false,
                    });
                }
            }
        }
        survey
    }

    /// Nodes of a role that are on different versions would go back to different ones: nobody means that.
    fn mixed(&self, role: &Role, versions: &BTreeSet<Option<Version>>) -> Option<Problem> {
        let (node, _) = self.pairs().find(|(_, one)| *one == role)?;
        let shown: Vec<String> = versions
            .iter()
            .map(|version| version.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string))
            .collect();
        let message =
            format!("the nodes of {role} would go back to different versions: {}", shown.join(", "));
        let mut error = NodeError::new(Fault::Refused, "mixed", message);
        for version in versions.iter().flatten() {
            error.line.help.push(format!("say which: `windlass rollback --role {role} --to {version}`"));
        }
        Some(Problem { node: node.clone(), role: Some(role.clone()), error })
    }

    /// Candidates for starting anew what is current.
    pub fn restart(&self) -> Survey {
        let mut survey = Survey::default();
        for (node, role) in self.pairs() {
            match self.role(node, role) {
                Err(error) => {
                    let (node, role) = (node.clone(), Some(role.clone()));
                    survey.problems.push(Problem { node, role, error });
                }
                Ok(Some(RoleStatus { release: Some(release), kind: Some(_), .. })) => {
                    let status = self.role(node, role).ok().flatten();
                    let at = At { node: node.clone(), role: role.clone() };
                    survey.candidates.push(Candidate {
                        node: node.clone(),
                        role: role.clone(),
                        zone: self.zone(node),
                        from: Some(release.clone()),
                        goal: Goal::Release(release.clone()),
                        to: Some(release.version().clone()),
                        on_target: true,
                        healthy: status.is_some_and(healthy) && self.ready.contains(&at),
                        service: true,
                        drains: false,
                        change: Change::default(),
                        point_of_no_return: false,
                    });
                }
                // What runs nothing needs no restart.
                Ok(_) => {}
            }
        }
        survey
    }

    fn pairs(&self) -> impl Iterator<Item = (&NodeName, &Role)> {
        self.wanted.iter().flat_map(|(node, roles)| roles.iter().map(move |role| (node, role)))
    }

    fn zone(&self, node: &NodeName) -> Option<String> {
        self.cluster.find(node.as_str()).and_then(|node| node.zone.clone())
    }

    fn role(&self, node: &NodeName, role: &Role) -> Result<Option<&RoleStatus>, NodeError> {
        match self.seen.get(node) {
            Some(Ok(status)) => Ok(status.roles.iter().find(|one| one.role == *role)),
            Some(Err(error)) => Err(error.clone()),
            None => Err(super::error::not_connected(node)),
        }
    }

    /// Roles that no node of the cluster has run, as far as its nodes say. One that does not answer may have.
    fn forming<'r>(&self, roles: impl Iterator<Item = &'r Role>) -> BTreeSet<Role> {
        let never_ran = |role: &&Role| {
            self.cluster.nodes_with(role).all(|node| match self.seen.get(&node.name) {
                Some(Ok(status)) => !has_run(status, role),
                Some(Err(_)) | None => false,
            })
        };
        roles.filter(never_ran).cloned().collect()
    }

    /// Whether the service of what is current is ready, asked once.
    async fn is_ready(&self, member: &Member, role: &Role) -> bool {
        let Ok(Some(status)) = self.role(&member.node.name, role) else { return false };
        let Some(release) = &status.release else { return false };
        matches!(probe(member, role, release, status.probe.as_ref()).await, Ok(Held::Yes))
    }

    fn preview_request(
        &self,
        node: &NodeName,
        role: &Role,
        target: &Target,
        forming: &BTreeSet<Role>,
        values: &BTreeMap<&Role, BTreeMap<String, String>>,
    ) -> Option<PreviewRequest> {
        let node = self.cluster.find(node.as_str())?;
        Some(PreviewRequest {
            role: role.clone(),
            version: target.bundle.tagged.version.clone(),
            bundle: target.bundle.tagged.digest,
            context: context(self.cluster, node, forming.contains(role)),
            secrets: values.get(role).cloned().unwrap_or_default(),
            record: target.record.clone(),
            templates: target.templates.clone(),
        })
    }
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
                Some(Contents::of(&bundle, &layers.ok()?))
            })
            .is_some()
    }
}
