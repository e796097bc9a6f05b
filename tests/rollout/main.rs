//! Rollouts over real nodes: folders on this machine with a real HTTP service, and once over a real sshd.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

mod checks;
mod commands;
mod failures;
mod lab;
mod leave;
mod paths;
mod ssh;
#[path = "../support/sshd.rs"]
mod sshd;
