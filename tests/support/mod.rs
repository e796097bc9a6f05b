//! What several tests share: projects, nodes, clusters, servers and the clients that watch them.

#![allow(dead_code, reason = "each test program uses its own part")]

pub(crate) mod bench;
pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod elastic;
pub(crate) mod elastic_client;
pub(crate) mod fetch;
pub(crate) mod fixture;
pub(crate) mod kafka;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod old_stack;
pub(crate) mod project;
pub(crate) mod python;
pub(crate) mod redis;
pub(crate) mod rollout;
pub(crate) mod seed;
pub(crate) mod sshd;
pub(crate) mod tools;
pub(crate) mod tracer;
pub(crate) mod vendor;
pub(crate) mod worker;
