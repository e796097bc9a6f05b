//! A client that writes and reads all the time, and records whether the cluster is ever red.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::elastic::{Nodes, http};
use crate::support::worker::{Pace, Worker};

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Documents that were acknowledged.
    pub(crate) written: Vec<u64>,
    /// Writes that were not.
    pub(crate) refused: u64,
    /// Acknowledged documents that could be read.
    pub(crate) read: u64,
    /// The longest time without an acknowledged write.
    pub(crate) longest: Duration,
    pub(crate) looks: Looks,
}

/// What the cluster said of its health.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    all: u64,
    /// A shard had no primary.
    red: u64,
    /// The longest time without an elected master.
    masterless: Duration,
}

pub(crate) struct Client {
    writer: Worker<Seen>,
    watcher: Worker<Looks>,
}

impl Client {
    /// Starts to write documents from number `first`.
    pub(crate) fn start(nodes: &Nodes, first: u64) -> Self {
        let addresses = nodes.0.clone();
        let writer = Worker::start("acknowledged documents", move |pace| write(&addresses, first, pace));
        let addresses = nodes.0.clone();
        let watcher = Worker::start("looks at the cluster", move |pace| watch(&addresses, pace));
        Self { writer, watcher }
    }

    /// Waits until `more` documents are acknowledged than now, and at least `least` in all.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64, least: u64) {
        self.writer.goes_on(more, least);
    }

    /// Ends the client once it has written some more, and reads every acknowledged document: none may be lost, and
    /// the cluster may never have been red.
    pub(crate) fn done(self, nodes: &Nodes, what: &str) -> Seen {
        self.goes_on(5, 20);
        self.watcher.goes_on(1, 1);
        let mut seen = self.writer.stop();
        seen.looks = self.watcher.stop();
        nodes.send("POST", "/docs/_refresh", &serde_json::Value::Null);
        for ids in seen.written.chunks(500) {
            let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
            let found = nodes.send("POST", "/docs/_doc/_mget", &serde_json::json!({ "ids": ids }));
            let found = if found["docs"].is_array() {
                found
            } else {
                nodes.send("POST", "/docs/_mget", &serde_json::json!({ "ids": ids }))
            };
            for doc in found["docs"].as_array().unwrap() {
                assert_eq!(doc["found"], true, "{what}: an acknowledged document is lost: {doc}");
            }
        }
        println!(
            "{what}: {} acknowledged, {} refused, {} read back at once, none lost; longest without a write {} ms; \
             without a master for up to {} ms; red in {} of {} looks",
            seen.written.len(),
            seen.refused,
            seen.read,
            seen.longest.as_millis(),
            seen.looks.masterless.as_millis(),
            seen.looks.red,
            seen.looks.all
        );
        assert_eq!(seen.looks.red, 0, "{what}: the cluster was red");
        seen
    }
}

fn write(nodes: &[SocketAddr], first: u64, pace: &Pace) -> Seen {
    let mut seen = Seen::default();
    let mut last = Instant::now();
    for (number, node) in (first..).zip(nodes.iter().cycle()) {
        if pace.is_over() {
            break;
        }
        let path = format!("/docs/_doc/{number}");
        match http(*node, "PUT", &format!("{path}?timeout=5s"), &format!("{{\"number\":{number}}}")) {
            Some((200 | 201, _)) => {
                seen.longest = seen.longest.max(last.elapsed());
                last = Instant::now();
                seen.written.push(number);
                pace.count();
                let read = http(*node, "GET", &path, "");
                seen.read += u64::from(read.is_some_and(|(status, _)| status == 200));
            }
            _ => seen.refused += 1,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    seen
}

fn watch(nodes: &[SocketAddr], pace: &Pace) -> Looks {
    let mut looks = Looks::default();
    let mut since: Option<Instant> = None;
    while !pace.is_over() {
        let (mut answers, mut masters) = (0, 0);
        for node in nodes {
            // What its own state says: without a master the cluster has no word.
            let Some((200, health)) = http(*node, "GET", "/_cluster/health?local=true", "") else { continue };
            // A node that has just started knows no cluster yet.
            if health["number_of_nodes"].as_u64() <= Some(1) {
                continue;
            }
            answers += 1;
            looks.all += 1;
            // A state without a master counts as red, though every shard is there.
            let lacks = ["unassigned_shards", "initializing_shards"];
            let lacks = lacks.iter().any(|name| health[*name].as_u64() > Some(0));
            if health["status"] != "red" {
                masters += 1;
            } else if lacks {
                looks.red += 1;
                eprintln!("red, says {node}: {health}");
            }
        }
        since = if answers > 0 && masters == 0 { since.or_else(|| Some(Instant::now())) } else { None };
        pace.count();
        looks.masterless = looks.masterless.max(since.map_or(Duration::ZERO, |since| since.elapsed()));
        std::thread::sleep(Duration::from_millis(100));
    }
    looks
}
