//! Making a staged release current: intent, swap, fact.
//!
//! # Invariants
//!
//! * `current` points at the old release or the new one at every moment.
//! * The intent is on the disk and the guard is waiting before the link is touched.

use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::boot;
use super::desk::Desk;
use super::error::AgentError;
use super::guard;
use super::names::ReleaseName;
use super::record::{Deadline, Record};
use crate::fs::{IoError, SwapError};
use crate::model::millis;

/// What to make current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// What must be current now.
    pub from: Option<ReleaseName>,
    /// What shall be; `None` removes the link.
    pub to: Option<ReleaseName>,
    /// For which rollout.
    pub rollout: Option<String>,
    /// How long the node waits for a confirmation before it goes back; `None` is for ever.
    pub confirm_within: Option<Duration>,
    /// Take a release that was marked bad.
    pub allow_bad: bool,
}

/// Why a release could not be made current on a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivateError {
    /// It is not there.
    #[error("release {release} is not staged on this node")]
    NotStaged {
        /// What should be made current.
        release: ReleaseName,
    },
    /// It failed before.
    #[error("release {release} was marked bad: {why}")]
    Bad {
        /// What should be made current.
        release: ReleaseName,
        /// How it failed.
        why: String,
    },
    /// The node is not where the caller thinks it is.
    #[error("{} is current, not {}", shown(found.as_ref()), shown(expected.as_ref()))]
    Moved {
        /// What should be current.
        expected: Option<ReleaseName>,
        /// What is.
        found: Option<ReleaseName>,
    },
    /// The link could not be replaced.
    #[error("could not point {link} at {}", shown(to.as_ref()))]
    Swap {
        /// The link.
        link: Utf8PathBuf,
        /// What should be made current.
        to: Option<ReleaseName>,
        /// Why not.
        source: IoError,
    },
    /// The link was replaced.
    #[error("{link} was replaced, but the change may not survive a power cut")]
    SyncParent {
        /// The link.
        link: Utf8PathBuf,
        /// Why not.
        source: IoError,
    },
    /// The guard could not be started, so nothing was changed.
    #[error("no guard could be started that would go back")]
    Guard(#[source] IoError),
}

impl ActivateError {
    /// Whether the node certainly still runs what it ran before.
    ///
    /// Exhaustive on purpose: a new variant must answer this question.
    pub fn left_untouched(&self) -> bool {
        match self {
            Self::NotStaged { .. }
            | Self::Bad { .. }
            | Self::Moved { .. }
            | Self::Swap { .. }
            | Self::Guard(_) => true,
            Self::SyncParent { .. } => false,
        }
    }
}

/// A release's name for a message.
pub(super) fn shown(release: Option<&ReleaseName>) -> String {
    release.map_or_else(|| "no release".to_owned(), ToString::to_string)
}

/// What became current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activated {
    /// What was.
    pub from: Option<ReleaseName>,
    /// What is.
    pub to: Option<ReleaseName>,
    /// It was before; nothing was done.
    pub already: bool,
    /// The guard goes back unless it is confirmed.
    pub guarded: bool,
}

/// Makes a release current.
pub(super) fn activate(desk: &mut Desk, wanted: &Activation) -> Result<Activated, AgentError> {
    let found = desk.state().current.clone();
    let (from, to) = (found.clone(), wanted.to.clone());
    check_link(desk)?;
    if found == to {
        let guarded = desk.state().unconfirmed.as_ref().is_some_and(|waiting| waiting.deadline.is_some());
        if let Some(within) = wanted.confirm_within.filter(|within| guarded && !within.is_zero()) {
            // Whoever goes on with it has all of the time.
            desk.record(Record::Rearmed { confirm: deadline(within) })?;
            guard::ensure(desk.root(), desk.dir()).map_err(ActivateError::Guard)?;
        }
        return Ok(Activated { from, to, already: true, guarded });
    }
    if found != wanted.from {
        return Err(ActivateError::Moved { expected: wanted.from.clone(), found }.into());
    }
    if let Some(release) = &to {
        let known = desk.state().present(release).filter(|_| desk.dir().release(release).is_dir());
        let known = known.ok_or_else(|| ActivateError::NotStaged { release: release.clone() })?;
        if let Some(why) = known.bad.clone().filter(|_| !wanted.allow_bad) {
            return Err(ActivateError::Bad { release: release.clone(), why }.into());
        }
        if let Some(error) = desk.no_return(release)? {
            return Err(error);
        }
    }
    // Without a release there is nothing to confirm.
    let within = wanted.confirm_within.filter(|within| !within.is_zero() && to.is_some());
    let confirm = within.map(deadline);
    let rollout = wanted.rollout.clone();
    desk.record(Record::Activating { from: from.clone(), to: to.clone(), rollout, confirm })?;
    // Not on a thread of its own while the disk is waited for: waking that cost more than it saved.
    if within.is_some()
        && let Err(error) = guard::ensure(desk.root(), desk.dir())
    {
        desk.record(Record::Abandoned { to, why: "no guard could be started".to_owned() })?;
        return Err(ActivateError::Guard(error).into());
    }
    let link = desk.dir().current();
    match desk.swap(to.as_ref()) {
        Ok(()) => {}
        Err(SwapError::Untouched(source)) => {
            desk.record(Record::Abandoned { to: to.clone(), why: source.to_string() })?;
            return Err(ActivateError::Swap { link, to, source }.into());
        }
        // The intent stays: whoever opens the role next looks where the link points by then.
        Err(SwapError::Unsynced(source)) => return Err(ActivateError::SyncParent { link, source }.into()),
    }
    desk.record(Record::Activated { to: to.clone() })?;
    Ok(Activated { from, to, already: false, guarded: within.is_some() })
}

/// When something that is to be confirmed within that time from now is taken back.
pub(super) fn deadline(within: Duration) -> Deadline {
    Deadline {
        boot: boot::id().to_owned(),
        at_ms: millis(boot::now().saturating_add(within)),
        within_ms: millis(within),
    }
}

/// The link must say what the journal says; a person may have changed it.
pub(super) fn check_link(desk: &Desk) -> Result<(), AgentError> {
    let (link, journal) = (desk.link()?, desk.state().current.clone());
    if link == journal {
        Ok(())
    } else {
        Err(AgentError::LinkMoved { path: desk.dir().current(), link, journal })
    }
}

/// Tells the journal that the gates passed; true if it was told before.
pub(super) fn confirm(desk: &mut Desk, release: &ReleaseName) -> Result<bool, AgentError> {
    let state = desk.state();
    if state.current.as_ref() != Some(release) {
        let (expected, found) = (Some(release.clone()), state.current.clone());
        return Err(ActivateError::Moved { expected, found }.into());
    }
    if state.unconfirmed.is_none() && state.confirmed.last() == Some(release) {
        return Ok(true);
    }
    desk.record(Record::Confirmed { release: release.clone() })?;
    Ok(false)
}
