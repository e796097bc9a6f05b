//! Going back: needs no network, no store and no controller.
//!
//! # Invariants
//!
//! * Once announced it is finished, by the next run if this one is killed: backwards is the safe way.
//! * A service that does not start again does not stop the link from going back.

use serde::{Deserialize, Serialize};

use super::activate::{ActivateError, check_link};
use super::desk::Desk;
use super::error::AgentError;
use super::names::ReleaseName;
use super::record::Record;
use super::state::Phase;
use super::supervise::ProcessState;
use crate::fs::SwapError;

/// How to go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// What must be current now; `None` is anything.
    pub from: Option<ReleaseName>,
    /// Where to; `None` is the prior release.
    pub to: Option<ReleaseName>,
    /// Why, for the journal and for people.
    pub why: String,
    /// Mark what is left as bad.
    pub bad: bool,
    /// Stop the service before, and start it after.
    pub restart: bool,
    /// A person says that the data can be read by what is gone back to.
    pub force: bool,
}

/// Where the node is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// What was current.
    pub from: Option<ReleaseName>,
    /// What is.
    pub to: Option<ReleaseName>,
    /// It was before; nothing was done.
    pub already: bool,
    /// The service's process, if one was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The service had to be killed.
    pub killed: bool,
    /// How long the service took to stop; 0 if nothing was stopped.
    #[serde(default)]
    pub stop_ms: u64,
    /// Why the service could not be started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_error: Option<String>,
}

/// Goes back.
pub(super) fn rollback(desk: &mut Desk, wanted: &Rollback) -> Result<RolledBack, AgentError> {
    check_link(desk)?;
    let from = desk.state().current.clone();
    if let Some(to) = wanted.to.as_ref().filter(|to| from.as_ref() == Some(*to)) {
        let (to, already) = (Some(to.clone()), true);
        return Ok(RolledBack {
            from,
            to,
            already,
            pid: None,
            killed: false,
            stop_ms: 0,
            service_error: None,
        });
    }
    if wanted.from.is_some() && wanted.from != from {
        return Err(ActivateError::Moved { expected: wanted.from.clone(), found: from }.into());
    }
    let to = match &wanted.to {
        Some(to) => to.clone(),
        None => desk
            .state()
            .prior()
            .cloned()
            .ok_or_else(|| AgentError::NoPrior { role: desk.dir().role().clone() })?,
    };
    let there = desk.state().present(&to).is_some() && desk.dir().release(&to).is_dir();
    if !there {
        return Err(ActivateError::NotStaged { release: to }.into());
    }
    let again = if wanted.force { desk.said_to_be(&to)? } else { None };
    match again {
        Some(again) => desk.record(again)?,
        None => {
            if let Some(error) = desk.no_return(&to)? {
                return Err(error);
            }
        }
    }
    let (why, restart) = (wanted.why.clone(), wanted.restart);
    let bad = from.clone().filter(|_| wanted.bad);
    let back = Record::RollingBack { from, to: Some(to), why: why.clone(), restart };
    match bad {
        Some(release) => desk.record_all([Record::MarkedBad { release, why }, back])?,
        None => desk.record(back)?,
    }
    finish(desk)
}

/// Does what an announced rollback has not done yet.
pub(super) fn finish(desk: &mut Desk) -> Result<RolledBack, AgentError> {
    let Phase::RollingBack { from, to, restart } = desk.state().phase.clone() else {
        return Err(AgentError::Internal("no rollback was announced".to_owned()));
    };
    let mut done = RolledBack {
        from,
        to: to.clone(),
        already: false,
        pid: None,
        killed: false,
        stop_ms: 0,
        service_error: None,
    };
    if restart {
        let process = desk.process()?;
        let right = process.state == ProcessState::Running && process.release == to;
        if !right && process.release.is_some() {
            let stopped = desk.stop_service("going back", None)?;
            (done.killed, done.stop_ms) = (stopped.killed, stopped.duration_ms);
        }
    }
    let link = desk.dir().current();
    // Swapping to where it points already also makes a swap durable that was not yet synced.
    desk.swap(to.as_ref()).map_err(|error| match error {
        SwapError::Untouched(source) => ActivateError::Swap { link, to: to.clone(), source },
        SwapError::Unsynced(source) => ActivateError::SyncParent { link, source },
    })?;
    if restart && let Some(release) = &to {
        match desk.start_service(release) {
            Ok(started) => done.pid = started.map(|started| started.pid),
            Err(error) => done.service_error = Some(error.full()),
        }
    }
    desk.record(Record::RolledBack { to })?;
    Ok(done)
}
