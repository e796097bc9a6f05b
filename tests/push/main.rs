//! Nodes reached over a real sshd: the agent put there, and bundles pushed to it.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

#[path = "../support/sshd.rs"]
mod sshd;

mod agent_program;
mod bundles;
mod lab;
mod project;
