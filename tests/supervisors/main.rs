//! Services under each supervisor: a real supervisord, a real systemd, and the embedded one with its keeper.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

mod contract;
#[path = "../rollout/lab.rs"]
#[expect(dead_code, reason = "rollouts use more of it")]
mod lab;
mod machine;
mod pidfile;
mod supervisord;
mod systemd;
