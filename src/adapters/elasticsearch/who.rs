//! A node's own word: its name, its version, the cluster that it is in.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::time::timeout;

use super::super::adapter::AdapterError;
use super::super::view::Instance;
use super::ask::{get, send};
use crate::recipe::ServiceKind;

/// Who answers on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// Its name in its cluster.
    pub(super) name: String,
    /// What its conf calls the cluster.
    pub(super) cluster_name: String,
    /// The cluster that it has joined; `None` before it has.
    pub(super) cluster: Option<String>,
    /// Its version.
    pub(super) version: String,
    /// It says that it is `OpenSearch`.
    pub(super) opensearch: bool,
}

/// How long a node may take to say who it is: one that hangs must not hold up what the others say.
const SOON: Duration = Duration::from_secs(4);

/// Asks a node who it is. It may not have joined a cluster, or have lost its master.
pub(super) async fn who(instance: &Instance<'_>) -> Result<Who, AdapterError> {
    timeout(SOON, ask(instance)).await.unwrap_or_else(|_| {
        let message = format!("{} of {} does not say who it is", instance.role, instance.node);
        Err(AdapterError::new(message))
    })
}

async fn ask(instance: &Instance<'_>) -> Result<Who, AdapterError> {
    // Without a master this is a 503, and says the same.
    let answer = send(instance, Method::GET, "/", None).await?;
    let opensearch = instance.kind == ServiceKind::Opensearch;
    // OpenSearch 1 calls itself Elasticsearch 7.10.2 there for old clients (compatibility.override_main_response_version).
    let is_itself = |found: &Who| found.opensearch || !opensearch;
    if let Some(found) = answer.json().ok().and_then(|body| of_root(&body)).filter(is_itself) {
        return Ok(found);
    }
    // A distribution may lack the module that answers there.
    let path = "/_nodes/_local?filter_path=cluster_name,nodes.*.name,nodes.*.version";
    let nodes = get(instance, path).await?;
    let state = get(instance, "/_cluster/state/master_node?local=true").await?;
    of_nodes(&nodes, &state, opensearch).ok_or_else(|| {
        let message =
            format!("{} of {}: what answers there is no Elasticsearch", instance.role, instance.node);
        AdapterError::new(message).help("is the port in [service.api] the one of its HTTP interface?")
    })
}

fn cluster(uuid: &Value) -> Option<String> {
    uuid.as_str().filter(|uuid| *uuid != "_na_").map(str::to_owned)
}

fn of_root(body: &Value) -> Option<Who> {
    Some(Who {
        name: body["name"].as_str()?.to_owned(),
        cluster_name: body["cluster_name"].as_str()?.to_owned(),
        cluster: cluster(&body["cluster_uuid"]),
        version: body["version"]["number"].as_str()?.to_owned(),
        opensearch: body["version"]["distribution"] == "opensearch",
    })
}

fn of_nodes(nodes: &Value, state: &Value, opensearch: bool) -> Option<Who> {
    let node = nodes["nodes"].as_object()?.values().next()?;
    Some(Who {
        name: node["name"].as_str()?.to_owned(),
        cluster_name: nodes["cluster_name"].as_str()?.to_owned(),
        cluster: cluster(&state["cluster_uuid"]),
        version: node["version"].as_str()?.to_owned(),
        opensearch,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_product_says_who_it_is() {
        let body = json!({"name": "n", "cluster_name": "c", "cluster_uuid": "_na_",
            "version": {"number": "2.19.0", "distribution": "opensearch"}});
        let found = of_root(&body).unwrap();
        assert_eq!((found.cluster, found.opensearch, found.version.as_str()), (None, true, "2.19.0"));
        assert_eq!(of_root(&json!({"error": "no handler", "status": 405})), None);
        let nodes = json!({"cluster_name": "c", "nodes": {"x": {"name": "n", "version": "9.0.0"}}});
        let found = of_nodes(&nodes, &json!({"cluster_uuid": "u"}), false).unwrap();
        assert_eq!((found.cluster.as_deref(), found.version.as_str()), (Some("u"), "9.0.0"));
    }
}
