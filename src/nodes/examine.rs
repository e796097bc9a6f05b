//! A cluster, examined for `check`: conf rendered, nodes asked once each, the live cluster asked where it answers.
//!
//! # Invariants
//!
//! * Nothing is changed anywhere. Templates get `***` for each secret; the only ones that are read are those that
//!   the live cluster's `[service.api]` names.
//! * Each node is asked once, all at the same time; what is not known is said, and is no error.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::fleet::{Fleet, Member};
use super::live_elastic;
use super::services::Services;
use super::survey::Seen;
use super::target::TargetError;
use super::told::Told;
use crate::adapters::AdapterError;
use crate::agent::supervise::ProcessState;
use crate::agent::{Imagined, NodeStatus, Preflight, PreflightAsk, PreviewRequest, Request, imagine};
use crate::check::{
    ConfFile, Instance, Live, NodeFacts, Problem, Topology, Unread, dirs, lint, ports, preflight,
};
use crate::inventory::{Cluster, Node, Reach, SupervisorKind};
use crate::model::{Digest, NodeName, ProductVersion, Reference, Role};
use crate::recipe::{Probe, ServiceKind};
use crate::remote::{Secrets, context, has_formed};
use crate::rollout::At;
use crate::store::Store;

/// How many nodes are asked for the live cluster before it is given up.
const ATTEMPTS: usize = 3;

/// What is examined.
#[derive(Debug)]
pub struct Examiner<'a> {
    /// What cluster.toml says.
    pub cluster: &'a Cluster,
    /// The cluster file, as people know it.
    pub file: &'a str,
    /// Where bundles are.
    pub store: &'a Store,
    /// What the live cluster may want to be told.
    pub secrets: &'a Secrets,
    /// The folder of the cluster file, where authorities' certificates are.
    pub folder: &'a Utf8Path,
    /// Bundles that are meant; of other roles the newest.
    pub named: BTreeMap<Role, Digest>,
    /// What roles without a bundle are, if that is known.
    pub kinds: BTreeMap<Role, ServiceKind>,
    /// The nodes that are connected, and where they are; `None` asks nobody.
    pub nodes: Option<(&'a Fleet, &'a Seen)>,
    /// Which roles of which nodes are meant; others are only counted.
    pub wanted: &'a [(NodeName, Vec<Role>)],
}

impl Examiner<'_> {
    /// Everything that is wrong, with the usual levels.
    pub async fn examine(&self) -> Result<Vec<Problem>, TargetError> {
        let mut problems = Vec::new();
        let told = self.told()?;
        let mut topology = self.topology(&told, &mut problems);
        let mut facts = Vec::new();
        if let Some((fleet, seen)) = self.nodes {
            let (asked, live) =
                futures_util::future::join(self.facts(fleet, &topology), self.live(fleet, seen, &topology))
                    .await;
            for (node, outcome) in asked {
                match outcome {
                    Ok(found) => facts.push(found),
                    Err(why) => problems.push(Problem::unseen(Some(node.as_str()), self.file, why)),
                }
            }
            for (node, error) in seen.iter().filter_map(|(node, one)| Some((node, one.as_ref().err()?))) {
                let why = format!("{node} was not asked: {}", error.full());
                problems.push(Problem::unseen(Some(node.as_str()), self.file, why));
            }
            match live {
                Ok(live) => topology.live = live,
                Err(error) => {
                    let why = format!("the live cluster was not looked at: {error}");
                    let mut problem = Problem::unseen(None, "_cluster", why);
                    if !error.help.is_empty() {
                        problem.help = error.help.join("; ");
                    }
                    problems.push(problem);
                }
            }
        }
        problems.extend(lint(&topology));
        problems.extend(preflight(&self.focused(topology), &facts));
        let meant: BTreeSet<&str> = self.wanted.iter().map(|(node, _)| node.as_str()).collect();
        problems.retain(|problem| problem.node.as_deref().is_none_or(|node| meant.contains(node)));
        Ok(problems)
    }

    fn is_wanted(&self, node: &str, role: &str) -> bool {
        self.wanted
            .iter()
            .any(|(name, roles)| name.as_str() == node && roles.iter().any(|one| one.as_str() == role))
    }

    /// Only what is meant: preflight is for what is going to be started.
    fn focused(&self, mut topology: Topology) -> Topology {
        topology.instances.retain(|one| self.is_wanted(&one.node, &one.role));
        topology
    }

    /// The bundle of every role that has one.
    fn told(&self) -> Result<BTreeMap<Role, Told>, TargetError> {
        let index = self.store.index()?;
        let built: BTreeSet<Role> = index.bundles().map(|tagged| tagged.role).collect();
        let mut told = BTreeMap::new();
        for role in self.cluster.roles() {
            let reference = match self.named.get(role) {
                Some(digest) => Reference::Digest(*digest),
                None if built.contains(role) => Reference::Newest(role.clone()),
                None => continue,
            };
            told.insert(role.clone(), Told::read(self.store, &reference)?);
        }
        Ok(told)
    }

    fn topology(&self, told: &BTreeMap<Role, Told>, problems: &mut Vec<Problem>) -> Topology {
        let focus: BTreeSet<&Role> = self.wanted.iter().flat_map(|(_, roles)| roles).collect();
        let mut topology = Topology {
            file: self.file.to_owned(),
            nodes: self.cluster.nodes.len(),
            focus: focus.iter().map(ToString::to_string).collect(),
            ..Topology::default()
        };
        for role in self.cluster.roles() {
            let Some(bundle) = told.get(role) else {
                let kind = self.kind(role);
                topology.unread.push(Unread { role: role.to_string(), kind });
                continue;
            };
            let Some(service) = &bundle.record.service else { continue };
            let forming = self.forming(role, service.kind);
            for node in self.cluster.nodes_with(role) {
                match self.imagined(node, role, bundle, forming.unwrap_or(false)) {
                    Ok(imagined) => {
                        topology.instances.push(instance(
                            node,
                            role,
                            bundle,
                            service.kind,
                            forming,
                            imagined,
                        ));
                    }
                    Err(why) => {
                        problems.push(Problem::unreadable(Some(node.name.as_str()), role.as_str(), why));
                        topology.unread.push(Unread { role: role.to_string(), kind: Some(service.kind) });
                    }
                }
            }
        }
        self.needs(told, &mut topology);
        topology
    }

    fn kind(&self, role: &Role) -> Option<ServiceKind> {
        let statuses = self.nodes.into_iter().flat_map(|(_, seen)| seen.values()).flatten();
        let mut known = statuses.flat_map(|status| &status.roles).filter(|one| one.role == *role);
        known.find_map(|one| one.kind).or_else(|| self.kinds.get(role).copied())
    }

    /// Whether no node has run the role yet; `None` where a node that does not answer may have.
    fn forming(&self, role: &Role, kind: ServiceKind) -> Option<bool> {
        let (_, seen) = self.nodes?;
        if seen.values().flatten().any(|status| has_formed(status, role, Some(kind))) {
            return Some(false);
        }
        let mut unknown = false;
        for node in self.cluster.nodes_with(role) {
            match seen.get(&node.name) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => unknown = true,
            }
        }
        (!unknown).then_some(true)
    }

    fn imagined(&self, node: &Node, role: &Role, bundle: &Told, forming: bool) -> Result<Imagined, String> {
        let masks = self.cluster.secrets.keys().map(|name| (name.clone(), "***".to_owned()));
        let request = PreviewRequest {
            role: role.clone(),
            version: bundle.version.clone(),
            bundle: bundle.digest,
            context: context(self.cluster, node, forming),
            secrets: masks.collect(),
            record: bundle.record.clone(),
            templates: bundle.templates.clone(),
        };
        imagine(&node.root, &request).map_err(|error| crate::model::with_causes(&error))
    }

    /// What each release needs on its node: contents that are in no bundle there, each once.
    fn needs(&self, told: &BTreeMap<Role, Told>, topology: &mut Topology) {
        let Some((_, seen)) = self.nodes else { return };
        let mut known: BTreeMap<Digest, Option<Told>> = BTreeMap::new();
        let mut there: BTreeMap<&str, BTreeSet<Digest>> = BTreeMap::new();
        for (node, status) in seen.iter().filter_map(|(node, status)| Some((node, status.as_ref().ok()?))) {
            let digests = status.roles.iter().flat_map(|role| &role.staged).map(|staged| staged.digest);
            let contents = there.entry(node.as_str()).or_default();
            for digest in digests {
                let bundle = known
                    .entry(digest)
                    .or_insert_with(|| Told::read(self.store, &Reference::Digest(digest)).ok());
                contents.extend(bundle.iter().flat_map(|bundle| bundle.contents.keys().copied()));
            }
        }
        for one in &mut topology.instances {
            let Some(bundle) = one.role.parse::<Role>().ok().and_then(|role| told.get(&role)) else {
                continue;
            };
            let Some(contents) = there.get_mut(one.node.as_str()) else { continue };
            let new = bundle.contents.iter().filter(|(digest, _)| contents.insert(**digest));
            let (bytes, files) = new.fold((0, 0), |sum, (_, size)| (sum.0 + size, sum.1 + 1));
            one.needs = (bytes, if files == 0 { 0 } else { files + bundle.directories });
        }
    }

    /// Asks each node that is meant about itself.
    async fn facts(
        &self,
        fleet: &Fleet,
        topology: &Topology,
    ) -> BTreeMap<NodeName, Result<NodeFacts, String>> {
        let ask = async |member: &Member| {
            let name = member.node.name.clone();
            let here = topology.instances.iter().filter(|one| one.node == name.as_str());
            let here = here.filter(|one| self.is_wanted(&one.node, &one.role));
            let roles = here.filter_map(|one| Some((one.role.parse::<Role>().ok()?, asked(one)))).collect();
            let sent_us = now_us();
            let answer = member.remote.call::<Preflight>(Request::Preflight { roles }).await;
            let back_us = now_us();
            let facts = answer
                .map(|facts| NodeFacts { node: name.to_string(), facts, sent_us, back_us })
                .map_err(|error| format!("{name} did not say what it is like: {error}"));
            (name, facts)
        };
        let meant = |member: &&Member| self.wanted.iter().any(|(name, _)| *name == member.node.name);
        let mut asking: FuturesUnordered<_> = fleet.members().filter(meant).map(ask).collect();
        let mut facts = BTreeMap::new();
        while let Some((node, found)) = asking.next().await {
            facts.insert(node, found);
        }
        facts
    }

    /// The live Elasticsearch, if any of its nodes runs; the error says why none of them answered.
    async fn live(
        &self,
        fleet: &Fleet,
        seen: &Seen,
        topology: &Topology,
    ) -> Result<Option<Live>, AdapterError> {
        let services = Services::new(self.cluster, fleet, self.secrets, self.folder, seen);
        let runs = |one: &&Instance| {
            let status = seen.iter().find(|(node, _)| node.as_str() == one.node);
            let roles =
                status.and_then(|(_, status)| status.as_ref().ok()).map(|status: &NodeStatus| &status.roles);
            let mut roles = roles.into_iter().flatten();
            roles.any(|role| role.role.as_str() == one.role && role.process == ProcessState::Running)
        };
        let mut why = None;
        for one in topology.elastic().filter(runs).take(ATTEMPTS) {
            let (Ok(node), Ok(role)) = (one.node.parse(), one.role.parse()) else { continue };
            let asked = match services.one(&At { node, role }) {
                Ok(Some(service)) => live_elastic::ask(service, crate::check::http_port(one)).await,
                Ok(None) => continue,
                Err(error) => Err(AdapterError { message: error.full(), help: error.line.help }),
            };
            match asked {
                Ok(live) => return Ok(Some(live)),
                Err(error) => why = Some(error),
            }
        }
        why.map_or(Ok(None), Err)
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What a node is asked about a role.
fn asked(one: &Instance) -> PreflightAsk {
    PreflightAsk {
        limits: Some(one.limits.clone()),
        user: one.user.clone(),
        group: one.group.clone(),
        ports: ports(one).into_keys().collect(),
        dirs: dirs(one),
        supervised: one.supervisor != SupervisorKind::Pidfile,
    }
}

fn instance(
    node: &Node,
    role: &Role,
    bundle: &Told,
    kind: ServiceKind,
    forming: Option<bool>,
    imagined: Imagined,
) -> Instance {
    let Imagined { release, shared, files, unit, secrets: _ } = imagined;
    let rendered =
        files.into_iter().map(|(path, text)| ConfFile { path: path.to_string(), text, rendered: true });
    let persist = bundle.record.persist.iter();
    let persist =
        persist.map(|dir| (dir.at.as_ref().map(|at| Utf8PathBuf::from(at.as_str())), shared.join(&dir.name)));
    let ready = unit.as_ref().and_then(|unit| unit.ready.as_ref());
    let artifacts = bundle.record.artifacts.iter().map(|artifact| artifact.name.as_str());
    // Nodes that are folders of this machine are all on it, unless they have addresses of their own.
    let is_local = node.reach == Reach::Local && node.address.parse::<std::net::IpAddr>().is_err();
    let mut one = Instance {
        node: node.name.to_string(),
        node_place: format!("{}:{}", node.place.file().trim_start_matches("./"), node.place.line()),
        role: role.to_string(),
        kind,
        host: if is_local { "this machine".to_owned() } else { node.address.clone() },
        address: node.address.clone(),
        zone: node.zone.clone(),
        supervisor: node.supervisor,
        version: ProductVersion::in_bundle(kind.name(), &bundle.record.versions, artifacts),
        forming,
        persist: persist.collect(),
        files: rendered.chain(bundle.files.iter().cloned()).collect(),
        release,
        shared: shared.clone(),
        command: Vec::new(),
        env: BTreeMap::new(),
        limits: BTreeMap::new(),
        user: None,
        group: None,
        ready_port: ready.and_then(|ready| match &ready.probe {
            Probe::Http { port: at, .. } | Probe::Tcp(at) => at.value().copied(),
            Probe::Command(_) => None,
        }),
        needs: (0, 0),
    };
    if let Some(unit) = unit {
        (one.command, one.env, one.limits) = (unit.command, unit.env, unit.limits);
        (one.user, one.group) = (unit.user, unit.group);
    }
    one
}
