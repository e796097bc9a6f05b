//! What is wrong with a cluster before anything of it is touched: topology lints and the nodes' preflight.
//!
//! ```text
//! topology   what is looked at: every role on every node, with its rendered conf; the live cluster
//! settings   conf files, read: flat and nested YAML, properties, JVM options
//! lints      the lints over all of it: pure functions, a file for each subject
//! preflight  what nodes said about themselves, judged
//! codes      every code, with its level and its reasoning
//! problem    what was found, with the levels that cluster.toml sets
//! ```
//!
//! # Invariants
//!
//! * Nothing here reads a disk, a network or a clock: plain structs in, [`Problem`]s out.
//! * A code, once given, keeps its meaning; `docs/check.md` has a section for each.
//! * What is not known is no problem: a lint that lacks what it needs says nothing.

mod codes;
mod elastic;
mod java;
mod limits;
mod lints;
mod live;
mod ports;
mod preflight;
mod problem;
mod settings;
#[cfg(test)]
mod tests;
mod topology;
mod yaml;

pub use codes::{Code, explain, find as find_code, near as near_codes};
pub use lints::lint;
pub use live::{Live, LiveIndex, LiveNode};
pub use ports::{http_port, ports};
pub use preflight::{NodeFacts, dirs, preflight};
pub use problem::{Level, Levels, Problem};
pub use topology::{ConfFile, Instance, Topology, Unread};
