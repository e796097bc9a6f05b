//! Connections to nodes, made at the same time; one that fails does not hold up the others.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::error::not_connected;
use crate::agent::Claim;
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
