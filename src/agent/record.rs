//! The records of a role's journal.
//!
//! # Invariants
//!
//! * A new kind of record bumps [`FORMAT`], which the first record carries.
//! * No secret ever stands in one.

use serde::{Deserialize, Serialize};

use super::names::ReleaseName;
use crate::model::{Digest, Role, Timestamp};

/// The version of the journal; a newer one is refused.
pub(super) const FORMAT: u32 = 1;

/// When an activation that nobody confirmed is taken back, on the boot's own clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Which boot's clock.
    pub boot: String,
    /// Milliseconds on that clock.
    pub at_ms: u64,
    /// How long it was, to be counted anew after a reboot.
    pub within_ms: u64,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// The first record of a role on this node.
    Created {
        /// `FORMAT`.
        format: u32,
        /// Which role.
        role: Role,
    },
    /// A release is complete and on the disk.
    Staged {
        /// Which.
        release: ReleaseName,
        /// Made from what.
        bundle: Digest,
        /// For which rollout.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout: Option<String>,
        /// By whom.
        who: String,
    },
    /// `current` is about to be swapped. `None` is "no link".
    Activating {
        /// What it points at.
        from: Option<ReleaseName>,
        /// What it will point at.
        to: Option<ReleaseName>,
        /// For which rollout.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout: Option<String>,
        /// Until when it must be confirmed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm: Option<Deadline>,
    },
    /// `current` was swapped.
    Activated {
        /// What it points at.
        to: Option<ReleaseName>,
    },
    /// An activation ended before the swap; `current` is what it was.
    Abandoned {
        /// What it should have pointed at.
        to: Option<ReleaseName>,
        /// Why.
        why: String,
    },
    /// The time to confirm counts anew: the machine was started anew, or another rollout goes on with it.
    Rearmed {
        /// Until when.
        confirm: Deadline,
    },
    /// The gates passed.
    Confirmed {
        /// Of which release.
        release: ReleaseName,
    },
    /// Going back is about to begin. It is finished, not undone, if it is interrupted.
    RollingBack {
        /// What `current` points at.
        from: Option<ReleaseName>,
        /// What it will point at.
        to: Option<ReleaseName>,
        /// Why.
        why: String,
        /// Whether the service is stopped before and started after.
        restart: bool,
    },
    /// Going back is done.
    RolledBack {
        /// What `current` points at.
        to: Option<ReleaseName>,
    },
    /// The guard's time came, and there was nothing to go back to.
    GuardGaveUp {
        /// What stays current, unconfirmed.
        release: ReleaseName,
        /// Why.
        why: String,
    },
    /// A release failed; it is never chosen again by itself.
    MarkedBad {
        /// Which.
        release: ReleaseName,
        /// How it failed.
        why: String,
    },
    /// gc leaves a release alone.
    Pinned {
        /// Which.
        release: ReleaseName,
    },
    /// gc may remove a release again.
    Unpinned {
        /// Which.
        release: ReleaseName,
    },
    /// A release is about to be removed from the disk.
    Removed {
        /// Which.
        release: ReleaseName,
    },
    /// The service is about to be started.
    ServiceStart {
        /// From which release.
        release: ReleaseName,
    },
    /// A version of the product is about to be executed on the role's data for the first time, or the data is said
    /// to be of that version. It stands before the service's start.
    DataOpened {
        /// The version.
        product: String,
    },
    /// The service is about to be stopped.
    ServiceStop {
        /// Why.
        why: String,
        /// Until when whoever stops it means to have started it again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_by: Option<Deadline>,
    },
    /// The service was stopped.
    ServiceStopped {
        /// It did not end in time and was killed.
        killed: bool,
    },
    /// The service could not be started.
    ServiceFailed {
        /// Why.
        why: String,
    },
    /// Settings of the service's cluster are about to be changed; none: they are what they were.
    Settings {
        /// Each with what it was.
        settings: Vec<Setting>,
    },
    /// A rollout has this role among what it is going to change. Every release that it needs is on the disk.
    Planned {
        /// What for.
        #[serde(flatten)]
        errand: Errand,
    },
    /// That rollout ended.
    Ended {
        /// Which.
        rollout: String,
        /// How: the name of its outcome.
        outcome: String,
    },
}

/// A setting of a service's cluster that a rollout changes, with what it was. No secret is in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// In which cluster: whatever tells it apart from others, as Elasticsearch's `cluster_uuid`.
    pub cluster: String,
    /// Which, as its adapter names it: `persistent.cluster.routing.allocation.enable`.
    pub name: String,
    /// What it was before the rollout; null is "not set".
    pub prior: serde_json::Value,
    /// What the rollout sets it to.
    pub value: serde_json::Value,
}

/// What a rollout is going to do with a role, so that any machine can go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// The rollout's id.
    pub rollout: String,
    /// Its kind: the command that makes such a rollout.
    pub kind: String,
    /// What was current; `None` is no release.
    pub from: Option<ReleaseName>,
    /// What shall be current; `None` is no release.
    pub to: Option<ReleaseName>,
    /// By whom.
    pub who: String,
    /// From which machine.
    pub host: String,
}

impl Record {
    /// Whether it is waited for until it is on the disk.
    ///
    /// The others are facts that a power cut cannot take: the record before them announced what they tell, and
    /// the link, or that nothing runs, tells how it came out, as [`super::recover`] reads it.
    pub(super) fn must_last(&self) -> bool {
        match self {
            Self::Staged { .. }
            | Self::Activating { .. }
            | Self::Rearmed { .. }
            | Self::Confirmed { .. }
            | Self::RollingBack { .. }
            | Self::GuardGaveUp { .. }
            | Self::MarkedBad { .. }
            | Self::Pinned { .. }
            | Self::Unpinned { .. }
            | Self::Removed { .. }
            | Self::ServiceStart { .. }
            | Self::DataOpened { .. }
            | Self::ServiceStop { .. }
            | Self::ServiceFailed { .. }
            | Self::Settings { .. }
            | Self::Planned { .. } => true,
            Self::Created { .. }
            | Self::Activated { .. }
            | Self::Abandoned { .. }
            | Self::RolledBack { .. }
            | Self::ServiceStopped { .. }
            | Self::Ended { .. } => false,
        }
    }
}

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1.
    pub seq: u64,
    /// When, by the node's clock; for people only.
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub record: Record,
}
