//! What can be asked of an agent: requests and answers, as types and as JSON.
//!
//! `windlass node call` reads requests from stdin, one JSON object a line, and answers each with one line:
//! `{"done":{...}}` or `{"error":{"kind","message","causes","help"}}`. It goes on until stdin ends, so that one
//! process serves a whole rollout. `receive`, `lock` and `guard` are commands of their own: the first is a
//! binary stream, the second holds something for as long as stdin is open, the third is started by the agent.
//!
//! # Invariants
//!
//! * Nothing that may hold a secret is in an answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::activate::Activated;
use super::drift::Difference;
use super::error::ErrorLine;
use super::facts::{Preflight, PreflightAsk};
use super::gc::{Collected, GcRequest};
use super::heal::{HealContext, Healed};
use super::lock::Claim;
use super::names::ReleaseName;
use super::preview::{Preview, PreviewRequest};
use super::record::{Entry, Errand, Setting};
use super::rollback::RolledBack;
use super::stage::{StageRequest, Staged};
use super::status::NodeStatus;
use super::supervise::{Process, Reloaded, Started, Stopped};
use crate::model::{Digest, Role, Span};

/// One request, as it comes in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// The lock's token; without one, an operation that changes something takes the lock itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Who asks.
    #[serde(default)]
    pub claim: Claim,
    /// What.
    #[serde(flatten)]
    pub request: Request,
}

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Where the node is; answered by [`NodeStatus`].
    Status {
        /// Only this role.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
    },
    /// What of these the node has; answered by [`Have`].
    Have {
        /// Contents that are asked after.
        #[serde(default)]
        objects: Vec<WantedObject>,
    },
    /// What staging would make; answered by [`Preview`].
    Preview(Box<PreviewRequest>),
    /// Makes a release ready; answered by [`Staged`].
    Stage(Box<StageRequest>),
    /// Makes a release current; answered by [`Activated`].
    Activate {
        /// Which role.
        role: Role,
        /// What must be current now.
        from: Option<ReleaseName>,
        /// What shall be.
        to: Option<ReleaseName>,
        /// For which rollout.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout: Option<String>,
        /// How long the node waits for a confirmation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_within: Option<Span>,
        /// Take a release that was marked bad.
        #[serde(default)]
        allow_bad: bool,
    },
    /// The gates passed; answered by [`Confirmed`].
    Confirm {
        /// Which role.
        role: Role,
        /// Which release.
        release: ReleaseName,
    },
    /// Goes back; answered by [`RolledBack`].
    Rollback {
        /// Which role.
        role: Role,
        /// What must be current now; absent is anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<ReleaseName>,
        /// Where to; absent is the prior release.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<ReleaseName>,
        /// Why.
        why: String,
        /// Mark what is left as bad.
        #[serde(default)]
        bad: bool,
        /// Stop the service before and start it after.
        #[serde(default)]
        restart: bool,
        /// Even where a newer version has opened the data: a person says that it was put back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// A release failed; answered by [`Noted`].
    MarkBad {
        /// Which role.
        role: Role,
        /// Which release.
        release: ReleaseName,
        /// How.
        why: String,
    },
    /// gc leaves a release alone, or no longer; answered by [`Noted`].
    Pin {
        /// Which role.
        role: Role,
        /// Which release.
        release: ReleaseName,
        /// Whether it is pinned.
        pinned: bool,
    },
    /// What differs on the disk; answered by [`Drift`].
    Drift {
        /// Which role.
        role: Role,
        /// Which release; absent is the current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<ReleaseName>,
    },
    /// Puts back what differs, from the objects; answered by [`Healed`].
    Heal {
        /// Which role.
        role: Role,
        /// Which release; absent is the current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<ReleaseName>,
        /// What its templates saw; without it no rendered file is healed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with: Option<Box<HealContext>>,
    },
    /// Removes what is not needed; answered by [`Collected`].
    Gc(GcRequest),
    /// Starts the service; answered by [`ServiceStarted`].
    ServiceStart {
        /// Which role.
        role: Role,
        /// From which release; absent is the current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<ReleaseName>,
    },
    /// Stops the service; answered by [`Stopped`].
    ServiceStop {
        /// Which role.
        role: Role,
        /// Why, for the journal.
        #[serde(default)]
        why: String,
        /// Unless it was started by then, the node starts it by itself, or goes back where an activation waits
        /// for its confirmation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_within: Option<Span>,
    },
    /// Tells the service to read its conf again; answered by [`Reloaded`].
    ServiceReload {
        /// Which role.
        role: Role,
        /// The release that it serves from now on, which must be current; absent is the one that it serves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<ReleaseName>,
    },
    /// Whether the service runs; answered by [`Process`].
    ServiceStatus {
        /// Which role.
        role: Role,
    },
    /// Runs the command that proves that the service is ready, once; answered by [`Probed`].
    Probe {
        /// Which role.
        role: Role,
        /// How long it may take; absent is 10 seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<Span>,
    },
    /// Settings of the service's cluster are about to be changed, or, with none, are back; answered by
    /// [`Journalled`].
    Settings {
        /// Which role.
        role: Role,
        /// Each with what it was.
        settings: Vec<Setting>,
    },
    /// A rollout is going to change the role; answered by [`Journalled`].
    Plan {
        /// Which role.
        role: Role,
        /// What for.
        #[serde(flatten)]
        errand: Errand,
    },
    /// A rollout ended; answered by [`Journalled`].
    End {
        /// Which role.
        role: Role,
        /// Which rollout.
        rollout: String,
        /// How: the name of its outcome.
        outcome: String,
    },
    /// A role's journal; answered by [`History`].
    Journal {
        /// Which role.
        role: Role,
    },
    /// What the node is like for services; answered by [`Preflight`].
    Preflight {
        /// What is asked about each role.
        roles: BTreeMap<Role, PreflightAsk>,
    },
}

/// A content that is asked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedObject {
    /// Of the content.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Whether it is executable.
    #[serde(default)]
    pub executable: bool,
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Bundles whose manifests and tables are there.
    pub bundles: Vec<Digest>,
    /// Indices of what was asked after and is not there.
    pub missing: Vec<usize>,
    /// Bytes that are free below the root.
    pub free_bytes: u64,
}

/// The gates passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Which release.
    pub release: ReleaseName,
    /// It was told before.
    pub already: bool,
}

/// It was journalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// About which release.
    pub release: ReleaseName,
}

/// It is in the role's journal, on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journalled {
    /// Which role's.
    pub role: Role,
}

/// What differs on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// In which release.
    pub release: ReleaseName,
    /// Each path.
    pub drift: Vec<Difference>,
}

/// A service that runs, or a release that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStarted {
    /// From which release.
    pub release: ReleaseName,
    /// Its process.
    #[serde(flatten)]
    pub started: Started,
}

/// What a probe's command said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// It exited with 0.
    pub ready: bool,
    /// Its exit code; absent if it took too long.
    pub exit: Option<i32>,
}

/// A role's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Its records, in order.
    pub entries: Vec<Entry>,
}

/// An answer, as it goes out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each is described where its type is")]
pub enum Answer {
    Status(NodeStatus),
    Have(Have),
    Preview(Box<Preview>),
    Staged(Box<Staged>),
    Activated(Activated),
    Confirmed(Confirmed),
    RolledBack(RolledBack),
    Noted(Noted),
    Journalled(Journalled),
    Drift(Drift),
    Healed(Healed),
    Collected(Collected),
    Started(ServiceStarted),
    Stopped(Stopped),
    Reloaded(Reloaded),
    Process(Process),
    Probed(Probed),
    History(History),
    Preflight(Box<Preflight>),
}

/// The line that answers a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line<T> {
    /// It was done.
    Done(T),
    /// It was not.
    Error(ErrorLine),
}

impl Request {
    /// The role that it is about.
    pub fn role(&self) -> Option<&Role> {
        match self {
            Self::Preview(request) => Some(&request.role),
            Self::Stage(request) => Some(&request.role),
            Self::Activate { role, .. }
            | Self::Confirm { role, .. }
            | Self::Rollback { role, .. }
            | Self::MarkBad { role, .. }
            | Self::Pin { role, .. }
            | Self::Drift { role, .. }
            | Self::Heal { role, .. }
            | Self::ServiceStart { role, .. }
            | Self::ServiceReload { role, .. }
            | Self::ServiceStop { role, .. }
            | Self::ServiceStatus { role }
            | Self::Probe { role, .. }
            | Self::Settings { role, .. }
            | Self::Plan { role, .. }
            | Self::End { role, .. }
            | Self::Journal { role } => Some(role),
            Self::Status { role } => role.as_ref(),
            Self::Have { .. } | Self::Gc(_) | Self::Preflight { .. } => None,
        }
    }
}
