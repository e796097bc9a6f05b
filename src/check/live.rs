//! What a live Elasticsearch or OpenSearch says about itself.

use std::collections::BTreeMap;

/// A cluster that answered.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Who answered, as windlass calls the node.
    pub asked: String,
    /// Its nodes.
    pub nodes: Vec<LiveNode>,
    /// Cluster settings that were set while it ran; transient ones win over persistent ones.
    pub settings: BTreeMap<String, String>,
    /// Its indices that are open.
    pub indices: Vec<LiveIndex>,
}

/// One of its nodes.
#[derive(Clone, Debug, Default)]
pub struct LiveNode {
    /// `node.name`.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its address.
    pub ip: String,
    /// The name of its host.
    pub host: String,
    /// How much of its disk is used, in percent; absent for a node without data.
    pub disk_used: Option<f64>,
    /// `node.attr.*`.
    pub attributes: BTreeMap<String, String>,
}

/// One of its indices.
#[derive(Clone, Debug, Default)]
pub struct LiveIndex {
    /// Its name.
    pub name: String,
    /// Primary shards.
    pub primaries: u64,
    /// Copies of each.
    pub replicas: u64,
    /// Its settings, flat, without `index.` in front.
    pub settings: BTreeMap<String, String>,
}
