//! The agent, driven as a controller and as a person would: `windlass node ...` as child processes.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

mod cycle;
mod guard;
mod keep;
mod lab;
mod preview;
mod push;
mod survive;
