//! Services for their adapters: a service with its peers, what is known of each, and the ways to ask them.
//!
//! # Invariants
//!
//! * What is asked goes through the nodes' own connections.
//! * What is known of a service is what its current release says, as last heard; it is heard again whenever the
//!   service itself is asked about.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use camino::{Utf8Path, Utf8PathBuf};

use super::error::node_error;
use super::fleet::{Fleet, Member};
use super::survey::Seen;
use crate::adapters::{Adapter as _, AdapterError, Credentials, Gone, Instance, Reach, Stream, View, known};
use crate::agent::{NodeStatus, Request, RoleStatus, Setting};
use crate::inventory::Cluster;
use crate::model::NodeName;
use crate::recipe::{Api, ServiceKind};
use crate::remote::Secrets;
use crate::rollout::{At, Fault, Held, NodeError};

/// What is known of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    kind: ServiceKind,
    api: Api,
    product: Option<String>,
}

/// Every service of a cluster that its nodes told of.
#[derive(Debug)]
pub struct Services<'a> {
    cluster: &'a Cluster,
    fleet: &'a Fleet,
    secrets: &'a Secrets,
    /// The project's folder, where authorities' certificates are.
    folder: Utf8PathBuf,
    known: RefCell<BTreeMap<At, Known>>,
    /// The products' versions that services shall have next.
    aims: RefCell<BTreeMap<At, String>>,
    /// Those that join a cluster that runs.
    joining: RefCell<BTreeSet<At>>,
    /// What leaves its cluster leaves it for good.
    for_good: bool,
}

impl Reach for Member {
    fn open<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, String>> + 'a>> {
        Box::pin(async move {
            match self.remote.connection().forward(host, port).await {
                Ok(tunnel) => Ok(Box::new(tunnel) as Box<dyn Stream>),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

impl<'a> Services<'a> {
    /// Those that `seen` tells of.
    pub fn new(
        cluster: &'a Cluster,
        fleet: &'a Fleet,
        secrets: &'a Secrets,
        folder: &Utf8Path,
        seen: &Seen,
    ) -> Self {
        let (known, aims, joining) = (RefCell::default(), RefCell::default(), RefCell::default());
        let folder = folder.to_owned();
        let services = Self { cluster, fleet, secrets, folder, known, aims, joining, for_good: false };
        for (node, status) in seen {
            if let Ok(status) = status {
                services.heard(node, status);
            }
        }
        services
    }

    /// Takes over what a node says.
    pub fn heard(&self, node: &NodeName, status: &NodeStatus) {
        for role in &status.roles {
            let at = At { node: node.clone(), role: role.role.clone() };
            let mut known = self.known.borrow_mut();
            match of_role(role) {
                Some(found) => drop(known.insert(at, found)),
                None => drop(known.remove(&at)),
            }
        }
    }

    /// Takes note of the product's version that a rollout brings to a service.
    pub fn aim(&self, at: At, product: String) {
        self.aims.borrow_mut().insert(at, product);
    }

    /// Takes note that a service is new in a cluster that runs.
    pub fn joins(&self, at: At) {
        self.joining.borrow_mut().insert(at);
    }

    /// The same, where what leaves its cluster leaves it for good.
    #[must_use]
    pub fn for_good(self) -> Self {
        Self { for_good: true, ..self }
    }

    /// Its kind, if anything runs there.
    pub fn kind(&self, at: &At) -> Option<ServiceKind> {
        self.known.borrow().get(at).map(|known| known.kind)
    }

    async fn ask<T>(
        &self,
        at: &At,
        fresh: bool,
        nothing: T,
        question: impl AsyncFn(ServiceKind, &View<'_>) -> Result<T, AdapterError>,
    ) -> Result<T, NodeError> {
        if fresh {
            let member = self.fleet.member(&at.node)?;
            let request = Request::Status { role: Some(at.role.clone()) };
            let status: NodeStatus = member.call(request).await.map_err(|error| node_error(&error))?;
            self.heard(&at.node, &status);
        }
        let Some(kind) = self.kind(at) else { return Ok(nothing) };
        let view = self.view(at, kind)?;
        question(kind, &view).await.map_err(|error| asked(&error))
    }

    /// Its place among the nodes of its role.
    pub async fn rank(&self, at: &At) -> Result<u32, NodeError> {
        self.ask(at, false, 0, async |kind, view| known(kind).rank(view).await).await
    }

    /// Whether it may leave its cluster now.
    pub async fn may_leave(&self, at: &At) -> Result<Held, NodeError> {
        let ask = async |kind, view: &View<'_>| {
            if self.for_good { known(kind).may_part(view).await } else { known(kind).may_leave(view).await }
        };
        self.held(at, true, ask).await
    }

    /// What draining it will change.
    pub async fn settings(&self, at: &At) -> Result<Vec<Setting>, NodeError> {
        let ask = async |kind, view: &View<'_>| {
            if self.for_good { known(kind).parting(view).await } else { known(kind).settings(view).await }
        };
        self.ask(at, true, Vec::new(), ask).await
    }

    /// Drains it.
    pub async fn drain(&self, at: &At, settings: &[Setting]) -> Result<Held, NodeError> {
        let ask = async |kind, view: &View<'_>| {
            if self.for_good {
                known(kind).part(view, settings).await
            } else {
                known(kind).drain(view, settings).await
            }
        };
        self.held(at, true, ask).await
    }

    /// Ends that. Its node may be gone: its peers speak for its cluster.
    pub async fn undrain(&self, at: &At, settings: &[Setting]) -> Result<Held, NodeError> {
        self.held(at, false, async |kind, view| known(kind).undrain(view, settings).await).await
    }

    /// Whether it is up.
    pub async fn ready(&self, at: &At) -> Result<Held, NodeError> {
        self.held(at, false, async |kind, view| known(kind).ready(view).await).await
    }

    /// Whether its cluster has settled, with it or, where it has left for good, without it.
    pub async fn settled(&self, at: &At) -> Result<Held, NodeError> {
        let ask = async |kind, view: &View<'_>| {
            if self.for_good { known(kind).parted(view).await } else { known(kind).settled(view).await }
        };
        self.held(at, false, ask).await
    }

    /// What its cluster will change to forget a peer that is gone.
    pub async fn burying(&self, at: &At, gone: &Gone<'_>) -> Result<Vec<Setting>, NodeError> {
        self.ask(at, false, Vec::new(), async |kind, view| known(kind).burying(view, gone).await).await
    }

    /// Has its cluster forget a peer that is gone.
    pub async fn bury(&self, at: &At, gone: &Gone<'_>, settings: &[Setting]) -> Result<Held, NodeError> {
        self.held(at, false, async |kind, view| known(kind).bury(view, gone, settings).await).await
    }

    /// A service that could not be asked does not hold yet: it may be on its way up. What to do about it is told with
    /// what is waited for, since nobody may come to hear the error.
    async fn held(
        &self,
        at: &At,
        fresh: bool,
        question: impl AsyncFn(ServiceKind, &View<'_>) -> Result<Held, AdapterError>,
    ) -> Result<Held, NodeError> {
        match self.ask(at, fresh, Held::Yes, question).await {
            Err(error) if error.line.kind == "service-api" => {
                let help = &error.line.help;
                let advice = if help.is_empty() { String::new() } else { format!(" ({})", help.join("; ")) };
                Ok(Held::NotYet(error.full() + &advice))
            }
            outcome => outcome,
        }
    }

    fn view(&self, at: &At, kind: ServiceKind) -> Result<View<'_>, NodeError> {
        let known = self.known.borrow();
        let same = |one: ServiceKind| one == kind;
        let mut peers = Vec::new();
        for node in &self.cluster.nodes {
            for role in &node.roles {
                let other = At { node: node.name.clone(), role: role.clone() };
                if let Some(found) = known.get(&other).filter(|found| other != *at && same(found.kind)) {
                    peers.push(self.instance(&other, found)?);
                }
            }
        }
        let Some(found) = known.get(at) else {
            return Err(NodeError::new(Fault::Here, "internal", "a service that nothing is known of"));
        };
        let total = self.cluster.nodes_with(&at.role).count();
        Ok(View {
            this: self.instance(at, found)?,
            peers,
            off: &self.cluster.rollout.predicates_off,
            target: self.aims.borrow().get(at).cloned(),
            budget: self.cluster.rollout.max_unavailable.of(total),
            joins: self.joining.borrow().contains(at),
        })
    }

    /// The way to ask it, with what it wants to be told; `None` if nothing runs there.
    pub(super) fn one(&self, at: &At) -> Result<Option<Instance<'_>>, NodeError> {
        self.known.borrow().get(at).map(|found| self.instance(at, found)).transpose()
    }

    fn instance(&self, at: &At, found: &Known) -> Result<Instance<'_>, NodeError> {
        let node = self.cluster.find(at.node.as_str());
        let reach = self.fleet.member(&at.node).ok();
        Ok(Instance {
            node: at.node.clone(),
            role: at.role.clone(),
            kind: found.kind,
            address: node.map_or_else(|| at.node.to_string(), |node| node.address.clone()),
            credentials: self.credentials(at, &found.api)?,
            api: found.api.clone(),
            product: found.product.clone(),
            reach: reach.map(|member| member as &dyn Reach),
        })
    }

    fn credentials(&self, at: &At, api: &Api) -> Result<Credentials, NodeError> {
        let secret = |name: &str| {
            let found = self.secrets.gather(&[name.to_owned()].into());
            match found.map(|mut found| found.remove(name)) {
                Ok(Some(value)) => Ok(value),
                Ok(None) => {
                    Err(NodeError::new(Fault::Here, "secret", format!("there is no secret `{name}`")))
                }
                Err(error) => {
                    let mut made = NodeError::new(Fault::Here, "secret", error.to_string());
                    made.line.help = error.help();
                    Err(made)
                }
            }
        };
        let basic = match (&api.user, &api.password) {
            (Some(user), Some(name)) => Some((user.clone(), secret(name)?)),
            _ => None,
        };
        let ca = api.ca.as_ref().map(|path| {
            let path = self.folder.join(path);
            std::fs::read(&path).map_err(|error| {
                let message = format!("[service.api] ca of {} on {}: {path}: {error}", at.role, at.node);
                NodeError::new(Fault::Here, "ca", message)
            })
        });
        Ok(Credentials {
            basic,
            api_key: api.api_key.as_deref().map(secret).transpose()?,
            ca: ca.transpose()?,
        })
    }
}

fn of_role(role: &RoleStatus) -> Option<Known> {
    let kind = role.kind?;
    let api = role.api.clone().unwrap_or_default();
    Some(Known { kind, api, product: role.product.clone() })
}

fn asked(error: &AdapterError) -> NodeError {
    let mut made = NodeError::new(Fault::Service, "service-api", error.message.clone());
    made.line.help.clone_from(&error.help);
    made
}
