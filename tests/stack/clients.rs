//! Clients that work all the time: one that writes to Elasticsearch through nginx, one that writes to Redis, and those
//! that look at what the cluster says of itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::stack::lab::Lab;
use crate::support::elastic::http;
use crate::support::elastic_client::Client;
use crate::support::redis;

/// Between two writes: what is rolled has the same two cores.
const PAUSE: Duration = Duration::from_millis(20);

/// All of them.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    elastic: Client,
    door: JoinHandle<(Vec<u64>, u64)>,
    redis: JoinHandle<(Vec<String>, Duration)>,
}

/// What they saw, all together.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) elastic: usize,
    pub(crate) door: usize,
    pub(crate) redis: usize,
}

impl Clients {
    /// Starts them; `first` is the number of the first document, and no two runs may share any.
    pub(crate) fn start(lab: &Lab, first: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let doors = lab.at("nginx", 8080);
        let door = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || through(&doors, first, &stop))
        };
        let servers = lab.at("redis", 6379);
        let redis = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || redis::write(&servers, None, &stop, PAUSE))
        };
        Self { stop, elastic: Client::start(&lab.elastic(), first), door, redis }
    }

    /// Ends them: nothing that was acknowledged is lost, and Elasticsearch was never red.
    pub(crate) fn done(self, lab: &Lab, what: &str) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let nodes = lab.elastic();
        let elastic = self.elastic.done(&nodes, what).written.len();
        let (door, refused) = self.door.join().unwrap();
        let (redis, gap) = self.redis.join().unwrap();
        for ids in door.chunks(500) {
            let ids: Vec<String> = ids.iter().map(|id| format!("door-{id}")).collect();
            let found = nodes.send("POST", "/door/_doc/_mget", &json!({ "ids": ids }));
            for doc in found["docs"].as_array().unwrap() {
                assert_eq!(doc["found"], true, "{what}: lost behind nginx: {doc}");
            }
        }
        let servers = lab.at("redis", 6379);
        let master = servers.iter().find(|at| redis::field(**at, None, "role") == "master").unwrap();
        let mut client = redis::Client::connect(*master, None).unwrap();
        let lost: Vec<&String> =
            redis.iter().filter(|key| client.ask(&["EXISTS", key]).unwrap() != "1").collect();
        assert!(lost.is_empty(), "{what}: lost in Redis: {lost:?}");
        client.ask(&["FLUSHALL"]).unwrap();
        println!(
            "{what}: through nginx {} acknowledged, {refused} refused; Redis {} confirmed, longest pause {} ms",
            door.len(),
            redis.len(),
            gap.as_millis()
        );
        Seen { elastic, door: door.len(), redis: redis.len() }
    }
}

/// Writes through whichever door answers: the numbers that were acknowledged, and how many were not.
fn through(doors: &[SocketAddr], first: u64, stop: &AtomicBool) -> (Vec<u64>, u64) {
    let (mut written, mut refused) = (Vec::new(), 0);
    for (number, door) in (first..).zip(doors.iter().cycle()) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("/door/_doc/door-{number}?timeout=5s");
        match http(*door, "PUT", &path, &json!({ "number": number }).to_string()) {
            Some((200 | 201, _)) => written.push(number),
            _ => refused += 1,
        }
        std::thread::sleep(PAUSE);
    }
    (written, refused)
}
