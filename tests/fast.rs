//! Tests that start no server but windlass's own: run without retries.

#![expect(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

mod agent;
mod architecture;
mod archive;
mod build;
mod cli;
mod crash;
mod determinism;
mod docs;
mod durability;
mod format;
mod fuzz_smoke;
mod init;
mod programs;
mod rollout;
mod simulation;
mod stock;
mod survive;
