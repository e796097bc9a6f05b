//! Connections to nodes, made at the same time; one that fails does not hold up the others.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::error::not_connected;
use crate::agent::{Claim, Request};
use crate::inventory::Node;
use crate::model::NodeName;
use crate::remote::{AgentBinary, Remote, RemoteError};
use crate::rollout::NodeError;
use crate::transport::Connector;

/// Connections that are being made at a time.
const AT_A_TIME: usize = 32;

/// A node that is connected.
#[derive(Clone, Debug)]
pub struct Member {
    /// What cluster.toml says about it.
    pub node: Node,
    /// Its agent.
    pub remote: Remote,
}

/// For how long a node that was lost is connected to again. Longer than a switch takes to learn a port, shorter
/// than a person waits for bad news.
const AGAIN: Duration = Duration::from_secs(30);

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

impl Member {
    /// Asks the node's agent. Where the connection is lost it is made anew, with the lock, and the question is
    /// asked again: whatever may be asked is whole or did not happen, and says so when it is asked for twice.
    pub async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, RemoteError> {
        let begun = Instant::now();
        let mut answer = self.remote.call(request.clone()).await;
        // The lock may be gone with the connection, while the connection itself still seems to be there.
        let lost = |error: &RemoteError| error.is_lost() || error.kind() == "fenced";
        while let Err(error) = &answer
            && lost(error)
            && begun.elapsed() < AGAIN
        {
            match self.remote.reconnect().await {
                Ok(()) => answer = self.remote.call(request.clone()).await,
                Err(RemoteError::Locked { owner, .. }) if self.remote.is_own(owner.as_deref()) => {
                    sleep(PAUSE).await;
                }
                // Somebody else took the lock: what was begun is theirs now.
                Err(other) if !other.is_lost() => return Err(other),
                Err(_) => sleep(PAUSE).await,
            }
        }
        answer
    }
}

/// The nodes of a run.
#[derive(Debug, Default)]
pub struct Fleet {
    members: BTreeMap<NodeName, Member>,
    /// Those that could not be connected to.
    pub unreachable: BTreeMap<NodeName, RemoteError>,
}

impl Fleet {
    /// Connects to all of `nodes`.
    pub async fn connect<'a>(
        connector: &Connector,
        agent: &AgentBinary,
        nodes: impl IntoIterator<Item = &'a Node>,
        claim: &Claim,
    ) -> Self {
        let mut fleet = Self::default();
        let mut connecting = stream::iter(nodes)
            .map(async |node: &Node| (node.clone(), Remote::connect(connector, node, agent).await))
            .buffer_unordered(AT_A_TIME);
        while let Some((node, outcome)) = connecting.next().await {
            match outcome {
                Ok(remote) => {
                    remote.claim_as(claim);
                    fleet.members.insert(node.name.clone(), Member { node, remote });
                }
                Err(error) => drop(fleet.unreachable.insert(node.name, error)),
            }
        }
        fleet
    }

    /// Takes over the nodes of another.
    pub fn join(&mut self, other: Self) {
        self.members.extend(other.members);
        self.unreachable.extend(other.unreachable);
    }

    /// Those that are connected, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A node that is connected.
    pub fn member(&self, node: &NodeName) -> Result<&Member, NodeError> {
        self.members.get(node).ok_or_else(|| not_connected(node))
    }
}
