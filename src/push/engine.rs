//! Many nodes at once: connect, lock, send, stage.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use super::error::PushError;
use super::observer::{Observer, Phase};
use super::send::Pusher;
use super::wants::Wants;
use crate::agent::{Claim, NodeStatus, PreviewRequest, ReleaseName, Request, StageRequest, Staged};
use crate::bundle::Record;
use crate::inventory::{Cluster, Node};
use crate::model::{Digest, NodeName, Role, Version};
use crate::recipe::ServiceKind;
use crate::remote::{AgentBinary, Remote, RemoteError, Secrets, context, has_formed};
use crate::store::StoredBundle;
use crate::transport::Connector;

/// Everything that a push works with.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// Its secrets.
    pub secrets: Secrets,
    /// How nodes are reached.
    pub connector: Connector,
    /// What runs on them.
    pub agent: AgentBinary,
    /// What sends.
    pub pusher: Pusher,
}

/// How a push goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes at a time.
    pub parallel: usize,
    /// Who pushes, for which rollout.
    pub claim: Claim,
}

/// A bundle and what its templates ask for.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The bundle.
    pub bundle: StoredBundle,
    /// Its `.windlass/bundle.json`.
    pub record: Record,
    /// What it asks for.
    pub wants: Wants,
}

/// What one node gets.
#[derive(Clone, Debug)]
pub struct Load {
    /// Its name, which the cluster has.
    pub node: NodeName,
    /// The bundles, one after another.
    pub bundles: Vec<Arc<Ready>>,
}

/// A bundle that is staged on a node.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Which role.
    pub role: Role,
    /// The bundle's version.
    pub version: Version,
    /// The bundle.
    pub bundle: Digest,
    /// The release that it became, or is already.
    pub release: ReleaseName,
    /// The release was there before.
    pub existing: bool,
    /// Bytes of the stream.
    pub bytes_sent: u64,
    /// Contents that travelled.
    pub objects_sent: u64,
    /// Contents that were there.
    pub objects_reused: u64,
    /// Contents that travelled as patches.
    pub patches_sent: u64,
    /// What making patches took of the time, here.
    pub patching: Duration,
    /// From the lock to the staged release.
    pub took: Duration,
}

/// What came of one node.
#[derive(Debug)]
pub struct NodeOutcome {
    /// Which node.
    pub node: NodeName,
    /// What was staged, in order.
    pub pushed: Vec<Pushed>,
    /// What then went wrong.
    pub failed: Option<PushError>,
}

/// Pushes and stages; the outcomes come in the order of `loads`.
pub async fn push(
    world: &Arc<World>,
    loads: Vec<Load>,
    options: &Options,
    observer: &Arc<dyn Observer>,
) -> Vec<NodeOutcome> {
    let fleet = Arc::new(Fleet { world: Arc::clone(world), remotes: Mutex::default() });
    let places = Arc::new(Semaphore::new(options.parallel.max(1)));
    let mut work = JoinSet::new();
    for (number, load) in loads.into_iter().enumerate() {
        let (fleet, places) = (Arc::clone(&fleet), Arc::clone(&places));
        let (claim, observer) = (options.claim.clone(), Arc::clone(observer));
        work.spawn(async move {
            let _place = places.acquire_owned().await.ok();
            let mut pushed = Vec::new();
            let done = fleet.node(&load, &claim, &*observer, &mut pushed).await;
            if done.is_err() {
                observer.failed(&load.node);
            }
            (number, NodeOutcome { node: load.node, pushed, failed: done.err() })
        });
    }
    let mut outcomes = work.join_all().await;
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Nodes that were connected to.
struct Fleet {
    world: Arc<World>,
    remotes: Mutex<HashMap<NodeName, Arc<OnceCell<Remote>>>>,
}

impl Fleet {
    async fn remote(&self, node: &Node) -> Result<Remote, RemoteError> {
        let cell = {
            let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(remotes.entry(node.name.clone()).or_default())
        };
        let connect = async || Remote::connect(&self.world.connector, node, &self.world.agent).await;
        cell.get_or_try_init(connect).await.cloned()
    }

    fn find(&self, name: &NodeName) -> Result<&Node, PushError> {
        let found = self.world.cluster.nodes.iter().find(|node| node.name == *name);
        found.ok_or_else(|| PushError::Internal(format!("node {name} is not in the cluster")))
    }

    async fn node(
        &self,
        load: &Load,
        claim: &Claim,
        observer: &dyn Observer,
        pushed: &mut Vec<Pushed>,
    ) -> Result<(), PushError> {
        observer.phase(&load.node, None, Phase::Connecting);
        let node = self.find(&load.node)?;
        let open = async {
            if let Some(first) = load.bundles.first() {
                self.world.pusher.open(first.bundle.tagged.digest).await;
            }
        };
        let (remote, ()) = tokio::join!(self.remote(node), open);
        let remote = remote?;
        remote.lock(claim).await?;
        let done = async {
            for ready in &load.bundles {
                pushed.push(self.bundle(node, &remote, ready, claim, observer).await?);
            }
            Ok(())
        }
        .await;
        remote.unlock().await;
        if done.is_ok() {
            observer.phase(&load.node, None, Phase::Done);
        }
        done
    }

    async fn bundle(
        &self,
        node: &Node,
        remote: &Remote,
        ready: &Ready,
        claim: &Claim,
        observer: &dyn Observer,
    ) -> Result<Pushed, PushError> {
        let started = Instant::now();
        let tagged = &ready.bundle.tagged;
        let forming = ready.wants.forming && self.is_forming(&tagged.role, ready.wants.kind).await?;
        let sent = self.world.pusher.send(remote, tagged.digest, observer).await?;
        observer.phase(&node.name, Some(&tagged.role), Phase::Staging);
        let request = self.stage_request(node, ready, forming, claim).await?;
        let staged: Staged = remote.call(Request::Stage(Box::new(request))).await?;
        Ok(Pushed {
            role: tagged.role.clone(),
            version: tagged.version.clone(),
            bundle: tagged.digest,
            release: staged.release,
            existing: staged.existing,
            bytes_sent: sent.bytes,
            objects_sent: sent.objects,
            objects_reused: sent.reused,
            patches_sent: sent.patches,
            patching: sent.patching,
            took: started.elapsed(),
        })
    }

    async fn stage_request(
        &self,
        node: &Node,
        ready: &Ready,
        forming: bool,
        claim: &Claim,
    ) -> Result<StageRequest, PushError> {
        let names = ready.wants.secrets_of(self.world.secrets.names());
        let tagged = &ready.bundle.tagged;
        let context = context(&self.world.cluster, node, forming);
        let request = PreviewRequest {
            role: tagged.role.clone(),
            version: tagged.version.clone(),
            bundle: tagged.digest,
            context: context.clone(),
            secrets: BTreeMap::new(),
            record: ready.record.clone(),
            templates: ready.wants.templates.clone(),
        };
        let (world, root) = (Arc::clone(&self.world), node.root.clone());
        // A source may be a command that takes its time.
        let secrets =
            tokio::task::spawn_blocking(move || world.secrets.needed(&root, &request, &names)).await;
        let secrets = secrets.map_err(|error| PushError::Internal(error.to_string()))??;
        Ok(StageRequest {
            role: tagged.role.clone(),
            version: tagged.version.clone(),
            bundle: tagged.digest,
            context,
            secrets,
            rollout: claim.rollout.clone(),
            who: claim.who.clone(),
        })
    }

    /// Whether no node of the cluster has run a role yet, nor another one of the same cluster of services. One that
    /// has decides it, whoever else is down.
    async fn is_forming(&self, role: &Role, kind: Option<ServiceKind>) -> Result<bool, PushError> {
        let mut silent = None;
        let joint = kind.is_some_and(ServiceKind::is_joint);
        for node in self.world.cluster.nodes.iter().filter(|node| joint || node.roles.contains(role)) {
            let asked = if joint { None } else { Some(role.clone()) };
            let status = async {
                let remote = self.remote(node).await?;
                remote.call::<NodeStatus>(Request::Status { role: asked }).await
            };
            match status.await {
                Ok(status) if has_formed(&status, role, kind) => return Ok(false),
                // Who never had the role cannot be missed for it.
                Err(_) if !node.roles.contains(role) => {}
                Ok(_) => {}
                Err(error) => {
                    silent.get_or_insert(error);
                }
            }
        }
        match silent {
            None => Ok(true),
            Some(source) => Err(PushError::Forming { role: role.clone(), source: Box::new(source) }),
        }
    }
}
