//! What keeps a service's process: started, stopped, asked after.
//!
//! Which supervisor a role is under is written down in its folder (`Kept`) before anything is started there,
//! so that whoever comes next, a guard or a person by hand, asks the right one; where nothing is written it is
//! the embedded one. A release says under which it wants to be started.
//!
//! # Invariants
//!
//! * A service is started from the release's own path, never through `current`.
//! * A role is under one supervisor at a time: what runs under another is not started a second time.
//! * What is stopped stays stopped, over a reboot too: it has left nothing outside the root.
//! * A service that ends by itself is brought up again, and counts as failed until it has lived for [`QUICK`].

mod exec;
mod group;
mod keeper;
mod kept;
mod pidfile;
mod process;
mod reload;
mod runner;
mod spec;
mod supervisord;
mod systemd;
mod unit;

pub use exec::{ExecError, run as exec, with_log as exec_with_log};
pub use keeper::run as keep;
pub use pidfile::{probe, test};
pub use process::{may_raise_limits, users_of};
pub use supervisord::section_text;
pub use systemd::{environment_text, unit_text};
pub use unit::{UNIT_FORMAT, Unit, UnitError};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::kept::Kept;
use self::pidfile::Pidfile;
use self::supervisord::Supervisord;
use self::systemd::Systemd;
use super::layout::RoleDir;
use super::names::ReleaseName;
use crate::fs::IoError;
use crate::model::SupervisorKind;

/// A run that was shorter counts as a failed start, and until it has lasted so long a service that was brought
/// up again counts as failed.
pub const QUICK: Duration = Duration::from_secs(10);

/// After so many quick ends in a row a service is left alone.
pub const ATTEMPTS: u32 = 5;

/// Starts and stops the process of a role.
trait Supervisor {
    /// Starts the service of a release. Nothing of the role runs, under whatever supervisor.
    fn start(&self, dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Started, SuperviseError>;

    /// Stops the service by its unit's signal, then by KILL; `None` stops with TERM and a minute.
    fn stop(&self, dir: &RoleDir, unit: Option<&Unit>) -> Result<Stopped, SuperviseError>;

    /// Whether the service runs, and from which release.
    fn status(&self, dir: &RoleDir) -> Result<Process, SuperviseError>;

    /// Sees to it that what runs is looked after, where that may have ended.
    fn adopt(&self, _: &RoleDir, _: &ReleaseName, _: &Unit) -> Result<(), SuperviseError> {
        Ok(())
    }
}

fn of(kind: SupervisorKind) -> &'static dyn Supervisor {
    match kind {
        SupervisorKind::Systemd => &Systemd,
        SupervisorKind::Supervisord => &Supervisord,
        SupervisorKind::Pidfile => &Pidfile,
    }
}

/// What a role is under now.
fn under(dir: &RoleDir) -> Result<SupervisorKind, SuperviseError> {
    Ok(Kept::read(dir)?.map_or(SupervisorKind::Pidfile, |kept| kept.supervisor.kind))
}

/// Starts the service of a release under the supervisor that the release names; one that runs from that release
/// already is left alone.
pub fn start(dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Started, SuperviseError> {
    let now = under(dir)?;
    let process = of(now).status(dir)?;
    if let Some(pid) = process.pid {
        if process.release.as_ref() == Some(release) {
            of(now).adopt(dir, release, unit)?;
            return Ok(Started { pid, already: true });
        }
        let release = process.release.map_or_else(|| "that is not known".to_owned(), |it| it.to_string());
        return Err(SuperviseError::Runs { release, pid });
    }
    if process.release.is_some() {
        // Something of it may be about to come up again, or stand in a supervisor's configuration.
        of(now).stop(dir, None)?;
    }
    let started = of(unit.supervisor.kind).start(dir, release, unit);
    if started.is_err() && Kept::read(dir)?.is_none() {
        pidfile::note_failure(dir, release)?;
    }
    started
}

/// Why a service cannot be started here under the supervisor that its unit names, as far as that can be told
/// before anything is stopped for it.
pub fn check(dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<(), SuperviseError> {
    match unit.supervisor.kind {
        SupervisorKind::Systemd => systemd::check(dir, release, unit),
        SupervisorKind::Supervisord => supervisord::check(dir, release, unit),
        SupervisorKind::Pidfile => Ok(()),
    }
}

/// Stops the service under whatever supervisor it was started.
pub fn stop(dir: &RoleDir, unit: Option<&Unit>) -> Result<Stopped, SuperviseError> {
    of(under(dir)?).stop(dir, unit)
}

/// Whether the service runs, and from which release.
pub fn status(dir: &RoleDir) -> Result<Process, SuperviseError> {
    of(under(dir)?).status(dir)
}

/// Tells the service to read its conf again.
pub fn reload(dir: &RoleDir, unit: &Unit) -> Result<Reloaded, SuperviseError> {
    reload::reload(dir, unit)
}

/// Tells the service to read its conf again, and notes that it serves another release from now on. Only under
/// the embedded supervisor: others name the release in what they were configured with.
pub fn reload_to(dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Reloaded, SuperviseError> {
    let now = under(dir)?;
    if now != SupervisorKind::Pidfile {
        let what =
            format!("under {now:?} a service is started from another release, not told to read its conf");
        return Err(SuperviseError::Reload { what, help: vec!["stop it and start it".to_owned()] });
    }
    let reloaded = reload::reload(dir, unit)?;
    pidfile::serves(dir, release, unit)?;
    Ok(Reloaded { release: release.clone(), ..reloaded })
}

/// A service that was told to read its conf again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Its process.
    pub pid: u32,
    /// The release that runs.
    pub release: ReleaseName,
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
    /// It ended by itself, and is not, or only just, up again.
    Failed,
    /// The system does not say.
    Unknown,
}

/// A service's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Whether it runs.
    pub state: ProcessState,
    /// Its number, if it lives.
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
    /// The supervisor cannot be used, or refused.
    #[error("{what}")]
    Supervisor {
        /// What is wrong.
        what: String,
        /// What to do about it.
        help: Vec<String>,
    },
    /// There is nothing to be told to.
    #[error("the service could not be told to reload: {what}")]
    Reload {
        /// Why.
        what: String,
        /// What to do about it.
        help: Vec<String>,
    },
    /// Even KILL did not end it.
    #[error("process {0} is still there after KILL")]
    Unkillable(u32),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl SuperviseError {
    fn supervisor(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Supervisor { what: what.into(), help: vec![help.into()] }
    }

    /// What a person might do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Runs { .. } => vec!["stop it first: `windlass node service stop ROLE`".to_owned()],
            Self::Start(_) => vec!["its output is in shared/logs/ of the role".to_owned()],
            Self::Unkillable(pid) => {
                vec![format!(
                    "it waits in the kernel, for a disk or a network file system: `cat /proc/{pid}/stack`"
                )]
            }
            Self::Supervisor { help, .. } | Self::Reload { help, .. } => help.clone(),
            Self::Io(error) => error.help(),
        }
    }
}
