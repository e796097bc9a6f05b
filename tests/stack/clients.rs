//! Clients that work all the time: one writes to Elasticsearch, one to Elasticsearch through nginx, and one to Redis.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::stack::lab::Lab;
use crate::support::elastic::http;
use crate::support::elastic_client::Client;
use crate::support::redis::{self, Confirmed};
use crate::support::worker::{Pace, Worker};

/// Between two writes: what is rolled has the same two cores.
const PAUSE: Duration = Duration::from_millis(20);

/// All of them.
pub(crate) struct Clients {
    elastic: Client,
    door: Worker<(Vec<u64>, u64)>,
    redis: redis::Writer,
}

impl Clients {
    /// Starts them; `first` is the number of the first document, and no two runs may share any.
    pub(crate) fn start(lab: &Lab, first: u64) -> Self {
        let doors = lab.at("nginx", 8080);
        let door = Worker::start("documents through nginx", move |pace| through(&doors, first, pace));
        let redis = redis::writer(lab.at("redis", 6379), None, PAUSE);
        let clients = Self { elastic: Client::start(&lab.elastic(), first), door, redis };
        clients.go_on(1, 1);
        clients
    }

    /// Waits until each has got `more` done than now, and `least` in all.
    fn go_on(&self, more: u64, least: u64) {
        self.elastic.goes_on(more, least);
        self.door.goes_on(more, least);
        self.redis.goes_on(more, least);
    }

    /// Ends the clients once each has written some more: nothing that was acknowledged is lost, and Elasticsearch was
    /// never red.
    pub(crate) fn done(self, lab: &Lab, what: &str) {
        self.go_on(10, 51);
        let nodes = lab.elastic();
        let (door, refused) = self.door.stop();
        let Confirmed { keys, gap } = self.redis.stop();
        self.elastic.done(&nodes, what);
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
            keys.iter().filter(|key| client.ask(&["EXISTS", key]).unwrap() != "1").collect();
        assert!(lost.is_empty(), "{what}: lost in Redis: {lost:?}");
        client.ask(&["FLUSHALL"]).unwrap();
        println!(
            "{what}: through nginx {} acknowledged, {refused} refused; Redis {} confirmed, longest pause {} ms",
            door.len(),
            keys.len(),
            gap.as_millis()
        );
    }
}

/// Writes through each nginx in turn; returns the numbers that were acknowledged, and how many were not.
fn through(doors: &[SocketAddr], first: u64, pace: &Pace) -> (Vec<u64>, u64) {
    let (mut written, mut refused) = (Vec::new(), 0);
    for (number, door) in (first..).zip(doors.iter().cycle()) {
        if pace.is_over() {
            break;
        }
        let path = format!("/door/_doc/door-{number}?timeout=5s");
        match http(*door, "PUT", &path, &json!({ "number": number }).to_string()) {
            Some((200 | 201, _)) => {
                written.push(number);
                pace.count();
            }
            _ => refused += 1,
        }
        std::thread::sleep(PAUSE);
    }
    (written, refused)
}
