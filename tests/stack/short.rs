//! The short version: the small shape forms, and a change of several roles' conf goes through it node by node.

use crate::clients::Clients;
use crate::lab::{Lab, SMALL};
use std::time::Duration;

use serde_json::{Value, json};

/// Indices with a replica of each shard.
pub(crate) fn indices(lab: &Lab) {
    for name in ["docs", "door"] {
        let body = json!({"settings": {"number_of_shards": 2, "number_of_replicas": 1}});
        lab.elastic().send("PUT", &format!("/{name}"), &body);
    }
    lab.elastic().get("/_cluster/health?wait_for_status=green&timeout=30s");
    let mine = json!({"persistent": {"cluster.routing.allocation.node_concurrent_recoveries": "4"}});
    lab.elastic().send("PUT", "/_cluster/settings", &mine);
}

/// `node role` of each step that was begun, in that order.
pub(crate) fn begun(events: &[Value], step: &str) -> Vec<String> {
    let of_step = |event: &&Value| event["event"] == "step-started" && event["step"] == step;
    let name =
        |event: &Value| format!("{} {}", event["node"].as_str().unwrap(), event["role"].as_str().unwrap());
    events.iter().filter(of_step).map(name).collect()
}

#[test]
fn the_old_stack_forms_and_is_rolled_node_by_node() {
    let Some(lab) = Lab::new(SMALL) else { return };
    lab.project.build();
    let formed = lab.rolls(0, &["promote"]);
    assert_eq!(formed.last().unwrap()["outcome"], "succeeded");
    lab.all_ready(Duration::from_secs(10));
    indices(&lab);
}
