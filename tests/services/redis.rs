//! Redis: a primary and two replicas of Debian's programs, started by the stock recipe's script, and a client whose
//! writes are confirmed by WAIT.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::services::lab::{Lab, nodes_of};
use crate::support::project::{file, have};
use crate::support::redis::{self, Client, program, write};

const PASSWORD: &str = "correct-horse";

const RECIPE: &str = r#"schema = 1
version = "{{ versions.redis }}-{{ build }}"

[[unpack]]
artifact = "redis-{{ versions.redis }}.tar.gz"
into = "redis"

[[conf]]
from = "redis"
into = "redis/conf"
render = ["redis.conf", "peers"]

[[persist]]
name = "data"

[service]
kind = "redis"
start = ["redis/conf/start"]
stop = { signal = "TERM", timeout = "20s" }

[service.api]
port = "{{ vars.redis_port }}"
user = "default"
password = "pw"

[service.ready]
tcp = "{{ vars.redis_port }}"
within = "30s"
"#;

const CONF: &str = r#"bind 127.0.0.1
port {{ vars.redis_port }}
requirepass {{ secret("pw") | tojson }}
masterauth {{ secret("pw") | tojson }}
dir "{{ shared }}/data"
appendonly yes
save ""
repl-diskless-sync yes
repl-diskless-sync-delay 0
"#;

const PEERS: &str = r#"{%- for n in nodes_with("redis") %}
{%- if n.name == node.name %}{% if loop.first %}first
{% endif %}{% else %}{{ n.address }} {{ n.vars.redis_port }}
{% endif %}
{%- endfor %}
"#;

/// Always the same, whoever is master: what somebody's conf may do.
const NAIVE: &str = r#"#!/bin/sh
here=$(dirname "$0")
if [ "$(head -n 1 "$here/peers")" = first ]; then exec "$here/../bin/redis-server" "$here/redis.conf"; fi
exec "$here/../bin/redis-server" "$here/redis.conf" --replicaof $(head -n 1 "$here/peers")
"#;

fn lab(count: usize, start: &str) -> Option<Lab> {
    if !have("redis-server") || !have("redis-cli") {
        return None;
    }
    let server = program("redis-server");
    let lab = Lab::new("redis", count, &["redis"]);
    let project = &lab.project;
    for version in ["7.0", "7.1"] {
        let members = [
            file(&format!("redis-{version}/bin/redis-server"), 0o755, server.clone()),
            file(&format!("redis-{version}/bin/redis-cli"), 0o755, program("redis-cli")),
            file(&format!("redis-{version}/VERSION"), 0o644, version),
        ];
        project.artifact(&format!("redis-{version}.tar.gz"), &members);
    }
    project.write("windlass.toml", "schema = 1\nname = \"lab\"\n[versions]\nredis = \"7.0\"\n");
    project.write("recipes/redis.toml", RECIPE);
    project.write("conf/redis/redis.conf", CONF);
    project.write("conf/redis/peers", PEERS);
    project.write("conf/redis/start", start);
    project.mode("conf/redis/start", 0o755);
    lab.cluster("", SECRETS);
    Some(lab)
}

const SECRETS: &str = "[secrets]\npw = { file = \"pw\" }\n";

fn stock() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/redis/start");
    fs::read_to_string(path).unwrap()
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn servers(lab: &Lab) -> Vec<SocketAddr> {
    lab.ports_of("redis").into_iter().map(at).collect()
}

fn field(port: u16, name: &str) -> String {
    redis::field(at(port), Some(PASSWORD), name)
}

fn connect(port: u16) -> Client {
    Client::connect(at(port), Some(PASSWORD)).unwrap()
}

fn master(lab: &Lab) -> String {
    let found: Vec<&String> =
        lab.ports.keys().filter(|node| field(lab.port(node, "redis"), "role") == "master").collect();
    assert_eq!(found.len(), 1, "{found:?} are masters");
    found[0].clone()
}

#[test]
fn the_primary_hands_over_and_nothing_confirmed_is_lost() {
    let Some(lab) = lab(3, &stock()) else { return };
    lab.project.write("pw", PASSWORD);
    lab.project.build();
    lab.rollout(0, &["promote"]);
    let primary = master(&lab);
    assert_eq!(primary, "n1");

    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, ports) = (Arc::clone(&stop), servers(&lab));
        std::thread::spawn(move || write(&ports, Some(PASSWORD), &stop, Duration::ZERO))
    };
    lab.project.run(&["set", "redis", "7.1"]).ok();
    lab.project.build();
    let events = lab.rollout(0, &["promote"]);
    stop.store(true, Ordering::Relaxed);
    let (confirmed, gap) = writer.join().unwrap();
    assert_eq!(events.last().unwrap()["outcome"], "succeeded");
    let stopped = nodes_of(&events, "stop");
    assert_eq!((stopped.len(), stopped.last()), (3, Some(&primary)), "{stopped:?}");
    assert!(!format!("{events:?}").contains(PASSWORD));

    // Another one leads now, and everybody follows that one.
    let new = master(&lab);
    assert_ne!(new, primary);
    let port = lab.port(&new, "redis");
    assert_eq!(field(port, "connected_slaves"), "2");
    for node in lab.ports.keys().filter(|node| **node != new) {
        assert_eq!(field(lab.port(node, "redis"), "master_port"), port.to_string());
    }
    println!("{} confirmed writes, longest pause {} ms", confirmed.len(), gap.as_millis());
    assert!(confirmed.len() > 50, "{}", confirmed.len());
    let mut client = connect(port);
    let lost: Vec<&String> =
        confirmed.iter().filter(|key| client.ask(&["EXISTS", key]).unwrap() != "1").collect();
    assert!(lost.is_empty(), "lost: {lost:?}");

    // It is not the list's first any more: restarted without another word, it is what the others wait for.
    leads_again(&lab, &new, "2");
}

/// Restarts the primary, which is the primary again and has its replicas.
fn leads_again(lab: &Lab, node: &str, replicas: &str) {
    lab.project.run(&["service", "restart", "--nodes", node]).ok();
    let port = lab.port(node, "redis");
    let until = Instant::now() + Duration::from_secs(20);
    while field(port, "connected_slaves") != replicas {
        assert!(Instant::now() < until, "nobody leads: {node} says {}", field(port, "role"));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(master(lab), node);
}

#[test]
fn a_primary_that_comes_back_as_one_follows_the_new_one() {
    let Some(lab) = lab(2, NAIVE) else { return };
    lab.project.write("pw", PASSWORD);
    lab.project.build();
    lab.rollout(0, &["promote"]);
    let mut client = connect(lab.port("n1", "redis"));
    client.ask(&["SET", "kept", "yes"]).unwrap();

    // Nobody could take over: nothing is touched.
    lab.project.run(&["service", "stop", "--nodes", "n2"]).ok();
    lab.cluster("gate_timeout = \"3s\"\n", SECRETS);
    lab.project.run(&["set", "redis", "7.1"]).ok();
    lab.project.build();
    let run = lab.project.run(&["promote", "--nodes", "n1"]).exits(1);
    assert!(run.stderr.contains("may not be stopped now"), "{}", run.stderr);
    assert!(!run.stderr.contains(PASSWORD) && !run.stdout.contains(PASSWORD));
    assert_eq!(field(lab.port("n1", "redis"), "role"), "master");

    lab.project.run(&["service", "start", "--nodes", "n2"]).ok();
    lab.cluster("", SECRETS);
    lab.rollout(0, &["promote"]);
    assert_eq!(master(&lab), "n2");
    assert_eq!(field(lab.port("n1", "redis"), "master_link_status"), "up");
    let mut client = connect(lab.port("n1", "redis"));
    assert_eq!(client.ask(&["GET", "kept"]).unwrap(), "yes");
}

#[test]
fn without_a_password_it_says_what_is_missing() {
    let Some(lab) = lab(1, &stock()) else { return };
    lab.project.write("pw", PASSWORD);
    lab.project.edit("recipes/redis.toml", "user = \"default\"\npassword = \"pw\"\n", "");
    lab.cluster("gate_timeout = \"2s\"\n", SECRETS);
    lab.project.build();
    let run = lab.project.run(&["promote"]).exits(3);
    assert!(
        run.stderr.contains("Redis on port") && run.stderr.contains("it wants a password"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains(PASSWORD), "a secret is shown");
}

#[test]
fn a_primary_that_leaves_hands_over_first() {
    let Some(lab) = lab(3, &stock()) else { return };
    lab.project.write("pw", PASSWORD);
    lab.project.build();
    lab.rollout(0, &["promote"]);
    let primary = master(&lab);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, servers) = (Arc::clone(&stop), servers(&lab));
        std::thread::spawn(move || write(&servers, Some(PASSWORD), &stop, Duration::ZERO))
    };
    std::thread::sleep(Duration::from_millis(300));
    let events = lab.rollout(0, &["leave", &primary]);
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let (confirmed, gap) = writer.join().unwrap();
    assert_eq!(events.last().unwrap()["outcome"], "succeeded");
    assert!(!lab.project.read("cluster.toml").contains(&format!("[nodes.{primary}]")));
    let new = master(&lab);
    assert_ne!(new, primary);
    println!("{} confirmed writes, the longest pause {} ms", confirmed.len(), gap.as_millis());
    let mut client = connect(lab.port(&new, "redis"));
    let lost: Vec<&String> =
        confirmed.iter().filter(|key| client.ask(&["EXISTS", key]).unwrap() != "1").collect();
    assert!(confirmed.len() > 10 && lost.is_empty(), "lost: {lost:?}");
    // Two are left: a replica may go, and then nobody could take over.
    let replica = lab.ports.keys().find(|node| **node != new && **node != primary).unwrap();
    lab.rollout(0, &["leave", replica]);
    let refused = lab.project.run(&["leave", &new]).exits(1);
    assert!(refused.stderr.contains("nobody can take over its data"), "{}", refused.stderr);
    assert_eq!(field(lab.port(&new, "redis"), "role"), "master");
}

/// A replica that says it is elsewhere, as one behind another address does without meaning to.
fn astray() -> Option<Lab> {
    let lab = lab(2, &stock())?;
    lab.project.write("pw", PASSWORD);
    let conf = lab.project.read("conf/redis/redis.conf");
    lab.project.write("conf/redis/redis.conf", &format!("{conf}replica-announce-ip 127.0.0.9\n"));
    lab.project.build();
    lab.rollout(0, &["promote"]);
    lab.project.run(&["set", "redis", "7.1"]).ok();
    lab.project.build();
    Some(lab)
}

#[test]
fn nobody_hands_over_to_an_address_that_no_node_has() {
    let Some(lab) = astray() else { return };
    // Its replica names it by another address than it announces: it does not follow itself.
    leads_again(&lab, "n1", "1");
    let run = lab.project.run(&["promote", "--nodes", "n1"]).exits(3);
    assert!(
        run.stderr.contains("sees its replica at 127.0.0.9") && run.stderr.contains("replica-announce-ip")
    );
    assert_eq!(master(&lab), "n1");
    connect(lab.port("n1", "redis")).ask(&["SET", "kept", "yes"]).unwrap();
}

#[test]
fn a_failover_that_does_not_end_is_given_up_and_writes_go_on() {
    let Some(lab) = astray() else { return };
    // Names are not compared with addresses, so that it is tried.
    lab.cluster("gate_timeout = \"3s\"\n", SECRETS);
    lab.project.edit("cluster.toml", "address = \"127.0.0.1\"", "address = \"localhost\"");
    let run = lab.project.run(&["promote", "--nodes", "n1"]).exits(3);
    assert!(run.stderr.contains("failover-in-progress"), "{}", run.stderr);
    assert_eq!(master(&lab), "n1");
    connect(lab.port("n1", "redis")).ask(&["SET", "kept", "yes"]).unwrap();
}
