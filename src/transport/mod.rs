//! Nodes, reached: one [`Connection`] for each, over SSH (russh) or as processes of this machine.

mod auth;
mod channel;
mod client;
mod connection;
mod connector;
mod error;
mod host_key;
mod identity;
mod known_hosts;
mod local;
mod names;
mod pattern;
mod pipe;
mod process;
mod prompt;
mod prompt_acks;
mod route;
mod settings;
mod ssh_config;
mod stall;
mod target;

pub use connection::Connection;
pub use connector::Connector;
pub use error::{ErrorKind, Reason, TransportError};
pub use process::{Exit, ExitStatus, Output, Process, Stderr, Stdin, Stdout, Tunnel};
pub use prompt::{Ask, Asking};
pub use target::{AgentSocket, ConfigFile, SshOptions, SshTarget, Target, Via};
