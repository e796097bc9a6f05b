//! The agent, driven as a controller and as a person would: `windlass node ...` as child processes.

mod compat;
mod cycle;
pub(crate) mod guard;
mod half_written;
mod keep;
mod no_return;
mod preview;
mod push;
mod spare;
mod survive;
