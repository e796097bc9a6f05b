//! What keeps a service's process: started, stopped, asked after.

mod exec;
mod pidfile;
mod process;
mod unit;

pub use exec::{ExecError, run as exec};
pub use pidfile::{Pidfile, probe, test};
pub use process::users_of;
pub use unit::{UNIT_FORMAT, Unit, UnitError};

use serde::{Deserialize, Serialize};

use super::layout::RoleDir;
use super::names::ReleaseName;
use crate::fs::IoError;

/// Starts and stops the process of a role.
pub trait Supervisor {
    /// Starts the service of a release; one that runs from that release already is left alone.
    fn start(&self, dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Started, SuperviseError>;

    /// Stops the service by its unit's signal, then by KILL; `None` stops with TERM and a minute.
    fn stop(&self, dir: &RoleDir, unit: Option<&Unit>) -> Result<Stopped, SuperviseError>;

    /// Has the process that runs read its conf again, and notes that it serves a release from now on.
    fn reload(&self, dir: &RoleDir, release: &ReleaseName, signal: &str) -> Result<Started, SuperviseError>;

    /// Whether the service runs, and from which release.
    fn status(&self, dir: &RoleDir) -> Result<Process, SuperviseError>;
}

/// A service that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its process, which leads a session of its own.
    pub pid: u32,
    /// It ran before.
    pub already: bool,
}

/// A service that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// It ran before.
    pub ran: bool,
    /// It did not end in time.
    pub killed: bool,
    /// How long stopping took.
    pub duration_ms: u64,
}

/// Whether a service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It was stopped, or never started.
    Stopped,
    /// It ended by itself.
    Failed,
    /// The system does not say.
    Unknown,
}

/// A service's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Whether it runs.
    pub state: ProcessState,
    /// Its number, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// From which release it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,
}

/// Why a service could not be started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// Another release's process is still there.
    #[error("it still runs from release {release}, as process {pid}")]
    Runs {
        /// From which release.
        release: String,
        /// As which process.
        pid: u32,
    },
    /// It could not be set up or executed.
    #[error("the service could not be started: {0}")]
    Start(String),
    /// There is no process that could read its conf again.
    #[error("it does not run, so that it cannot read its conf again")]
    Stopped,
    /// Even KILL did not end it.
    #[error("process {0} is still there after KILL")]
    Unkillable(u32),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl SuperviseError {
    /// What a person might do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Runs { .. } => vec!["stop it first: `windlass node service stop ROLE`".to_owned()],
            Self::Stopped => vec!["start it: `windlass service start`".to_owned()],
            Self::Start(_) => vec!["its output is in shared/logs/ of the role".to_owned()],
            Self::Unkillable(pid) => {
                vec![format!(
                    "it waits in the kernel, for a disk or a network file system: `cat /proc/{pid}/stack`"
                )]
            }
            Self::Io(error) => error.help(),
        }
    }
}
