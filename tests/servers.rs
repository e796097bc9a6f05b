//! Tests against real servers and tools: sshd, supervisord, systemd, JVMs, Redis, nginx, a registry.

#![expect(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

mod demo;
mod elastic;
mod end_to_end;
mod lies;
mod network;
mod oci;
mod push;
mod real_artifacts;
mod rollout_ssh;
mod services;
mod stack;
mod supervisors;
mod transport_ssh;
