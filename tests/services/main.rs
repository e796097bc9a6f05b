//! Adapters against the real services: each test starts a cluster on this machine, promotes another release under a
//! client that keeps working, and looks at what the client saw.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

#[path = "../support/fetch.rs"]
#[expect(dead_code, reason = "a whole tree of dependencies is fetched by a script")]
mod fetch;
mod kafka;
#[path = "../support/kafka.rs"]
mod kafka_support;
mod lab;
mod nginx;
#[path = "../support/project.rs"]
mod project;
mod redis;
#[path = "../support/redis.rs"]
mod redis_support;
mod zookeeper;
mod zookeeper_client;
