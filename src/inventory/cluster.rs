//! A cluster as read: nodes with everything that holds for them filled in.
//!
//! # Invariants
//!
//! * Nodes are sorted by name, and no two share address, port and root: each is a place of its own.
//! * A node's settings are final: what `[ssh]` and the top of the file say is merged in already.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;
use serde_json::{Map, Value};

use super::rollout::Rollout;
use crate::model::{NodeName, Role, SupervisorKind};
use crate::recipe::Place;

/// Variables for templates.
pub type Vars = Map<String, Value>;

/// All that cluster.toml and the host lists say.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The nodes, by name.
    pub nodes: Vec<Node>,
    /// Variables that override those of the recipes; a node's own override these.
    pub vars: Vars,
    /// How rollouts go.
    pub rollout: Rollout,
    /// Where secrets come from, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// What each lint is worth here, by code; codes are not checked here.
    pub lints: BTreeMap<String, LintSetting>,
}

/// A machine, or in the demo a directory, that runs roles.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// The address for SSH and templates: an IP address, a host name, or an alias of `~/.ssh/config`.
    pub address: String,
    /// How it is reached.
    pub reach: Reach,
    /// The failure zone.
    pub zone: Option<String>,
    /// What it runs, from cluster.toml and the lists.
    pub roles: BTreeSet<Role>,
    /// Its own variables.
    pub vars: Vars,
    /// Where windlass keeps everything on it; absolute.
    pub root: Utf8PathBuf,
    /// What keeps its processes up.
    pub supervisor: SupervisorKind,
    /// The configuration of its supervisord; absolute, `None` is for the node to find.
    pub supervisor_config: Option<Utf8PathBuf>,
    /// The program that becomes its agent, instead of the controller's own; [`super::load()`] makes it relative
    /// to where cluster.toml is.
    pub agent: Option<Utf8PathBuf>,
    /// Where it is written.
    pub place: Place,
}

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is this machine.
    Local,
    /// Over SSH; what is `None` here is for `~/.ssh/config` to say.
    Ssh(SshSettings),
}

/// What cluster.toml says about SSH to one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshSettings {
    /// The port.
    pub port: Option<u16>,
    /// The user.
    pub user: Option<String>,
    /// The identity file, as written: `~/` is not expanded.
    pub identity: Option<Utf8PathBuf>,
    /// The file of known hosts, as written.
    pub known_hosts: Option<Utf8PathBuf>,
    /// Whether hosts are trusted on first use.
    pub accept_new: Option<bool>,
    /// Jump hosts, `[user@]host[:port]`, with commas between.
    pub jump: Option<String>,
}

/// Where one secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The source.
    pub from: SecretFrom,
    /// Where it is written.
    pub place: Place,
}

/// The source of a secret. Nothing is read or run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// An environment variable.
    Env(String),
    /// A file, relative to the folder of cluster.toml.
    File(Utf8PathBuf),
    /// A command and its arguments; its first line of output.
    Command(Vec<String>),
}

/// What a lint is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LintLevel {
    /// Nothing is said.
    Allow,
    /// It is said.
    Warn,
    /// It stops `check`.
    Error,
}

/// A line of `[lints]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintSetting {
    /// What the lint is worth.
    pub level: LintLevel,
    /// Where its code is written, to point at an unknown one.
    pub place: Place,
}

impl Cluster {
    /// The node of that name, or else the only one with that address.
    pub fn find(&self, host: &str) -> Option<&Node> {
        super::hosts::find(&self.nodes, host).map(|at| &self.nodes[at])
    }

    /// The nodes that run `role`, by name.
    pub fn nodes_with<'a>(&'a self, role: &'a Role) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| node.roles.contains(role))
    }

    /// Every role that some node runs.
    pub fn roles(&self) -> BTreeSet<&Role> {
        self.nodes.iter().flat_map(|node| &node.roles).collect()
    }
}
