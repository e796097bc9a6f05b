//! Where a node is: from the journals, the links and the processes; the truth, not the plan.

use serde::{Deserialize, Serialize};

use super::boot;
use super::desk::{self, Desk};
use super::error::AgentError;
use super::guard;
use super::layout::{RoleDir, Root};
use super::lock::{self, Owner};
use super::names::ReleaseName;
use super::state::{Phase, State};
use super::supervise::{Pidfile, Process, ProcessState, Supervisor as _, Unit};
use crate::model::{Digest, Role, Version};
use crate::recipe::{Ready, ServiceKind};

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
    /// Waits for a confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<UnconfirmedStatus>,
    /// What was interrupted and will be finished by the next operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<String>,
    /// What is wrong and needs a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Which adapter knows the current release's service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceKind>,
    /// What proves that it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Ready>,
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

/// How long it waits for whoever is at a role: the lock of one that was killed while it started its guard is
/// let go only when the guard's program is loaded.
const GLANCE: std::time::Duration = std::time::Duration::from_millis(250);

/// Where a node is.
pub(super) fn status(root: Option<&Root>, role: Option<&Role>) -> Result<NodeStatus, AgentError> {
    let Some(root) = root else { return Ok(NodeStatus { lock: None, roles: Vec::new() }) };
    let dirs = match role {
        Some(role) => vec![root.role(role)],
        None => root.roles()?,
    };
    let roles = dirs.iter().filter(|dir| dir.exists()).map(|dir| of_role(root, dir));
    Ok(NodeStatus { lock: lock::owner(root)?, roles: roles.collect::<Result<_, _>>()? })
}

fn of_role(root: &Root, dir: &RoleDir) -> Result<RoleStatus, AgentError> {
    let mut state = match root.state_of(dir) {
        Ok(state) => state,
        // A node with one broken journal still tells about the rest.
        Err(error) => return Ok(broken(dir, &AgentError::from(error))),
    };
    let mut problem = None;
    if needs_hand(dir, &state)? {
        // Unless somebody is at it right now; then what is there is what is told.
        match Desk::open_within(root, dir.clone(), GLANCE) {
            Ok(Some(desk)) => state = desk.state().clone(),
            Ok(None) => {}
            Err(error) => problem = Some(error.full()),
        }
    }
    let process = Pidfile.status(dir)?;
    Ok(describe(dir, &state, process, problem))
}

/// Whether a killed run left something, or an activation waits without a guard.
fn needs_hand(dir: &RoleDir, state: &State) -> Result<bool, AgentError> {
    let waits = state.unconfirmed.as_ref().is_some_and(|waiting| waiting.deadline.is_some());
    Ok(state.phase != Phase::Idle || (waits && !guard::lives(dir)?))
}

fn broken(dir: &RoleDir, error: &AgentError) -> RoleStatus {
    let nothing = Process { state: ProcessState::Unknown, pid: None, release: None };
    describe(dir, &State::default(), Pidfile.status(dir).unwrap_or(nothing), Some(error.full()))
}

fn describe(dir: &RoleDir, state: &State, process: Process, problem: Option<String>) -> RoleStatus {
    let link = desk::link(dir);
    let problem = problem.or_else(|| match &link {
        Err(error) => Some(error.full()),
        Ok(link) if *link != state.current && state.phase == Phase::Idle => {
            let (path, link, journal) = (dir.current(), link.clone(), state.current.clone());
            Some(AgentError::LinkMoved { path, link, journal }.to_string())
        }
        Ok(_) => None,
    });
    let present = |known: &&super::state::Known| !known.removed;
    let current = state.current.clone();
    let unit = current.as_ref().and_then(|release| Unit::read(&dir.release_service(release)).ok().flatten());
    let left = |deadline: &super::record::Deadline| {
        (deadline.boot == boot::id()).then(|| {
            deadline.at_ms.saturating_sub(u64::try_from(boot::now().as_millis()).unwrap_or(u64::MAX))
        })
    };
    RoleStatus {
        role: dir.role().clone(),
        version: current.as_ref().map(|release| release.version().clone()),
        digest: current.as_ref().and_then(|release| state.releases.get(release)).map(|known| known.bundle),
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
        problem,
        kind: unit.as_ref().map(|unit| unit.kind),
        probe: unit.and_then(|unit| unit.ready),
    }
}
