//! What the next run does about what a killed one left.
//!
//! | journal's last word | link | then |
//! |---|---|---|
//! | `activating` | the new release | `activated`: it was swapped |
//! | `activating` | the old release | `abandoned`: it was not |
//! | `rolling-back` | either | it is finished |
//! | `service-stop` by one who meant to start it | | once its time is over, it is started, or goes back where an activation waits |
//! | `activated`, not confirmed | | a guard is started if none lives; once its time is over, it goes back, or gives up where the data has no way back |
//!
//! Trees that were never finished and links that never got their name are removed.

use super::activate::{deadline, shown};
use super::boot;
use super::desk::Desk;
use super::error::AgentError;
use super::guard;
use super::names::ReleaseName;
use super::record::Record;
use super::rollback;
use super::spare;
use super::state::Phase;
use crate::fs::{IoResultExt as _, clear_leftovers, remove_tree, sync_dir};

/// Every tree that is being made has a name that starts so.
pub(super) const STAGING: &str = ".staging-";

/// Brings a role to rest. The caller holds its lock.
pub(super) fn recover(desk: &mut Desk) -> Result<(), AgentError> {
    match desk.state().phase.clone() {
        Phase::Idle => {}
        Phase::Activating { from, to } => {
            let link = desk.link()?;
            if link == to {
                sync_dir(desk.dir().path())?;
                desk.record(Record::Activated { to })?;
            } else if link == from {
                desk.record(Record::Abandoned { to, why: "interrupted before the swap".to_owned() })?;
            } else {
                return Err(AgentError::LinkMoved { path: desk.dir().current(), link, journal: from });
            }
            clear(desk)?;
        }
        Phase::RollingBack { .. } => {
            rollback::finish(desk)?;
            clear(desk)?;
        }
    }
    watch_stopped(desk)?;
    watch_unconfirmed(desk)
}

/// A service that somebody stopped to start it again, and did not: it is started, or, where an activation waits
/// for its confirmation, that is taken back. Nobody knows then whether its release would have been good.
fn watch_stopped(desk: &mut Desk) -> Result<(), AgentError> {
    let Some(until) = desk.state().start_by.clone() else { return Ok(()) };
    // Stopping takes its own time, and holds the role's lock: who comes here finds it stopped, or running.
    let over = until.boot != boot::id() || boot::now().as_millis() >= u128::from(until.at_ms);
    if !over {
        let _ = guard::ensure(desk.root(), desk.dir());
        return Ok(());
    }
    let waits = desk.state().unconfirmed.as_ref().is_some_and(|waiting| waiting.deadline.is_some());
    if waits {
        return take_back(desk, "it was stopped, and nobody started it", false);
    }
    let started = match desk.state().current.clone() {
        Some(current) => desk.start_service(&current),
        None => Ok(None),
    };
    if desk.state().start_by.is_some() {
        // What cannot be started is told by the journal and by status; trying for ever would not help.
        let why =
            started.err().map_or_else(|| "nothing is there to be started".to_owned(), |error| error.full());
        desk.record(Record::ServiceFailed { why })?;
    }
    Ok(())
}

/// Removes what has no meaning without the process that made it.
pub(super) fn clear(desk: &Desk) -> Result<(), AgentError> {
    clear_leftovers(desk.dir().path())?;
    let releases = desk.dir().releases();
    clear_leftovers(&releases)?;
    for entry in releases.read_dir_utf8().at("read", &releases)? {
        let entry = entry.at("read", &releases)?;
        // A tree that was named but not journalled is nobody's, as is one whose removal was journalled.
        let name = entry.file_name();
        let name = name.strip_suffix(".json").or(name.strip_suffix(".service")).unwrap_or(name);
        let release = name.parse::<ReleaseName>().ok();
        let unknown = release.is_some_and(|release| desk.state().present(&release).is_none());
        if entry.file_name().starts_with(STAGING) || unknown {
            remove_tree(entry.path())?;
        }
    }
    Ok(spare::clear(desk.dir(), desk.state())?)
}

/// An activation that waits for a confirmation has a guard, or its time is over.
fn watch_unconfirmed(desk: &mut Desk) -> Result<(), AgentError> {
    let Some(waiting) = desk.state().unconfirmed.clone() else { return Ok(()) };
    let Some(until) = waiting.deadline else { return Ok(()) };
    if until.boot != boot::id() {
        // Nobody knows how long the machine was off, and the wall clock is no witness.
        let within = std::time::Duration::from_millis(until.within_ms);
        desk.record(Record::Rearmed { confirm: deadline(within) })?;
    } else if boot::now().as_millis() >= u128::from(until.at_ms) {
        go_back(desk)?;
        return Ok(());
    }
    // If it cannot be started now, the next run tries again, or goes back.
    let _ = guard::ensure(desk.root(), desk.dir());
    Ok(())
}

/// Takes an activation back whose time to be confirmed is over.
pub(super) fn go_back(desk: &mut Desk) -> Result<(), AgentError> {
    let Some(waiting) = &desk.state().unconfirmed else { return Ok(()) };
    let within = waiting.deadline.as_ref().map_or(0, |until| until.within_ms);
    let within = crate::model::Span(std::time::Duration::from_millis(within));
    take_back(desk, &format!("not confirmed within {within}"), true)
}

/// Takes back the activation that waits for its confirmation.
fn take_back(desk: &mut Desk, why: &str, bad: bool) -> Result<(), AgentError> {
    let state = desk.state();
    let Some(waiting) = state.unconfirmed.clone() else { return Ok(()) };
    let why = why.to_owned();
    let usable = |release: &&ReleaseName| {
        let known = state.present(release);
        known.is_some_and(|known| known.good && known.bad.is_none()) && desk.dir().release(release).is_dir()
    };
    let target = waiting.from.as_ref().filter(usable).or(state.prior().filter(usable)).cloned();
    let Some(to) = target else {
        let why =
            format!("{why}, and there is no release to go back to from {}", shown(Some(&waiting.release)));
        return desk.record(Record::GuardGaveUp { release: waiting.release, why });
    };
    if let Some(error) = desk.no_return(&to)? {
        let why = format!("{why}, and {error}");
        return desk.record(Record::GuardGaveUp { release: waiting.release, why });
    }
    let (from, to) = (Some(waiting.release), Some(to));
    let (restart, force) = (true, false);
    rollback::rollback(desk, &rollback::Rollback { from, to, why, bad, restart, force })?;
    Ok(())
}
