//! Elasticsearch itself, three nodes of it: upgraded, reconfigured, broken and brought back, while a client writes
//! and reads. The long campaign runs with `WINDLASS_LONG=1`; its figures are in docs/adapters.md.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

#[path = "../support/elastic_client.rs"]
mod client;
#[path = "../support/elastic.rs"]
mod elastic;
#[path = "../support/fetch.rs"]
mod fetch;
mod keyed;
mod lab;
mod leave;
mod long;
mod opensearch;
mod plugin;
#[path = "../support/project.rs"]
mod project;
mod secured;
mod short;
#[path = "../support/sshd.rs"]
mod sshd;
