//! The short version: the small shape forms, and a change of several roles' conf goes through it node by node.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stack::clients::Clients;
use crate::stack::lab::{Lab, SMALL};
use crate::stack::stock::Beats;
use crate::support::old_stack::ORDER;

/// Indices with a replica of each shard.
pub(crate) fn indices(lab: &Lab) {
    for name in ["docs", "door"] {
        let body = json!({"settings": {"number_of_shards": 2, "number_of_replicas": 1}});
        lab.elastic().send("PUT", &format!("/{name}"), &body);
    }
    lab.elastic().get("/_cluster/health?wait_for_status=green&timeout=15s");
    let mine = json!({"persistent": {"cluster.routing.allocation.node_concurrent_recoveries": "4"}});
    lab.elastic().send("PUT", "/_cluster/settings", &mine);
}

/// Daily indices: one that Curator has to delete, and one that it has to keep.
const DAYS: [&str; 2] = ["logs-2020.01.01", "logs-2099.01.01"];

/// Makes the daily indices, as a log shipper does.
pub(crate) fn days(lab: &Lab) {
    for day in DAYS {
        let body = json!({"settings": {"number_of_shards": 1, "number_of_replicas": 1}});
        lab.elastic().send("PUT", &format!("/{day}"), &body);
    }
    lab.elastic().get("/_cluster/health?wait_for_status=green&timeout=15s");
}

/// Vars with which Curator starts at once and deletes old indices.
pub(crate) const DELETES: &str =
    "curator_at = \"00:00\"\ncurator_warm_days = 0\ncurator_delete_days = 30\nelastalert_every_minutes = 2";

/// Curator has deleted the old index and no other; `ElastAlert` has run its rule and written so into its own index.
pub(crate) fn assert_tasks_ran(lab: &Lab) {
    let until = Instant::now() + Duration::from_mins(2);
    let days = || lab.elastic().get("/_cat/indices/logs-*?h=index&format=json");
    let ran = || {
        let path = "/elastalert_status_status/_search?q=rule_name:%22no%20logs%20arrive%22&size=1";
        lab.elastic().get(path)["hits"]["total"].as_u64().unwrap_or(0)
    };
    while days() != json!([{"index": DAYS[1]}]) || ran() == 0 {
        if Instant::now() >= until {
            lab.logs();
            panic!("Curator left {}; ElastAlert has run its rule {} times", days(), ran());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `node role` of each step that was begun, in that order.
pub(crate) fn begun(events: &[Value], step: &str) -> Vec<String> {
    let of_step = |event: &&Value| event["event"] == "step-started" && event["step"] == step;
    let name =
        |event: &Value| format!("{} {}", event["node"].as_str().unwrap(), event["role"].as_str().unwrap());
    events.iter().filter(of_step).map(name).collect()
}

/// The order in which roles go is kept on every node, and a node is done before the next one begins.
pub(crate) fn assert_by_node(stopped: &[String]) {
    let mut nodes: Vec<&str> = stopped.iter().map(|one| one.split(' ').next().unwrap()).collect();
    for pair in stopped.windows(2) {
        let [(node, role), (next, after)] = [0, 1].map(|at| pair[at].split_once(' ').unwrap());
        let place = |role| ORDER.iter().position(|one| *one == role);
        assert!(node != next || place(role) < place(after), "{stopped:?}");
    }
    nodes.dedup();
    let each: BTreeSet<&str> = nodes.iter().copied().collect();
    assert_eq!(nodes.len(), each.len(), "a node was come back to: {stopped:?}");
}

#[test]
fn the_old_stack_forms_and_is_rolled_node_by_node() {
    let Some(lab) = Lab::new(SMALL, Beats::StandIns) else { return };
    lab.project.build();
    let formed = lab.rolls(0, &["promote"]);
    assert_eq!(formed.last().unwrap()["outcome"], "succeeded");
    lab.all_ready(Duration::from_mins(2));
    indices(&lab);
    days(&lab);
    let before = lab.elastic().get("/_cluster/settings?flat_settings=true");

    // Conf of one tier, of Redis, of nginx and of what runs now and then: all of a node goes in one go.
    let vars = "warm_heap = \"260m\"\nredis_maxmemory = \"900mb\"\nnginx_server_name = \"old\"\n";
    lab.cluster("node", &format!("{vars}{DELETES}"));
    let clients = Clients::start(&lab, 0);
    let events = lab.rolls(0, &["promote"]);
    clients.done(&lab, "by node");
    let stopped = begun(&events, "stop");
    assert_by_node(&stopped);
    assert_eq!(stopped.len(), 5, "{stopped:?}");
    let tasks: Vec<&String> = stopped.iter().filter(|one| one.starts_with("es4 ")).collect();
    assert_eq!(tasks, ["es4 elastalert", "es4 curator"], "{stopped:?}");
    assert_tasks_ran(&lab);
    assert_eq!(begun(&events, "reload").len(), 2, "nginx is reloaded, and does not stop");
    assert_eq!(lab.elastic().get("/_cluster/settings?flat_settings=true"), before);
}
