//! Adapters against the real services: each test starts a cluster on this machine, promotes another release under a
//! client that keeps working, and looks at what the client saw.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

#[path = "../support/fetch.rs"]
#[expect(dead_code, reason = "a whole tree of dependencies is fetched by a script")]
mod fetch;
mod kafka;
mod lab;
mod nginx;
#[path = "../support/project.rs"]
mod project;
mod redis;
mod zookeeper;
mod zookeeper_client;
