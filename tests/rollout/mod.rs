//! Rollouts over real nodes: folders on this machine with a real HTTP service, and once over a real sshd.

mod checks;
mod commands;
mod failures;
mod leave;
mod paths;
