//! A client that writes and reads all the time, and looks whether the cluster is ever red.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::elastic::{Nodes, http};

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
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<Seen>>,
    watcher: Option<JoinHandle<Looks>>,
}

impl Client {
    /// Begins to write documents from number `first`.
    pub(crate) fn start(nodes: &Nodes, first: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (addresses, stopped) = (nodes.0.clone(), Arc::clone(&stop));
        let writer = std::thread::spawn(move || write(&addresses, first, &stopped));
        let (addresses, stopped) = (nodes.0.clone(), Arc::clone(&stop));
        let watcher = std::thread::spawn(move || watch(&addresses, &stopped));
        Self { stop, writer: Some(writer), watcher: Some(watcher) }
    }

    /// Ends it, and looks for every document that was acknowledged: none is lost, and nothing was ever red.
    pub(crate) fn done(mut self, nodes: &Nodes, what: &str) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = self.writer.take().unwrap().join().unwrap();
        seen.looks = self.watcher.take().unwrap().join().unwrap();
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

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(nodes: &[SocketAddr], first: u64, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut last = Instant::now();
    for (number, node) in (first..).zip(nodes.iter().cycle()) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("/docs/_doc/{number}");
        match http(*node, "PUT", &format!("{path}?timeout=5s"), &format!("{{\"number\":{number}}}")) {
            Some((200 | 201, _)) => {
                seen.longest = seen.longest.max(last.elapsed());
                last = Instant::now();
                seen.written.push(number);
                let read = http(*node, "GET", &path, "");
                seen.read += u64::from(read.is_some_and(|(status, _)| status == 200));
            }
            _ => seen.refused += 1,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    seen
}

fn watch(nodes: &[SocketAddr], stop: &AtomicBool) -> Looks {
    let mut looks = Looks::default();
    let mut since: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
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
        looks.masterless = looks.masterless.max(since.map_or(Duration::ZERO, |since| since.elapsed()));
        std::thread::sleep(Duration::from_millis(100));
    }
    looks
}
