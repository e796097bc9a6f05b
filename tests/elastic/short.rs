//! The short version, for every run of the tests: one upgrade of three nodes, and a controller that is killed.

use std::time::Instant;

use serde_json::{Value, json};

use crate::elastic::lab::Lab;
use crate::support::elastic::tell;
use crate::support::elastic_client::Client;

const ALLOCATION: &str = "cluster.routing.allocation.enable";

#[test]
fn three_nodes_are_upgraded_while_a_client_writes_and_a_killed_controller_leaves_nothing_changed() {
    let Some(lab) = Lab::new(&["6.4.2", "6.7.0"]) else { return };
    let begun = Instant::now();
    lab.build("6.4.2", "");
    let first = lab.rolls(0, &["promote"]);
    tell("6.4.2 forms", &first, begun.elapsed());
    lab.index();
    // What an operator has set comes back as it was, in both scopes.
    let mine = json!({"persistent": {"cluster.routing.allocation.node_concurrent_recoveries": "3"},
        "transient": {ALLOCATION: "all"}});
    lab.send("PUT", "/_cluster/settings", &mine);
    let before = lab.settings();

    lab.build("6.7.0", "");
    let plan = lab.project.json(&["plan"]).ok().json();
    let order: Vec<&str> = plan["waves"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|wave| wave["nodes"].as_array().unwrap())
        .map(|node| {
            assert_eq!(node["point_of_no_return"], true, "{node}");
            node["node"].as_str().unwrap()
        })
        .collect();
    assert_eq!(order.len(), 3);

    // Killed while a setting is changed: the next rollout puts it back before it begins.
    let client = Client::start(&lab.nodes(), 0);
    lab.kill_in_the_middle(&["promote"]);
    assert_ne!(lab.settings(), before);

    let begun = Instant::now();
    let done = lab.rolls(0, &["promote"]);
    assert_eq!(done["outcome"], "succeeded", "{done}");
    tell("6.4.2 to 6.7.0", &done, begun.elapsed());
    client.done(&lab.nodes(), "6.4.2 to 6.7.0");
    assert_eq!(lab.versions(), ["6.7.0"; 3]);
    assert_eq!(lab.settings(), before, "every setting is as it was");

    // There is no way back, and it says so before anything is touched.
    let refused = lab.project.json(&["rollback"]).exits(1).json();
    let error = &refused["error"];
    assert!(error["message"].as_str().unwrap().contains("cannot be read by an older one"), "{refused}");
    assert!(error["help"].to_string().contains("--force"), "{refused}");
    assert_eq!(lab.versions(), ["6.7.0"; 3]);
    let status: Value = lab.project.json(&["status"]).ok().json();
    assert_eq!(status["nodes"][0]["roles"][0]["opened"], "6.7.0");
}
