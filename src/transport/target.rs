//! What a caller says about a node, before `~/.ssh/config` is asked.
//!
//! Filled from the inventory by the caller; this module knows nothing of cluster.toml. Whatever is `Some`
//! here wins over `~/.ssh/config`, which wins over the defaults.

use std::time::Duration;

use camino::Utf8PathBuf;

use super::Ask;

/// A node and the way to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The node's name, for errors.
    pub node: String,
    /// How it is reached.
    pub via: Via,
}

/// How a node is reached.
#[derive(Clone, Debug)]
pub enum Via {
    /// It is this machine: commands are child processes.
    Local,
    /// Over SSH.
    Ssh(SshTarget),
}

/// An SSH server, as the operator names it.
#[derive(Clone, Debug, Default)]
pub struct SshTarget {
    /// The address, or an alias that `~/.ssh/config` knows.
    pub host: String,
    /// The port; else that of `~/.ssh/config`, else 22.
    pub port: Option<u16>,
    /// The user; else that of `~/.ssh/config`, else `$USER`.
    pub user: Option<String>,
    /// The only identity file to use; else the agent's and the usual files. `~/` is expanded.
    pub identity: Option<Utf8PathBuf>,
    /// Jump hosts, `[user@]host[:port]`, the first reached first, with commas between; `none` for none.
    pub jump: Option<String>,
    /// The known hosts of the user, instead of `~/.ssh/known_hosts`. `~/` is expanded.
    pub known_hosts: Option<Utf8PathBuf>,
    /// Whether the key of a host never seen before is trusted and recorded.
    pub accept_new: Option<bool>,
}

/// Which client configuration is read.
#[derive(Clone, Debug, Default)]
pub enum ConfigFile {
    /// `~/.ssh/config`, then `/etc/ssh/ssh_config`; either may be missing.
    #[default]
    Usual,
    /// Only this file.
    Only(Utf8PathBuf),
    /// None.
    None,
}

/// Which ssh-agent is asked, unless `IdentityAgent` of `~/.ssh/config` says otherwise.
#[derive(Clone, Debug, Default)]
pub enum AgentSocket {
    /// The one that `SSH_AUTH_SOCK` names.
    #[default]
    Environment,
    /// The one behind this socket.
    At(Utf8PathBuf),
    /// None.
    None,
}

/// What holds for every connection of a run.
#[derive(Clone, Debug, Default)]
pub struct SshOptions {
    /// Which client configuration is read.
    pub config: ConfigFile,
    /// Which agent is asked.
    pub agent: AgentSocket,
    /// Where passphrases come from.
    pub ask: Ask,
    /// The home directory; else `$HOME`, else that of `/etc/passwd`.
    pub home: Option<Utf8PathBuf>,
    /// How long connecting and the key exchange may take; else `ConnectTimeout`, else 15 s.
    pub connect_timeout: Option<Duration>,
    /// The silence after which a server is asked whether it lives; else `ServerAliveInterval`, else 15 s.
    pub keepalive: Option<Duration>,
    /// How many such questions may stay without answer; else `ServerAliveCountMax`, else 3.
    pub keepalive_max: Option<usize>,
}
