//! The whole old stack in one cluster file: four nodes, the stock recipes and their conf, and every service that can
//! be had for real, several of them on one node, while clients write through the front door and to Redis. The short
//! version is for every run of the tests; the long one runs with `WINDLASS_LONG=1`, and its figures are in
//! docs/adapters.md.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

mod clients;
#[path = "../support/elastic.rs"]
mod elastic;
#[path = "../support/elastic_client.rs"]
mod elastic_client;
#[path = "../support/fetch.rs"]
mod fetch;
#[path = "../support/kafka.rs"]
mod kafka;
mod lab;
mod long;
#[path = "../support/old_stack.rs"]
mod old_stack;
#[path = "../support/project.rs"]
mod project;
#[path = "../support/python.rs"]
mod python;
#[path = "../support/redis.rs"]
mod redis;
mod short;
mod stock;
