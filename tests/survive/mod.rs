//! Rollouts survive everything: kills and errors at every system call, networks that break, liars, jumping
//! clocks, many operators at once.
//!
//! Each has a short version here; `WINDLASS_LONG=1` tries everything. `docs/reliability.md` has the figures.

mod clock;
mod controller;
mod errors;
mod fencing;
mod kills;
pub(crate) mod operations;
mod operators;
mod planted;
mod secrets;
