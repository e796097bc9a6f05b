//! Where a node is: from the journals, the links and the processes; the truth, not the plan.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::boot;
use super::desk;
use super::error::AgentError;
use super::guard;
use super::layout::{RoleDir, Root};
use super::lock::{self, Owner};
use super::names::ReleaseName;
use super::record::{Deadline, Errand, Setting};
use super::state::{Phase, State};
use super::supervise::{self, Process, ProcessState, Unit};
use super::words;
use crate::fs::{DirLock, LockKind};
use crate::model::{Digest, Role, Version, millis};
use crate::recipe::{Api, Ready, ServiceKind};

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Who holds its lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Owner>,
    /// Every role that was ever staged on it.
    pub roles: Vec<RoleStatus>,
}

/// A role on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleStatus {
    /// Which.
    pub role: Role,
    /// What is current.
    pub release: Option<ReleaseName>,
    /// Its version.
    pub version: Option<Version>,
    /// Its bundle.
    pub digest: Option<Digest>,
    /// What a rollback goes to.
    pub prior: Option<ReleaseName>,
    /// Every release on the disk.
    pub staged: Vec<StagedStatus>,
    /// Releases that failed.
    pub bad: Vec<BadStatus>,
    /// The process.
    pub process: ProcessState,
    /// Its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The release that it runs from; not always the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<ReleaseName>,
    /// What a service that has failed said last; absent where secrets were given to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// Waits for a confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<UnconfirmedStatus>,
    /// What is under way, or was interrupted and is about to be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<String>,
    /// Some process changes the role at this moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub busy: bool,
    /// The newest version of the product that was executed on the role's data, where that binds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<String>,
    /// Why the guard did not go back from what is current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gave_up: Option<String>,
    /// What is wrong and needs a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Which adapter knows the current release's service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceKind>,
    /// What proves that it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Ready>,
    /// Where its adapter asks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<Api>,
    /// The product's version in the current release, where its bundle says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// What a rollout changed in the service's cluster, and has not put back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
    /// The last rollout that had this role among what it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errand: Option<Errand>,
    /// How that ended; absent if it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A release on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedStatus {
    /// Which.
    pub release: ReleaseName,
    /// Its bundle.
    pub digest: Digest,
    /// It was confirmed once.
    pub good: bool,
    /// gc leaves it alone.
    pub pinned: bool,
    /// The product's version in it, where its bundle says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

/// A release that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadStatus {
    /// Which.
    pub release: ReleaseName,
    /// How.
    pub why: String,
}

/// An activation that waits for a confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedStatus {
    /// What was current before.
    pub from: Option<ReleaseName>,
    /// Until the guard goes back; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// How long it waits, for all roles together, until what was interrupted is finished.
const GLANCE: Duration = Duration::from_millis(250);

/// Where a node is.
///
/// What a killed run left is not finished here, since that may stop and start a service: a guard does it. If it
/// is not done within [`GLANCE`], or somebody is at a role anyway, what is there is what is told.
pub(super) fn status(root: Option<&Root>, role: Option<&Role>) -> Result<NodeStatus, AgentError> {
    let Some(root) = root else { return Ok(NodeStatus { lock: None, roles: Vec::new() }) };
    let mut dirs = match role {
        Some(role) => vec![root.role(role)],
        None => root.roles()?,
    };
    dirs.retain(RoleDir::exists);
    let until = Instant::now() + GLANCE;
    // Every role is looked at each time: one that waits keeps no other from its guard.
    while dirs.iter().filter(|dir| needs_hand(root, dir)).count() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let roles = dirs.iter().map(|dir| of_role(root, dir)).collect();
    Ok(NodeStatus { lock: lock::owner(root)?, roles })
}

fn of_role(root: &Root, dir: &RoleDir) -> RoleStatus {
    let mut reading = Reading::of(root, dir);
    for _ in 1..READINGS {
        if reading.is_consistent() {
            break;
        }
        reading = Reading::of(root, dir);
    }
    reading.describe(dir)
}

/// How often a role is read while operations change it between the journal and the link.
const READINGS: usize = 5;

/// What a role's journal, link and process say at one moment.
///
/// The role's lock is held shared meanwhile, so that no operation changes one after another was read. Where that is
/// refused the role is busy, and was so before the journal was read: a reading never shows an operation under way of
/// a role that it shows as idle.
struct Reading {
    busy: bool,
    state: State,
    link: Result<Option<ReleaseName>, AgentError>,
    process: Process,
    problem: Option<String>,
}

impl Reading {
    fn of(root: &Root, dir: &RoleDir) -> Self {
        let lock = DirLock::attempt(dir.path(), LockKind::Shared);
        // A node with one broken journal still tells about the rest.
        let (state, problem) = match root.state_of(dir) {
            Ok(state) => (state, None),
            Err(error) => (State::default(), Some(AgentError::from(error).full())),
        };
        let link = desk::link(dir);
        let (process, no_process) = process(dir);
        Self { busy: matches!(lock, Ok(None)), state, link, process, problem: problem.or(no_process) }
    }

    /// Whether the journal and the link certainly belong together.
    fn is_consistent(&self) -> bool {
        !self.busy || self.moved().is_none()
    }

    /// The link's target, where it is not what the journal of an idle role says.
    fn moved(&self) -> Option<&Option<ReleaseName>> {
        let idle = self.state.phase == Phase::Idle;
        self.link.as_ref().ok().filter(|link| idle && **link != self.state.current)
    }

    fn describe(self, dir: &RoleDir) -> RoleStatus {
        let moved = self.moved().map(|link| {
            let (path, link, journal) = (dir.current(), link.clone(), self.state.current.clone());
            AgentError::LinkMoved { path, link, journal }.to_string()
        });
        let Self { busy, state, link, process, problem } = self;
        let problem = problem.or_else(|| link.err().map(|error| error.full())).or(moved);
        let present = |known: &&super::state::Known| !known.removed;
        let current = state.current.clone();
        let unit_of = |release: &ReleaseName| Unit::read(&dir.release_service(release)).ok().flatten();
        let unit = current.as_ref().and_then(unit_of);
        let failed = process.release.as_ref().filter(|_| process.state == ProcessState::Failed);
        let said = failed.and_then(|release| words::of_service(dir, release, &unit_of(release)?));
        let left = |deadline: &Deadline| {
            (deadline.boot == boot::id()).then(|| deadline.at_ms.saturating_sub(millis(boot::now())))
        };
        RoleStatus {
            role: dir.role().clone(),
            version: current.as_ref().map(|release| release.version().clone()),
            digest: current
                .as_ref()
                .and_then(|release| state.releases.get(release))
                .map(|known| known.bundle),
            release: current,
            prior: state.prior().cloned(),
            staged: state
                .releases
                .iter()
                .filter(|(_, known)| present(known))
                .map(|(release, known)| StagedStatus {
                    release: release.clone(),
                    digest: known.bundle,
                    good: known.good,
                    pinned: known.pinned,
                    product: unit_of(release).and_then(|unit| unit.product),
                })
                .collect(),
            bad: state
                .releases
                .iter()
                .filter(|(_, known)| present(known))
                .filter_map(|(release, known)| {
                    Some(BadStatus { release: release.clone(), why: known.bad.clone()? })
                })
                .collect(),
            process: process.state,
            pid: process.pid,
            said,
            runs: process.release,
            unconfirmed: state.unconfirmed.as_ref().map(|waiting| UnconfirmedStatus {
                from: waiting.from.clone(),
                left_ms: waiting.deadline.as_ref().and_then(left),
            }),
            interrupted: match &state.phase {
                Phase::Idle => None,
                Phase::Activating { .. } => Some("activating".to_owned()),
                Phase::RollingBack { .. } => Some("rolling-back".to_owned()),
            },
            busy,
            problem,
            opened: state.opened.clone(),
            gave_up: state.gave_up.clone(),
            kind: unit.as_ref().map(|unit| unit.kind),
            api: unit.as_ref().and_then(|unit| unit.api.clone()),
            product: unit.as_ref().and_then(|unit| unit.product.clone()),
            probe: unit.and_then(|unit| unit.ready),
            settings: state.settings.clone(),
            ended: state.errand.as_ref().and_then(|(_, ended)| ended.clone()),
            errand: state.errand.as_ref().map(|(errand, _)| errand.clone()),
        }
    }
}

/// Whether a killed run left something, or an activation waits without a guard; if so, and if nobody is at the
/// role, a guard is started, which puts it right.
fn needs_hand(root: &Root, dir: &RoleDir) -> bool {
    let Ok(state) = root.state_of(dir) else { return false };
    let over =
        |until: &Deadline| until.boot != boot::id() || boot::now().as_millis() >= u128::from(until.at_ms);
    let guarded = guard::lives(dir).unwrap_or(false);
    let waits = state.guarded().is_some_and(|until| !guarded || over(until));
    if state.phase == Phase::Idle && !waits {
        return false;
    }
    if let Ok(Some(_lock)) = DirLock::attempt(dir.path(), LockKind::Exclusive) {
        // If it cannot be started, what is told is still true, and the next operation puts it right.
        let _ = guard::ensure(root, dir);
    }
    true
}

/// The process, or why nobody can tell: a supervisor may be down while everything else can be told.
fn process(dir: &RoleDir) -> (Process, Option<String>) {
    match supervise::status(dir) {
        Ok(process) => (process, None),
        Err(error) => {
            let nothing = Process { state: ProcessState::Unknown, pid: None, release: None };
            (nothing, Some(AgentError::from(error).full()))
        }
    }
}
