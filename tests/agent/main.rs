//! The agent, driven as a controller and as a person would: `windlass node ...` as child processes.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

mod compat;
mod cycle;
mod guard;
mod keep;
mod lab;
mod no_return;
mod preview;
mod push;
mod spare;
mod survive;
