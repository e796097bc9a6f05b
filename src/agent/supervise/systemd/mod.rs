//! Services as units of the node's systemd: the system's, or the user's where the agent is not root.
//!
//! # Invariants
//!
//! * The environment is in a file of its own, 0600, which systemd reads and shows to nobody. The unit is 0600 as
//!   well; but words of a command can be seen by all, as those of every process.
//! * The unit is there, and enabled, exactly as long as the service shall run; it names the release that
//!   `current` led to when it was started.

mod control;
mod quote;
mod text;

pub use text::{environment_text, unit_text};

use std::time::{Duration, Instant};

use camino::Utf8PathBuf;

use self::control::{Manager, Shown};
use super::kept::{self, Kept, remove, stopping};
use super::{Process, ProcessState, QUICK, Started, Stopped, SuperviseError, Supervisor, Unit, runner, spec};
use crate::agent::boot;
use crate::agent::layout::RoleDir;
use crate::agent::names::ReleaseName;
use crate::fs::{replace_with_mode, sync_dir};
use crate::model::{Supervision, SupervisorKind, millis};

/// How long systemd may take beyond what the service may.
const SLACK: Duration = Duration::from_secs(30);

/// How long a process may take to become the service.
const BEGINS: Duration = Duration::from_secs(15);

/// Units of systemd.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Systemd;

impl Supervisor for Systemd {
    fn start(&self, dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Started, SuperviseError> {
        check(dir, release, unit)?;
        let (manager, account) = (Manager::find(), spec::account(unit)?);
        let environment = environment_text(&spec::environment(unit, &account))?;
        let name = format!("{}.service", kept::name(dir));
        let text = unit_text(dir, release, unit, manager.is_system())?;
        let runner = runner::place(dir)?;
        let file = manager.dir()?.join(&name);
        let supervisor = Supervision { kind: SupervisorKind::Systemd, config: None };
        Kept::new(dir, supervisor, file.clone(), release).write(dir)?;
        replace_with_mode(&dir.environment(), environment.as_bytes(), 0o600)?;
        replace_with_mode(&file, text.as_bytes(), 0o600)?;
        manager.run(&["daemon-reload"], SLACK)?;
        manager.run(&["enable", "--quiet", "--no-reload", &name], SLACK)?;
        // Earlier starts do not count against this one.
        let _ = manager.run(&["reset-failed", &name], SLACK);
        match manager.run(&["start", &name], SLACK) {
            Ok(()) => begun(&manager, &name, &runner, unit),
            Err(error) => {
                self.stop(dir, Some(unit))?;
                Err(SuperviseError::Start(error.to_string()))
            }
        }
    }

    fn stop(&self, dir: &RoleDir, unit: Option<&Unit>) -> Result<Stopped, SuperviseError> {
        let begun = Instant::now();
        let mut stopped = Stopped { ran: false, killed: false, duration_ms: 0 };
        let Some(kept) = Kept::read(dir)? else { return Ok(stopped) };
        let (manager, name) = (Manager::find(), unit_name(&kept));
        let before = manager.show(&name)?;
        if before.is_loaded() {
            stopped.ran = before.lives();
            let (_, timeout) = stopping(unit);
            // systemd itself sends KILL when the unit's time is over.
            manager.run(&["stop", &name], timeout + SLACK)?;
            let after = manager.show(&name)?;
            stopped.killed = stopped.ran && after.result == "timeout";
            if after.lives() {
                return Err(SuperviseError::Unkillable(after.pid.unwrap_or_default()));
            }
            stopped.duration_ms = millis(begun.elapsed());
        }
        if kept.file.exists() {
            manager.run(&["disable", "--quiet", "--no-reload", &name], SLACK)?;
            remove(&kept.file)?;
            if let Some(parent) = kept.file.parent() {
                sync_dir(parent)?;
            }
        }
        // Only what failed is still known; else there is nothing to be reset.
        let _ = manager.run(&["reset-failed", &name], SLACK);
        remove(&dir.environment())?;
        Kept::remove(dir)?;
        Ok(stopped)
    }

    fn status(&self, dir: &RoleDir) -> Result<Process, SuperviseError> {
        let Some(kept) = Kept::read(dir)? else {
            return Ok(Process { state: ProcessState::Stopped, pid: None, release: None });
        };
        let shown = Manager::find().show(&unit_name(&kept))?;
        let pid = shown.pid.filter(|_| shown.lives());
        Ok(Process { state: state(&shown), pid, release: Some(kept.release) })
    }
}

/// Whether a unit can be systemd's here.
pub(super) fn check(dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<(), SuperviseError> {
    let manager = Manager::find();
    manager.check()?;
    let account = spec::account(unit)?;
    let us = rustix::process::geteuid().as_raw();
    if us != 0 && account.uid != us {
        let what = format!("it runs as {}, and systemd's manager of another user cannot", account.name);
        return Err(SuperviseError::Start(what));
    }
    if manager.is_system() {
        // It would give less and say nothing.
        spec::check_limits(unit, "systemd", 1, |_, _| {
            "this is a container: give it CAP_SYS_RESOURCE or higher limits, or lower the one in the recipe"
                .to_owned()
        })?;
    }
    environment_text(&spec::environment(unit, &account))?;
    unit_text(dir, release, unit, manager.is_system()).map(drop)
}

fn unit_name(kept: &Kept) -> String {
    format!("{}.service", kept.name)
}

fn state(shown: &Shown) -> ProcessState {
    let up = boot::monotonic().saturating_sub(shown.since);
    match (shown.active.as_str(), shown.sub.as_str()) {
        ("activating", "auto-restart" | "auto-restart-queued") | ("failed", _) => ProcessState::Failed,
        ("active" | "activating" | "reloading" | "refreshing", _) if shown.restarts > 0 && up < QUICK => {
            ProcessState::Failed
        }
        ("active" | "activating" | "reloading" | "refreshing" | "deactivating", _) => ProcessState::Running,
        ("inactive" | "maintenance", _) => ProcessState::Stopped,
        _ => ProcessState::Unknown,
    }
}

/// Waits until the process is the service, or is none any more.
fn begun(
    manager: &Manager,
    name: &str,
    runner: &Utf8PathBuf,
    unit: &Unit,
) -> Result<Started, SuperviseError> {
    let until = Instant::now() + BEGINS;
    loop {
        let shown = manager.show(name)?;
        match shown.pid.filter(|_| shown.lives()) {
            Some(pid) if !runner::is_runner(pid, runner) => return Ok(Started { pid, already: false }),
            None if shown.sub == "auto-restart" || shown.active == "failed" => {
                return if shown.status == text::NOT_RUN {
                    let log = &unit.log;
                    Err(SuperviseError::Start(format!(
                        "its program could not be run; the end of {log} says why"
                    )))
                } else {
                    // That it ends by itself is for its gates to see, as under any supervisor.
                    Ok(Started { pid: 0, already: false })
                };
            }
            _ if Instant::now() >= until => {
                let (active, sub) = (&shown.active, &shown.sub);
                return Err(SuperviseError::Start(format!(
                    "systemd did not start it in time; it is {active} ({sub})"
                )));
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
