//! The long campaign: `tests/run --long 'test(/^stack::long::/)'` or, to see its figures,
//! `cargo test --test servers stack::long -- --ignored --nocapture --test-threads=1`.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stack::clients::Clients;
use crate::stack::lab::Lab;
use crate::stack::short::{DELETES, assert_by_node, assert_tasks_ran, begun, days, indices};
use crate::stack::stock::{BEATS, Beats, has_beat};
use crate::support::kafka;
use crate::support::old_stack::{ORDER, WHOLE};

fn place(role: &str) -> usize {
    ORDER.iter().position(|one| *one == role).unwrap()
}

/// Rolls while clients work, and looks whether everything is as it was after.
fn rolled(lab: &Lab, code: i32, what: &str, first: &mut u64) -> Vec<Value> {
    let settings = || lab.elastic().get("/_cluster/settings?flat_settings=true");
    let before = settings();
    let clients = Clients::start(lab, *first);
    *first += 1_000_000;
    let begun = Instant::now();
    let events = lab.rolls(code, &["promote"]);
    let took = begun.elapsed();
    let last = events.last().unwrap();
    let nodes = last["nodes"].as_array().unwrap();
    let tool: u64 =
        nodes.iter().map(|node| node["tool_downtime_ms"].as_u64().unwrap_or(0)).max().unwrap_or(0);
    println!(
        "{what}: {} roles of nodes in {:.1} s, the tool's own downtime at most {tool} ms",
        nodes.len(),
        took.as_secs_f64()
    );
    clients.done(lab, what);
    assert_eq!(settings(), before, "{what}: settings are back");
    lab.all_ready(Duration::from_mins(3));
    events
}

/// At no time was more than one of a role's instances down, nor one that shares its node with another of its kind.
fn assert_one_at_a_time(events: &[Value]) {
    let mut down: Vec<(String, String)> = Vec::new();
    for event in events {
        let at = || (event["node"].as_str().unwrap().to_owned(), event["role"].as_str().unwrap().to_owned());
        match (event["event"].as_str(), event["step"].as_str()) {
            (Some("step-started"), Some("stop")) => {
                let (node, role) = at();
                let kind = |role: &str| role.split('-').next().unwrap().to_owned();
                let same = down.iter().any(|(_, other)| kind(other) == kind(&role));
                assert!(!same, "{role} of {node} goes down while {down:?} are");
                down.push((node, role));
            }
            (Some("step-done"), Some("ready")) => down.retain(|one| *one != at()),
            _ => {}
        }
    }
    assert!(down.is_empty(), "{down:?}");
}

/// When a node's roles were stopped last, in that order.
fn stops(lab: &Lab, node: usize) -> Vec<String> {
    let mut stops: Vec<(String, String)> = Vec::new();
    for role in lab.shape[node - 1].1 {
        let journal = lab.project.read(&format!("es{node}/roles/{role}/journal.jsonl"));
        let mut entries = journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let stop = entries.rfind(|entry| entry.to_string().contains("windlass service stop")).unwrap();
        stops.push((stop["time"].as_str().unwrap().to_owned(), (*role).to_owned()));
    }
    stops.sort();
    stops.into_iter().map(|(_, role)| role).collect()
}

/// The beats themselves send to Kafka: what the services of their node log, what these measure, and who is up.
fn beats_arrive(lab: &Lab) {
    let Some(jars) = kafka::jars() else { return };
    let servers: Vec<String> = lab.at("kafka", 9092).iter().map(ToString::to_string).collect();
    let servers = servers.join(",");
    kafka::make_topic(&jars, &servers, "beats", "3");
    let version = format!("\"version\":\"{BEATS}\"");
    let all = [
        ("filebeat", ["\"service\":\"elasticsearch-hot\"", "\"message\":"]),
        ("metricbeat", ["\"dataset\":\"zookeeper.mntr\"", "\"mntr\":{"]),
        ("heartbeat", ["\"name\":\"elasticsearch-hot\"", "\"status\":\"up\""]),
    ];
    for (beat, wanted) in all.into_iter().filter(|(beat, _)| has_beat(beat)) {
        let is_one =
            |record: &str| record.contains(&version) && wanted.iter().all(|part| record.contains(part));
        let begun = Instant::now();
        let ends = |record: &str| is_one(record) || begun.elapsed() > Duration::from_mins(5);
        let records = kafka::read(&jars, &servers, None, "beats", ends);
        let of_it = records.iter().filter(|record| record.contains(&format!("\"type\":\"{beat}\"")));
        let last: Vec<&String> = of_it.rev().take(3).collect();
        assert!(
            records.iter().any(|record| is_one(record)),
            "{} records, of {beat} at last {last:#?}",
            records.len()
        );
        println!("{beat}'s records are in Kafka after {:.1} s", begun.elapsed().as_secs_f64());
    }
}

#[test]
#[ignore = "long: builds three beats from source the first time; the whole stack in eight rollouts, about 25 min"]
fn long_the_whole_old_stack() {
    let Some(lab) = Lab::new(WHOLE, Beats::Real) else { return };
    let mut first = 0;
    lab.project.build();
    let formed = lab.rolls(0, &["promote"]);
    println!("forms: {} roles of nodes", formed.last().unwrap()["nodes"].as_array().unwrap().len());
    lab.all_ready(Duration::from_mins(3));
    indices(&lab);
    days(&lab);
    beats_arrive(&lab);

    // Conf of several roles, one role after the other; Curator and ElastAlert among them.
    lab.cluster("role", DELETES);
    lab.change(&["elasticsearch/elasticsearch.yml", "redis/redis.conf", "kibana/kibana.yml"], "by role");
    let events = rolled(&lab, 0, "by role", &mut first);
    let stopped = begun(&events, "stop");
    let roles: Vec<usize> = stopped.iter().map(|one| place(one.split(' ').nth(1).unwrap())).collect();
    assert!(roles.is_sorted(), "{stopped:?}");
    assert_one_at_a_time(&events);
    assert_tasks_ran(&lab);

    // All of a node in one go.
    lab.cluster("node", "");
    lab.change(
        &["elasticsearch/elasticsearch.yml", "zookeeper/zoo.cfg", "kafka/server.properties"],
        "by node",
    );
    let events = rolled(&lab, 0, "by node", &mut first);
    assert_by_node(&begun(&events, "stop"));
    assert_one_at_a_time(&events);

    // One role's conf is broken: that role is rolled back, and no other is touched.
    let good = lab.project.read("conf/redis/redis.conf");
    lab.change(&["redis/redis.conf"], "\nno-such-word yes");
    let events = rolled(&lab, 3, "a broken Redis", &mut first);
    assert!(begun(&events, "stop").iter().all(|one| one.ends_with(" redis")));
    lab.project.write("conf/redis/redis.conf", &good);
    lab.project.build();
    rolled(&lab, 0, "and forward again", &mut first);

    // A heap that no JVM takes: one tier's release, good everywhere else.
    lab.cluster("node", "warm_heap = \"1x\"");
    let events = rolled(&lab, 3, "a broken warm tier", &mut first);
    assert!(begun(&events, "stop").iter().all(|one| one.ends_with(" elasticsearch-warm")));
    lab.cluster("role", "");
    let plan = lab.project.json(&["plan"]).ok().json();
    assert_eq!(plan["waves"], serde_json::json!([]), "{plan}");
    let history = lab.project.json(&["history"]).ok().stdout;
    assert!(
        history.matches("rolled-back").count() >= 2 && history.matches("succeeded").count() >= 4,
        "{history}"
    );
}

/// Services are stopped and started by hand in the order of `[rollout] order`, and a node boots after a power cut.
#[test]
#[ignore = "long: the whole stack stopped and started twice, about 15 min"]
fn long_services_by_hand_and_a_node_that_boots() {
    let Some(lab) = Lab::new(WHOLE, Beats::Real) else { return };
    lab.project.build();
    lab.rolls(0, &["promote"]);
    indices(&lab);
    Clients::start(&lab, 0).done(&lab, "before");
    // The Redis that leads is not the first of the list any more.
    lab.project.run(&["restart", "--role", "redis"]).ok();

    // A node is stopped and started, what needs others first; then everything.
    let documents = || lab.elastic().get("/docs,door/_count")["count"].clone();
    lab.elastic().send("POST", "/_refresh", &Value::Null);
    let before = documents();
    for nodes in [&["--nodes", "es2"][..], &[]] {
        let begun = Instant::now();
        lab.project.run(&[&["service", "stop"][..], nodes].concat()).ok();
        let stopped = stops(&lab, 2);
        assert!(stopped.iter().rev().map(|role| place(role)).is_sorted(), "{stopped:?}");
        let down = lab.processes().into_values().filter(|(state, _)| state == "stopped").count();
        lab.project.run(&[&["service", "start"][..], nodes].concat()).ok();
        lab.all_ready(Duration::from_mins(3));
        println!(
            "service stop and start {nodes:?}: {down} services, ready again after {:.1} s",
            begun.elapsed().as_secs_f64()
        );
    }
    lab.elastic().get("/_cluster/health?wait_for_status=green&timeout=15s");
    assert_eq!(documents(), before);

    // A node loses its power and boots, without a word to its peers.
    let clients = Clients::start(&lab, 1_000_000);
    let pids = lab.processes().into_iter().filter(|(name, _)| name.starts_with("es3 "));
    for (name, (_, pid)) in pids {
        kill_process(Pid::from_raw(pid.unwrap()).unwrap(), Signal::KILL)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let begun = Instant::now();
    lab.project.run(&["service", "start", "--nodes", "es3"]).ok();
    lab.all_ready(Duration::from_mins(3));
    println!("es3 boots: ready after {:.1} s", begun.elapsed().as_secs_f64());
    lab.elastic().get("/_cluster/health?wait_for_status=green&timeout=15s");
    clients.done(&lab, "a node boots");
    let plan = lab.project.json(&["plan"]).ok().json();
    assert_eq!(plan["waves"], serde_json::json!([]), "{plan}");
}
