//! Nodes reached over a real sshd: the agent put there, and bundles pushed to it.

mod agent_program;
mod bundles;
mod lab;
mod project;
