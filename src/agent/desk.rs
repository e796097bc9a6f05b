//! One role's folder, opened to change it: its lock, its journal, its link, its service.
//!
//! # Invariants
//!
//! * One process changes a role at a time: it holds `roles/<role>/` alone, and so does the guard.
//! * Opening finishes, or takes back, what a killed process left half done (see [`super::recover`]).

use std::time::Duration;

use super::error::AgentError;
use super::journal::Journal;
use super::layout::{RoleDir, Root};
use super::names::ReleaseName;
use super::record::Record;
use super::state::State;
use super::supervise::{self, Process, Reloaded, Started, Unit};
use crate::fs::{DirLock, LockKind, SwapError, read_symlink, symlink_remove, symlink_swap};
use crate::model::Role;

/// How long an operation waits for another one on the same role: longer than most services take to stop.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);

/// A role that nobody else changes meanwhile.
#[derive(Debug)]
pub struct Desk {
    root: Root,
    dir: RoleDir,
    journal: Journal,
    _lock: DirLock,
}

impl Desk {
    /// Opens a role that was staged here before.
    pub fn open(root: &Root, role: &Role) -> Result<Self, AgentError> {
        let dir = root.role(role);
        if !dir.exists() {
            return Err(AgentError::NoRole { role: role.clone(), root: root.path().to_owned() });
        }
        Self::open_within(root, dir, PATIENCE)?.ok_or_else(|| AgentError::Busy { role: role.clone() })
    }

    /// Opens a role, making its folder if it is not there.
    pub fn create(root: &Root, role: &Role) -> Result<Self, AgentError> {
        let dir = root.role(role);
        dir.create()?;
        Self::open_within(root, dir, PATIENCE)?.ok_or_else(|| AgentError::Busy { role: role.clone() })
    }

    /// Opens a role unless somebody else changes it for longer than `patience`.
    pub fn open_within(root: &Root, dir: RoleDir, patience: Duration) -> Result<Option<Self>, AgentError> {
        let Some(lock) = DirLock::wait_for(dir.path(), LockKind::Exclusive, patience)? else {
            return Ok(None);
        };
        let journal = Journal::open(root.memory(), &dir.journal(), dir.role())?;
        let mut desk = Self { root: root.clone(), dir, journal, _lock: lock };
        super::recover::recover(&mut desk)?;
        Ok(Some(desk))
    }

    /// The root it is in.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Its folder.
    pub fn dir(&self) -> &RoleDir {
        &self.dir
    }

    /// What its journal says.
    pub fn state(&self) -> &State {
        self.journal.state()
    }

    /// Journals something; it is on the disk when this returns, if it must be.
    pub fn record(&mut self, record: Record) -> Result<(), AgentError> {
        self.record_all([record])
    }

    /// Journals several things with one wait for the disk.
    pub(super) fn record_all<const N: usize>(&mut self, records: [Record; N]) -> Result<(), AgentError> {
        Ok(self.journal.append(records)?)
    }

    /// What `current` really points at.
    pub fn link(&self) -> Result<Option<ReleaseName>, AgentError> {
        link(&self.dir)
    }

    /// Points `current` at a release, or removes it.
    pub(super) fn swap(&self, to: Option<&ReleaseName>) -> Result<(), SwapError> {
        match to {
            Some(to) => symlink_swap(self.dir.path(), "current", &format!("releases/{to}")),
            None => symlink_remove(self.dir.path(), "current"),
        }
    }

    /// How a release runs; `None` if it runs nothing.
    pub fn unit(&self, release: &ReleaseName) -> Result<Option<Unit>, AgentError> {
        Ok(Unit::read(&self.dir.release_service(release))?)
    }

    /// Whether the service runs.
    pub fn process(&self) -> Result<Process, AgentError> {
        Ok(supervise::status(&self.dir)?)
    }

    /// Stops the service, if anything of it runs. With `start_within` a guard sees to it that it is not down for
    /// longer.
    pub fn stop_service(
        &mut self,
        why: &str,
        start_within: Option<Duration>,
    ) -> Result<super::supervise::Stopped, AgentError> {
        let running = self.process()?.release;
        // The release that runs says how it is stopped, not the one that is current.
        let unit = running.and_then(|release| self.unit(&release).transpose()).transpose()?;
        let start_by = start_within.map(super::activate::deadline);
        let guarded = start_by.is_some();
        self.record(Record::ServiceStop { why: why.to_owned(), start_by })?;
        if guarded {
            super::guard::ensure(&self.root, &self.dir)?;
        }
        let stopped = supervise::stop(&self.dir, unit.as_ref())?;
        self.record(Record::ServiceStopped { killed: stopped.killed })?;
        Ok(stopped)
    }

    /// Tells the service to read its conf again; `None` if what is current runs nothing. With a release, which must
    /// be current, it serves that one from now on.
    pub fn reload_service(&mut self, to: Option<&ReleaseName>) -> Result<Option<Reloaded>, AgentError> {
        let Some(to) = to else {
            // The release that runs says how it is told, not the one that is current.
            let release = self.process()?.release.or_else(|| self.state().current.clone());
            let unit = release.and_then(|release| self.unit(&release).transpose()).transpose()?;
            return Ok(unit.map(|unit| supervise::reload(&self.dir, &unit)).transpose()?);
        };
        let Some(unit) = self.unit(to)? else { return Ok(None) };
        if self.state().current.as_ref() != Some(to) {
            return Err(AgentError::Request(format!("{to} is not current: its conf would not be read")));
        }
        self.record(Record::ServiceStart { release: to.clone() })?;
        match supervise::reload_to(&self.dir, to, &unit) {
            Ok(reloaded) => Ok(Some(reloaded)),
            Err(error) => {
                self.record(Record::ServiceFailed { why: error.to_string() })?;
                Err(error.into())
            }
        }
    }

    /// Starts the service of a release; `None` if it runs nothing.
    pub fn start_service(&mut self, release: &ReleaseName) -> Result<Option<Started>, AgentError> {
        let Some(unit) = self.unit(release)? else { return Ok(None) };
        let start = Record::ServiceStart { release: release.clone() };
        match self.opens(release, &unit)? {
            Some(opened) => self.record_all([opened, start])?,
            None => self.record(start)?,
        }
        match supervise::start(&self.dir, release, &unit) {
            Ok(started) => Ok(Some(started)),
            Err(error) => {
                self.record(Record::ServiceFailed { why: error.to_string() })?;
                Err(error.into())
            }
        }
    }
}

/// What a role's `current` points at.
pub(super) fn link(dir: &RoleDir) -> Result<Option<ReleaseName>, AgentError> {
    let path = dir.current();
    let Some(target) = read_symlink(&path)? else { return Ok(None) };
    let name = target.strip_prefix("releases/").and_then(|name| name.parse().ok());
    name.map(Some).ok_or(AgentError::LinkElsewhere { link: path, target })
}
