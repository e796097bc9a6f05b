//! Doing what is asked: the root, the lock, the role, then the operation itself.
//!
//! # Invariants
//!
//! * What changes the node needs its lock: through the token of a rollout that holds it, or by taking it.
//! * The lock is asked for again after waiting for the role.

use camino::{Utf8Path, Utf8PathBuf};

use super::activate::{self, Activation};
use super::call::{
    Answer, Call, Confirmed, Drift, Have, History, Journalled, Noted, Probed, Request, ServiceStarted,
    WantedObject,
};
use super::desk::Desk;
use super::error::AgentError;
use super::journal;
use super::layout::Root;
use super::lock::Authority;
use super::memory::Memory;
use super::objects::{ObjectId, Objects};
use super::record::Record;
use super::rollback::{self, Rollback};
use super::spare::Spares;
use super::supervise::{self, Unit};
use super::{drift, gc, heal, preflight, preview, stage, status};
use crate::model::{Role, Span};
use crate::recipe::{Probe, Ready};

/// The mode of a root that the agent makes.
pub const ROOT_MODE: u32 = 0o700;

/// An agent: a root, and what this process read of it so far.
#[derive(Clone, Debug)]
pub struct Agent {
    path: Utf8PathBuf,
    memory: Memory,
    spares: Spares,
}

/// Does what is asked once, at the root at `path`.
pub fn perform(path: &Utf8Path, call: Call) -> Result<Answer, AgentError> {
    Agent::new(path).perform(call)
}

impl Agent {
    /// An agent for the root at `path`, whether that is there or not.
    pub fn new(path: &Utf8Path) -> Self {
        Self { path: path.to_owned(), memory: Memory::default(), spares: Spares::default() }
    }

    fn root(&self) -> Result<Option<Root>, AgentError> {
        Ok(Root::open(&self.path)?.map(|root| root.remembering(&self.memory)))
    }

    /// Does what is asked.
    pub fn perform(&self, call: Call) -> Result<Answer, AgentError> {
        let path = &self.path;
        let Call { token, claim, request } = call;
        let open = || self.root()?.ok_or_else(|| AgentError::NoRoot(path.to_owned()));
        match request {
            Request::Status { role } => {
                Ok(Answer::Status(status::status(self.root()?.as_ref(), role.as_ref())?))
            }
            Request::Have { objects } => Ok(Answer::Have(have(self.root()?.as_ref(), path, &objects)?)),
            Request::Preview(request) => Ok(Answer::Preview(Box::new(preview::preview(path, &request)?))),
            Request::Preflight { roles } => {
                Ok(Answer::Preflight(Box::new(preflight::preflight(path, &roles)?)))
            }
            Request::Journal { role } => {
                let entries = journal::entries(&open()?.role(&role).journal())?;
                Ok(Answer::History(History { entries }))
            }
            Request::Drift { role, release } => {
                let root = open()?;
                let dir = root.role(&role);
                let release = match release {
                    Some(release) => release,
                    None => root.state_of(&dir)?.current.ok_or(AgentError::NoCurrent { role })?,
                };
                let drift = drift::drift(&root, &dir, &release)?;
                Ok(Answer::Drift(Drift { release, drift }))
            }
            Request::ServiceStatus { role } => Ok(Answer::Process(Desk::open(&open()?, &role)?.process()?)),
            Request::Probe { role, within } => Ok(Answer::Probed(probe(&open()?, role, within)?)),
            Request::Stage(request) => {
                let root = Root::create(path, ROOT_MODE)?.remembering(&self.memory);
                let authority = Authority::new(&root, token, &claim)?;
                let mut desk = Desk::create(&root, &request.role)?;
                authority.check(&root)?;
                let staged = stage::stage(&mut desk, &request)?;
                self.spares.order(&root, &request.role, staged.files);
                Ok(Answer::Staged(Box::new(staged)))
            }
            Request::Gc(request) => {
                let root = open()?;
                let authority = Authority::new(&root, token, &claim)?;
                Ok(Answer::Collected(gc::collect(&root, request, &authority)?))
            }
            change => {
                let root = open()?;
                let authority = Authority::new(&root, token, &claim)?;
                let mut desk = Desk::open(&root, change.role().ok_or_else(|| unexpected("a role"))?)?;
                // Waiting for the role may have taken long enough to lose the lock.
                authority.check(&root)?;
                change_role(&mut desk, change)
            }
        }
    }
}

fn unexpected(what: &str) -> AgentError {
    AgentError::Internal(format!("a request without {what}"))
}

fn change_role(desk: &mut Desk, request: Request) -> Result<Answer, AgentError> {
    match request {
        Request::Activate { from, to, rollout, confirm_within, allow_bad, .. } => {
            let confirm_within = confirm_within.map(|span| span.0);
            let wanted = Activation { from, to, rollout, confirm_within, allow_bad };
            Ok(Answer::Activated(activate::activate(desk, &wanted)?))
        }
        Request::Confirm { release, .. } => {
            let already = activate::confirm(desk, &release)?;
            Ok(Answer::Confirmed(Confirmed { release, already }))
        }
        Request::Rollback { from, to, why, bad, restart, force, .. } => {
            let wanted = Rollback { from, to, why, bad, restart, force };
            Ok(Answer::RolledBack(rollback::rollback(desk, &wanted)?))
        }
        Request::MarkBad { release, why, .. } => {
            desk.record(Record::MarkedBad { release: release.clone(), why })?;
            Ok(Answer::Noted(Noted { release }))
        }
        Request::Pin { release, pinned, .. } => {
            let note = release.clone();
            let record =
                if pinned { Record::Pinned { release: note } } else { Record::Unpinned { release: note } };
            desk.record(record)?;
            Ok(Answer::Noted(Noted { release }))
        }
        Request::Heal { role, release, with } => {
            let release = release.or_else(|| desk.state().current.clone());
            let release = release.ok_or(AgentError::NoCurrent { role })?;
            Ok(Answer::Healed(heal::heal(desk, &release, with.as_deref())?))
        }
        Request::ServiceStart { role, release } => {
            let release = match release {
                Some(release) => release,
                None => desk.state().current.clone().ok_or(AgentError::NoCurrent { role: role.clone() })?,
            };
            let started = desk.start_service(&release)?.ok_or(AgentError::NoService { role })?;
            Ok(Answer::Started(ServiceStarted { release, started }))
        }
        Request::ServiceReload { role, release } => {
            let reloaded = desk.reload_service(release.as_ref())?;
            Ok(Answer::Reloaded(reloaded.ok_or(AgentError::NoService { role })?))
        }
        Request::ServiceStop { why, start_within, .. } => {
            let why = if why.is_empty() { "asked to".to_owned() } else { why };
            Ok(Answer::Stopped(desk.stop_service(&why, start_within.map(|span| span.0))?))
        }
        Request::Settings { role, settings } => {
            // Said again by whoever resumes: what was there before it was changed first is what counts.
            if desk.state().settings != settings {
                desk.record(Record::Settings { settings })?;
            }
            Ok(Answer::Journalled(Journalled { role }))
        }
        Request::Plan { role, errand } => {
            desk.record(Record::Planned { errand })?;
            Ok(Answer::Journalled(Journalled { role }))
        }
        Request::End { role, rollout, outcome } => {
            desk.record(Record::Ended { rollout, outcome })?;
            Ok(Answer::Journalled(Journalled { role }))
        }
        Request::Status { .. }
        | Request::Have { .. }
        | Request::Preview(_)
        | Request::Stage(_)
        | Request::Drift { .. }
        | Request::Gc(_)
        | Request::ServiceStatus { .. }
        | Request::Probe { .. }
        | Request::Journal { .. }
        | Request::Preflight { .. } => Err(unexpected("a change")),
    }
}

fn probe(root: &Root, role: Role, within: Option<Span>) -> Result<Probed, AgentError> {
    let dir = root.role(&role);
    let Some(release) = root.state_of(&dir)?.current else {
        return Err(AgentError::NoCurrent { role });
    };
    let unit = Unit::read(&dir.release_service(&release))?.ok_or(AgentError::NoService { role })?;
    let Some(Ready { probe: Probe::Command(words), .. }) = &unit.ready else {
        return Err(AgentError::Request("its recipe's [service.ready] is no command".to_owned()));
    };
    let within = within.map_or(std::time::Duration::from_secs(10), |span| span.0);
    let exit = supervise::probe(&release, &unit, words, within)?;
    Ok(Probed { ready: exit == Some(0), exit })
}

fn have(root: Option<&Root>, path: &Utf8Path, wanted: &[WantedObject]) -> Result<Have, AgentError> {
    let mut have = Have::default();
    let Some(root) = root else {
        have.missing = (0..wanted.len()).collect();
        let there = path.ancestors().find(|dir| dir.is_dir()).unwrap_or(path);
        have.free_bytes = crate::fs::space(there)?.bytes;
        return Ok(have);
    };
    have.free_bytes = crate::fs::space(root.path())?.bytes;
    have.bundles = root.known_bundles()?;
    if !wanted.is_empty() {
        let objects = Objects::open(root)?;
        let there = |one: &WantedObject| {
            objects.has(ObjectId { digest: one.digest, executable: one.executable }, one.size)
        };
        have.missing = (0..wanted.len()).filter(|index| !there(&wanted[*index])).collect();
    }
    Ok(have)
}
