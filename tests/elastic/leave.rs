//! A cluster grows by a node and lets it go again, while a client writes and reads.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::elastic::lab::Lab;
use crate::support::elastic::tell;
use crate::support::elastic_client::Client;

const EXCLUDE: &str = "cluster.routing.allocation.exclude._name";
const RECOVERIES: &str = "cluster.routing.allocation.node_concurrent_recoveries";

/// Conf that names every hot node, so that it is another one when one comes or goes.
const NAMES: &str = "# {% for node in nodes_with('elasticsearch-hot') %}{{ node.name }} {% endfor %}\n";

/// How many shard copies a node has.
fn copies(lab: &Lab, node: &str) -> usize {
    let all = lab.get("/_cat/shards?format=json&h=node,state");
    let on = |row: &&Value| row["node"].as_str().is_some_and(|name| name.split(' ').next() == Some(node));
    all.as_array().unwrap().iter().filter(on).count()
}

fn members(lab: &Lab) -> Vec<String> {
    let nodes = lab.get("/_nodes?filter_path=nodes.*.name");
    let names = nodes["nodes"].as_object().unwrap().values();
    let mut names: Vec<String> = names.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Whose votes were taken away, and how many have one.
fn votes(lab: &Lab) -> (Value, usize) {
    let state = lab.get("/_cluster/state/metadata?filter_path=metadata.cluster_coordination");
    let found = &state["metadata"]["cluster_coordination"];
    (found["voting_config_exclusions"].clone(), found["last_committed_config"].as_array().unwrap().len())
}

fn quiet(lab: &Lab) {
    lab.get("/_cluster/health?wait_for_status=green&wait_for_no_relocating_shards=true&timeout=25s");
}

fn set(lab: &Lab, name: &str, value: &Value) {
    lab.send("PUT", "/_cluster/settings", &json!({"persistent": {(name): value}}));
}

fn problem(lab: &Lab, args: &[&str]) -> String {
    lab.project.json(args).exits(1).stdout
}

fn pids(lab: &Lab) -> Vec<i32> {
    (0..3).map(|node| lab.pid(node)).collect()
}

#[test]
fn a_node_comes_and_leaves_and_nothing_is_lost_or_left_changed() {
    let Some(mut lab) = Lab::new(&["7.17.0"]) else { return };
    lab.build("7.17.0", NAMES);
    lab.rolls(0, &["promote"]);
    lab.index();

    // It grows: the new node alone is changed.
    let before = pids(&lab);
    lab.grow("hot");
    let plan = lab.project.json(&["plan", "--nodes", "n4"]).ok().json();
    let waves = plan["waves"].as_array().unwrap();
    assert_eq!(
        (waves.len(), &waves[0]["forming"], &waves[0]["nodes"][0]["node"]),
        (1, &false.into(), &"n4".into())
    );
    assert_eq!(plan["left_alone"], json!([{"node": "n1", "role": "elasticsearch-hot"}]), "{plan}");
    let begun = Instant::now();
    let client = Client::start(&lab.nodes(), 0);
    tell("a fourth node", &lab.rolls(0, &["promote", "--nodes", "n4"]), begun.elapsed());
    client.done(&lab.nodes(), "a fourth node");
    assert_eq!(pids(&lab), before, "no other node was restarted");
    assert_eq!(members(&lab), ["n1", "n2", "n3", "n4"]);
    assert_eq!(votes(&lab).1, 3, "an odd number has a vote");
    quiet(&lab);
    lab.until("it has its share", || copies(&lab, "n4") > 0);

    // No shard moves: a controller that waits for that is interrupted, is killed, or times out.
    set(&lab, EXCLUDE, &"elsewhere".into());
    set(&lab, RECOVERIES, &0.into());
    let (settings, toml) = (lab.settings(), lab.project.read("cluster.toml"));
    let excluded = || lab.settings()["persistent"][EXCLUDE] == "elsewhere,n4";
    let as_before = |what: &str| {
        assert_eq!(lab.settings(), settings, "{what}");
        assert_eq!((members(&lab).len(), votes(&lab).0), (4, json!([])), "{what}");
        assert_eq!(lab.project.read("cluster.toml"), toml, "{what}");
    };
    let mut child = lab.project.command(&["leave", "n4"]);
    let said = std::fs::File::create(lab.project.path("said")).unwrap();
    let mut child = child.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
    lab.until("it drains", excluded);
    lab.until("it says how far it is", || lab.project.read("said").contains("shard copies left"));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", lab.project.read("said"));
    as_before("interrupted");
    let killed = lab.spawn(&["leave", "n4"]);
    lab.until("it drains", excluded);
    killed.kill();
    assert!(excluded());
    lab.project.run(&["resume"]).exits(0);
    as_before("killed, and resumed");
    let short = toml.replace("progress_deadline = \"3m\"", "progress_deadline = \"2s\"");
    lab.project.write("cluster.toml", &short);
    let done = lab.rolls(3, &["leave", "n4"]);
    assert!(done["failures"].to_string().contains("no progress for 2s"), "{done}");
    assert_eq!((lab.settings(), lab.project.read("cluster.toml")), (settings, short));
    lab.project.write("cluster.toml", &toml);

    // Now it goes.
    set(&lab, RECOVERIES, &Value::Null);
    let settings = lab.settings();
    let client = Client::start(&lab.nodes(), 1_000_000);
    let begun = Instant::now();
    tell("it leaves", &lab.rolls(0, &["leave", "n4"]), begun.elapsed());
    client.done(&lab.nodes(), "it leaves");
    assert_eq!(members(&lab), ["n1", "n2", "n3"]);
    assert_eq!((lab.settings(), votes(&lab)), (settings, (json!([]), 3)));
    assert!(!lab.project.read("cluster.toml").contains("n4"));
    assert_eq!(pids(&lab), before);
    assert!(lab.project.path("n4/roles/elasticsearch-hot/shared/data").is_dir());

    // What would lose something is refused, by name.
    let refused = problem(&lab, &["leave", "n2"]);
    assert!(refused.contains("last-of-role"), "{refused}");
    assert!(refused.contains("has 2 copies, and 1 nodes with data stay"), "{refused}");
    assert_eq!(lab.settings()["persistent"][EXCLUDE], "elsewhere");
}

/// Three nodes become one: the one without data goes first.
fn shrinks(version: &str) {
    let Some(mut lab) = Lab::new(&[version]) else { return };
    lab.build(version, "");
    lab.rolls(0, &["promote"]);
    lab.index();
    lab.rollout("predicates_off = [\"last-of-role\"]\n");
    let before = lab.settings();
    let client = Client::start(&lab.nodes(), 0);
    let begun = Instant::now();
    tell(
        &format!("{version}: the one without data leaves"),
        &lab.rolls(0, &["leave", "n3"]),
        begun.elapsed(),
    );
    client.done(&lab.nodes(), "the one without data leaves");
    assert_eq!(members(&lab), ["n1", "n2"]);
    assert_eq!(lab.settings(), before);
    let refused = problem(&lab, &["leave", "n2"]);
    assert!(refused.contains("leave-room: ") && refused.contains("index.number_of_replicas"), "{refused}");
    lab.send("PUT", "/_all/_settings", &json!({"index.number_of_replicas": 0}));
    quiet(&lab);
    let (client, begun) = (Client::start(&lab.nodes(), 1_000_000), Instant::now());
    tell(&format!("{version}: one of two leaves"), &lab.rolls(0, &["leave", "n2"]), begun.elapsed());
    client.done(&lab.nodes(), "one of two leaves");
    assert_eq!(members(&lab), ["n1"]);
    if version.starts_with("6.") {
        assert_eq!(lab.settings()["persistent"]["discovery.zen.minimum_master_nodes"], "1");
    } else {
        assert_eq!((lab.settings(), votes(&lab)), (before, (json!([]), 1)));
    }
    let refused = problem(&lab, &["leave", "n1"]);
    assert!(refused.contains("leave-masters: it is the last master-eligible node"), "{refused}");
}

#[test]
#[ignore = "long: three clusters of Elasticsearch that shrink, about 6 min"]
fn long_three_nodes_become_one() {
    for version in ["8.18.0", "7.17.28", "6.7.0"] {
        shrinks(version);
    }
}

#[test]
#[ignore = "long: three nodes of Elasticsearch, one of them dead, about 2 min"]
fn long_a_dead_master_is_forgotten() {
    let Some(mut lab) = Lab::new(&["7.17.28"]) else { return };
    lab.build("7.17.28", "");
    lab.rolls(0, &["promote"]);
    lab.index();
    lab.rollout("predicates_off = [\"last-of-role\"]\n");
    let refused = problem(&lab, &["leave", "n3", "--dead"]);
    assert!(refused.contains("its cluster still has n3"), "{refused}");
    // Its machine is gone, with all that it ran.
    kill_process(Pid::from_raw(lab.pid(2)).unwrap(), Signal::KILL).unwrap();
    lab.project.run(&["service", "stop", "--nodes", "n3"]).exits(0);
    lab.until("its cluster has lost it", || members(&lab) == ["n1", "n2"]);
    let before = lab.settings();
    let begun = Instant::now();
    tell("a dead master", &lab.rolls(0, &["leave", "n3", "--dead"]), begun.elapsed());
    assert!(!lab.project.read("cluster.toml").contains("n3"));
    let (exclusions, voters) = votes(&lab);
    assert_eq!((lab.settings(), exclusions), (before, json!([])));
    assert!(voters < 3, "a dead node has a vote: {voters}");
}

const MAJORITY: &str = "discovery.zen.minimum_master_nodes";

/// Before 7 forgetting a master sets how many are a majority. That is on record before it is set, whatever happens
/// then, and it is right afterwards.
#[test]
#[ignore = "long: three nodes of Elasticsearch, one of them dead, about 2 min"]
fn long_what_forgetting_sets_is_on_record_before() {
    let Some(mut lab) = Lab::new(&["6.7.0"]) else { return };
    lab.build("6.7.0", "");
    lab.rolls(0, &["promote"]);
    lab.index();
    lab.rollout("predicates_off = [\"last-of-role\"]\n");
    kill_process(Pid::from_raw(lab.pid(2)).unwrap(), Signal::KILL).unwrap();
    lab.project.run(&["service", "stop", "--nodes", "n3"]).exits(0);
    lab.until("its cluster has lost it", || members(&lab) == ["n1", "n2"]);
    quiet(&lab);
    // As an operator with a single master sets it.
    set(&lab, MAJORITY, &"1".into());

    // Killed when the intent is on the disk.
    let journal = || {
        let all = lab.project.path("out/rollouts").read_dir().unwrap();
        let last = all.map(|entry| entry.unwrap().path()).max().unwrap();
        std::fs::read_to_string(last.join("journal.jsonl")).unwrap_or_default()
    };
    let child = lab.spawn(&["leave", "n3", "--dead"]);
    let begun = Instant::now();
    while !journal().contains("settings-changing") {
        assert!(begun.elapsed().as_secs() < 120, "never on record: {}", lab.project.read("said"));
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill();
    let said = journal();
    assert!(
        said.contains(MAJORITY) && said.contains("\"prior\":\"1\"") && said.contains("\"value\":\"2\""),
        "{said}"
    );
    assert!(!said.contains("rollout-finished"), "killed too late: {said}");
    let refused = lab.project.run(&["resume"]).exits(2).stderr;
    assert!(refused.contains("`windlass leave n3 --dead` goes on with it"), "{refused}");

    lab.rolls(0, &["leave", "n3", "--dead"]);
    assert!(!lab.project.read("cluster.toml").contains("n3"));
    assert_eq!(lab.settings()["persistent"][MAJORITY], "2");
    // Whatever the first left in a node's journal is looked at, and what is right stays.
    lab.rolls(0, &["promote"]);
    assert_eq!(lab.settings()["persistent"][MAJORITY], "2");
    let status = lab.project.json(&["status"]).ok().json();
    assert_eq!(status["nodes"][0]["roles"][0]["ready"], true, "{status}");
}
