//! What a live Elasticsearch says, asked of the first of its nodes that answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::adapters::{AdapterError, Instance, elastic_get};
use crate::check::{Live, LiveIndex, LiveNode};
use crate::recipe::OrTemplate;

/// Settings of indices that lints read.
const INDICES: &str = "/_all/_settings/index.number_of_*,index.auto_expand_replicas,index.store.type,\
                       index.routing.allocation.*?flat_settings=true&expand_wildcards=open&allow_no_indices=true";

/// Asks a node about its cluster, as its adapter would; one that names no port of its own is asked at `port`.
pub(super) async fn ask(mut node: Instance<'_>, port: u16) -> Result<Live, AdapterError> {
    node.api.port.get_or_insert(OrTemplate::Value(port));
    // Without a master this fails, so that what is known is known of a cluster.
    let settings = elastic_get(&node, "/_cluster/settings?flat_settings=true").await?;
    let (nodes, disks, indices) = futures_util::future::try_join3(
        elastic_get(&node, "/_nodes/os?filter_path=nodes.*.name,nodes.*.ip,nodes.*.host,nodes.*.attributes"),
        elastic_get(&node, "/_cat/allocation?format=json&h=node,disk.percent"),
        elastic_get(&node, INDICES),
    )
    .await?;
    Ok(Live {
        asked: node.node.to_string(),
        nodes: live_nodes(&nodes, &disks),
        settings: flat(&[&settings["persistent"], &settings["transient"]]),
        indices: live_indices(&indices),
    })
}

/// Settings in flat form; the later win.
fn flat(objects: &[&Value]) -> BTreeMap<String, String> {
    let pairs = objects.iter().filter_map(|object| object.as_object()).flatten();
    pairs.map(|(key, value)| (key.clone(), text(value))).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn live_nodes(nodes: &Value, disks: &Value) -> Vec<LiveNode> {
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let used = |name: &str| {
        let row = disks.as_array()?.iter().find(|row| row["node"] == *name)?;
        row["disk.percent"].as_str()?.parse().ok()
    };
    let nodes = nodes["nodes"].as_object().into_iter().flatten();
    nodes
        .map(|(id, node)| LiveNode {
            name: string(&node["name"]),
            id: id.clone(),
            ip: string(&node["ip"]),
            host: string(&node["host"]),
            disk_used: node["name"].as_str().and_then(used),
            attributes: flat(&[&node["attributes"]]),
        })
        .collect()
}

fn live_indices(indices: &Value) -> Vec<LiveIndex> {
    let indices = indices.as_object().into_iter().flatten();
    let index = |(name, value): (&String, &Value)| {
        let settings = flat(&[&value["settings"]]);
        let settings: BTreeMap<String, String> = settings
            .into_iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("index.")?.to_owned(), value)))
            .collect();
        let number = |key: &str, usual| settings.get(key).and_then(|text| text.parse().ok()).unwrap_or(usual);
        LiveIndex {
            name: name.clone(),
            primaries: number("number_of_shards", 1),
            replicas: number("number_of_replicas", 1),
            settings,
        }
    };
    indices.map(index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_become_what_lints_read() {
        let nodes = json!({ "nodes": { "id1": { "name": "es1", "ip": "10.0.0.1", "host": "es1", "attributes": { "zone": "a" } } } });
        let disks =
            json!([{ "node": "es1", "disk.percent": "42" }, { "node": "UNASSIGNED", "disk.percent": null }]);
        let node = &live_nodes(&nodes, &disks)[0];
        assert_eq!((node.id.as_str(), node.disk_used, &*node.attributes["zone"]), ("id1", Some(42.0), "a"));
        let indices = json!({ "logs": { "settings": { "index.number_of_shards": "3", "index.number_of_replicas": "0" } } });
        let index = &live_indices(&indices)[0];
        assert_eq!((index.primaries, index.replicas), (3, 0));
        let settings = flat(&[&json!({ "a": "1", "b": ["x", "y"] }), &json!({ "a": "2" })]);
        assert_eq!((&*settings["a"], &*settings["b"]), ("2", "x,y"));
    }
}
