//! Redis: a primary and two replicas of Debian's programs, started by the stock recipe's script, and a client whose
//! writes are confirmed by WAIT.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::services::lab::{Lab, nodes_of};
use crate::support::project::{file, have};
use crate::support::redis::{self, Client, Confirmed, Writer, program};

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

const CONF: &str = r#"bind {{ node.address }}
port {{ vars.redis_port }}
requirepass {{ secret("pw") | tojson }}
masterauth {{ secret("pw") | tojson }}
dir "{{ shared }}/data"
appendonly yes
save ""
replica-announce-ip {{ node.address }}
repl-diskless-sync yes
repl-diskless-sync-delay 0
"#;

const PEERS: &str = r#"{%- for n in nodes_with("redis") %}
{%- if n.name == node.name %}{% if loop.first %}first
{% endif %}{% else %}{{ n.address }} {{ n.vars.redis_port }}
{% endif %}
{%- endfor %}
"#;

/// Always starts the same way, whichever node is master, as an operator's own script may.
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
    let lab = Lab::new("redis", count, &[("redis", 6379)]);
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

fn at(lab: &Lab, node: &str) -> SocketAddr {
    lab.at(node, "redis")
}

fn field(lab: &Lab, node: &str, name: &str) -> String {
    redis::field(at(lab, node), Some(PASSWORD), name)
}

fn connect(lab: &Lab, node: &str) -> Client {
    Client::connect(at(lab, node), Some(PASSWORD)).unwrap()
}

fn master(lab: &Lab) -> String {
    let found: Vec<&String> = lab.nodes.iter().filter(|node| field(lab, node, "role") == "master").collect();
    assert_eq!(found.len(), 1, "{found:?} are masters");
    found[0].clone()
}

/// A client that has written.
fn writer(lab: &Lab) -> Writer {
    let writer = redis::writer(lab.all("redis"), Some(PASSWORD), Duration::from_millis(1));
    writer.goes_on(10, 10);
    writer
}

/// Ends a client once it has written some more: every confirmed write has to be on that node.
fn assert_nothing_lost(writer: Writer, lab: &Lab, node: &str) {
    writer.goes_on(10, 51);
    let Confirmed { keys, gap } = writer.stop();
    println!("{} confirmed writes, longest pause {} ms", keys.len(), gap.as_millis());
    let mut client = connect(lab, node);
    let lost: Vec<&String> = keys.iter().filter(|key| client.ask(&["EXISTS", key]).unwrap() != "1").collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

#[test]
fn the_primary_hands_over_and_nothing_confirmed_is_lost() {
    let Some(lab) = lab(3, &stock()) else { return };
    lab.project.write("pw", PASSWORD);
    lab.project.build();
    lab.rollout(0, &["promote"]);
    let primary = master(&lab);
    assert_eq!(primary, "n1");

    let writer = writer(&lab);
    lab.project.run(&["set", "redis", "7.1"]).ok();
    lab.project.build();
    let events = lab.rollout(0, &["promote"]);
    assert_eq!(events.last().unwrap()["outcome"], "succeeded");
    let stopped = nodes_of(&events, "stop");
    assert_eq!((stopped.len(), stopped.last()), (3, Some(&primary)), "{stopped:?}");
    assert!(!format!("{events:?}").contains(PASSWORD));

    // Another node is the master, and the others follow it.
    let new = master(&lab);
    assert_ne!(new, primary);
    assert_nothing_lost(writer, &lab, &new);
    assert_eq!(field(&lab, &new, "connected_slaves"), "2");
    let follows = |node| (field(&lab, node, "master_host"), field(&lab, node, "master_port"));
    let expected = (at(&lab, &new).ip().to_string(), at(&lab, &new).port().to_string());
    for node in lab.nodes.iter().filter(|node| **node != new) {
        assert_eq!(follows(node), expected);
    }

    // The master is not the list's first node: after a restart of its service the replicas still wait for it.
    leads_again(&lab, &new, "2");
}

/// Restarts the primary's service: it has to become the primary again and to have its replicas.
fn leads_again(lab: &Lab, node: &str, replicas: &str) {
    lab.project.run(&["service", "restart", "--nodes", node]).ok();
    let until = Instant::now() + Duration::from_mins(2);
    while field(lab, node, "connected_slaves") != replicas {
        assert!(Instant::now() < until, "no master: {node} is {}", field(lab, node, "role"));
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
    let mut client = connect(&lab, "n1");
    client.ask(&["SET", "kept", "yes"]).unwrap();

    // No node could take over: nothing is touched.
    lab.project.run(&["service", "stop", "--nodes", "n2"]).ok();
    lab.cluster("gate_timeout = \"3s\"\n", SECRETS);
    lab.project.run(&["set", "redis", "7.1"]).ok();
    lab.project.build();
    let run = lab.project.run(&["promote", "--nodes", "n1"]).exits(1);
    assert!(run.stderr.contains("may not be stopped now"), "{}", run.stderr);
    assert!(!run.stderr.contains(PASSWORD) && !run.stdout.contains(PASSWORD));
    assert_eq!(field(&lab, "n1", "role"), "master");

    lab.project.run(&["service", "start", "--nodes", "n2"]).ok();
    lab.cluster("", SECRETS);
    lab.rollout(0, &["promote"]);
    assert_eq!(master(&lab), "n2");
    assert_eq!(field(&lab, "n1", "master_link_status"), "up");
    let mut client = connect(&lab, "n1");
    assert_eq!(client.ask(&["GET", "kept"]).unwrap(), "yes");
}

#[test]
fn without_a_password_it_says_what_is_missing() {
    let Some(lab) = lab(1, &stock()) else { return };
    lab.project.write("pw", PASSWORD);
    lab.project.edit("recipes/redis.toml", "user = \"default\"\npassword = \"pw\"\n", "");
    // As long as Redis may take to start on a busy machine.
    lab.cluster("gate_timeout = \"8s\"\n", SECRETS);
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
    let writer = writer(&lab);
    let events = lab.rollout(0, &["leave", &primary]);
    assert_eq!(events.last().unwrap()["outcome"], "succeeded");
    assert!(!lab.project.read("cluster.toml").contains(&format!("[nodes.{primary}]")));
    let new = master(&lab);
    assert_ne!(new, primary);
    assert_nothing_lost(writer, &lab, &new);
    // Two nodes are left: the replica may leave, and then no node could take over.
    let replica = lab.nodes.iter().find(|node| **node != new && **node != primary).unwrap();
    lab.rollout(0, &["leave", replica]);
    let refused = lab.project.run(&["leave", &new]).exits(1);
    assert!(refused.stderr.contains("nobody can take over its data"), "{}", refused.stderr);
    assert_eq!(field(&lab, &new, "role"), "master");
}

/// Two nodes that announce an address that no node has, as a server behind another address may by mistake.
fn astray() -> Option<Lab> {
    let lab = lab(2, &stock())?;
    lab.project.write("pw", PASSWORD);
    let elsewhere = format!("announce-ip {}\n", lab.net.ip(9));
    lab.project.edit("conf/redis/redis.conf", "announce-ip {{ node.address }}\n", &elsewhere);
    lab.project.build();
    lab.rollout(0, &["promote"]);
    lab.project.run(&["set", "redis", "7.1"]).ok();
    lab.project.build();
    Some(lab)
}

#[test]
fn nobody_hands_over_to_an_address_that_no_node_has() {
    let Some(lab) = astray() else { return };
    // Its replica follows another address than the master announces: the master must not follow itself.
    leads_again(&lab, "n1", "1");
    let run = lab.project.run(&["promote", "--nodes", "n1"]).exits(3);
    let sees = format!("sees its replica at {}", lab.net.ip(9));
    assert!(run.stderr.contains(&sees) && run.stderr.contains("replica-announce-ip"), "{}", run.stderr);
    assert_eq!(master(&lab), "n1");
    connect(&lab, "n1").ask(&["SET", "kept", "yes"]).unwrap();
}

#[test]
fn a_failover_that_does_not_end_is_given_up_and_writes_go_on() {
    let Some(lab) = astray() else { return };
    // Names are not compared with addresses, so that it is tried. In brackets an address passes for a name, and still
    // leads to the node.
    lab.cluster("gate_timeout = \"4s\"\n", SECRETS);
    let address = lab.net.ip(2);
    let name = format!("address = \"[{address}]\"");
    lab.project.edit("cluster.toml", &format!("address = \"{address}\""), &name);
    let events = lab.rollout(3, &["promote", "--nodes", "n1"]);
    assert!(format!("{events:?}").contains("failover-in-progress"), "{events:?}");
    assert_eq!(master(&lab), "n1");
    connect(&lab, "n1").ask(&["SET", "kept", "yes"]).unwrap();
}
