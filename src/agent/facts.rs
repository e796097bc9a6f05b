//! What a node says about itself, as types: asked for by [`super::call::Request::Preflight`].
//!
//! # Invariants
//!
//! * Nothing is judged here; what it is worth is the controller's to say.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::model::Role;
use crate::recipe::Limit;

/// One role that is asked about; what is absent is taken from its current release.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreflightAsk {
    /// Limits that its recipe names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, Limit>>,
    /// As whom it runs; absent is whoever the agent runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// With which group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Ports that it listens on.
    #[serde(default)]
    pub ports: BTreeSet<u16>,
    /// Directories that it writes to, absolute.
    #[serde(default)]
    pub dirs: BTreeSet<Utf8PathBuf>,
    /// A supervisor of the system's own gives it its limits, not the agent.
    #[serde(default)]
    pub supervised: bool,
}

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// Its clock when the request came in, in microseconds since 1970.
    pub came_us: i64,
    /// Its clock when the answer was ready.
    pub went_us: i64,
    /// The kernel's name: `Linux`.
    pub system: String,
    /// The processor's kind: `x86_64`.
    pub machine: String,
    /// As whom the agent runs.
    pub agent_user: String,
    /// `vm.max_map_count`.
    pub max_map_count: Option<u64>,
    /// Bytes of swap that are turned on.
    pub swap: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes that are free below windlass's root.
    pub root_bytes: Option<u64>,
    /// Inodes that are free there; absent also where they are not counted.
    pub root_inodes: Option<u64>,
    /// Each role that was asked about.
    pub roles: BTreeMap<Role, RolePreflight>,
}

/// What a node says about one role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolePreflight {
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// As whom it runs, or would.
    pub user: String,
    /// Why there is no such user.
    pub no_user: Option<String>,
    /// Limits that it has or would have, by their rlimit names.
    pub limits: BTreeMap<String, LimitFact>,
    /// Its ports that somebody listens on.
    pub ports: Vec<PortFact>,
    /// Its directories.
    pub dirs: Vec<DirFact>,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitFact {
    /// What holds.
    pub soft: Limit,
    /// What the process itself may raise it to.
    pub hard: Limit,
    /// Who says so.
    pub from: LimitFrom,
    /// The agent may not set what the recipe wants: this is its own hard limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Limit>,
}

/// Who says what a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitFrom {
    /// The recipe: the start sets it.
    Recipe,
    /// The process that runs.
    Process,
    /// The agent, from which a start would inherit it.
    Agent,
}

/// A port that somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFact {
    /// Which.
    pub port: u16,
    /// Who, as far as the agent may see.
    pub pid: Option<u32>,
    /// The program's name.
    pub program: Option<String>,
    /// It is this role's own process; absent where that cannot be told.
    pub own: Option<bool>,
}

/// A directory that a service writes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirFact {
    /// Which.
    pub path: Utf8PathBuf,
    /// It is there.
    pub exists: bool,
    /// Staging makes it.
    pub made: bool,
    /// Whose it is.
    pub owner: String,
    /// The service's user owns it.
    pub owned: bool,
    /// What keeps the service's user from writing to it.
    pub obstacle: Option<String>,
    /// Bytes that are free there.
    pub free_bytes: u64,
    /// Bytes of its file system.
    pub total_bytes: u64,
    /// Inodes that are free there; absent where they are not counted.
    pub free_inodes: Option<u64>,
    /// Inodes of its file system.
    pub total_inodes: Option<u64>,
}
