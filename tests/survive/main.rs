//! Rollouts survive everything: kills and errors at every system call, networks that break, liars, jumping
//! clocks, many operators at once.
//!
//! Each has a short version here; `WINDLASS_LONG=1` tries everything. `docs/reliability.md` has the figures.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

mod bench;
mod clock;
mod cluster;
mod controller;
mod errors;
mod fencing;
mod kills;
mod lies;
mod network;
#[allow(dead_code, reason = "each test program uses its own part")]
#[path = "../agent/lab.rs"]
mod node;
mod operations;
mod operators;
mod planted;
mod secrets;
#[path = "../support/sshd.rs"]
mod sshd;
mod tracer;

/// Whether everything is tried, not a part that is quick.
fn long() -> bool {
    std::env::var_os("WINDLASS_LONG").is_some()
}
