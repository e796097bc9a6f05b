//! Settings of services' clusters: changed while nodes are away, and put back on every way out.
//!
//! # Invariants
//!
//! * What a setting was is in the rollout's journal and in the node's before it is changed.
//! * What it was is what it was before the rollout: a node that finds it changed by another node of the same
//!   rollout takes over what that node found.
//! * It is put back when the last node that needs it changed is done, whatever became of that node. Until then
//!   the journal of every node that needed it says what it was.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::engine::Run;
use super::event::{At, Event, Failed};
use super::gate::{Patience, Told, wait_until};
use super::ports::{Fault, Held, NodeError, Nodes, Person, Recorder};
use super::step::StepKind;
use crate::agent::Setting;

/// A setting's cluster and name.
type Key = (String, String);

/// A setting that is changed now.
#[derive(Clone, Debug)]
struct Changing {
    /// What it was before anybody changed it.
    setting: Setting,
    /// Those who need it changed.
    users: BTreeSet<At>,
    /// Those whose journals say what it was.
    notes: BTreeSet<At>,
}

/// What is changed now, and for whom; and whose leftovers were looked at.
#[derive(Debug, Default)]
pub(super) struct Changed(RefCell<BTreeMap<Key, Changing>>, RefCell<BTreeSet<At>>);

fn key(setting: &Setting) -> Key {
    (setting.cluster.clone(), setting.name.clone())
}

impl Changed {
    /// What an earlier rollout changed: nobody needs it, and what it was is known.
    fn found(&self, at: &At, settings: &[Setting]) {
        let mut changed = self.0.borrow_mut();
        for setting in settings {
            let (setting, users, notes) = (setting.clone(), BTreeSet::new(), BTreeSet::new());
            let one = changed.entry(key(&setting)).or_insert(Changing { setting, users, notes });
            one.notes.insert(at.clone());
        }
    }

    /// Whether this one's leftovers are looked at for the first time.
    fn is_new(&self, at: &At) -> bool {
        self.1.borrow_mut().insert(at.clone())
    }

    /// A node needs these; gives them with what they were before anybody changed them.
    fn take(&self, at: &At, settings: Vec<Setting>) -> Vec<Setting> {
        self.found(at, &settings);
        let mut changed = self.0.borrow_mut();
        let mut taken = Vec::new();
        for setting in settings {
            if let Some(one) = changed.get_mut(&key(&setting)) {
                one.users.insert(at.clone());
                taken.push(Setting { prior: one.setting.prior.clone(), ..setting });
            }
        }
        taken
    }

    /// What nobody but this node needs.
    fn only(&self, at: &At) -> Vec<Setting> {
        let changed = self.0.borrow();
        let only = |one: &&Changing| one.users.iter().all(|user| user == at);
        changed.values().filter(only).map(|one| one.setting.clone()).collect()
    }

    /// A node needs none any more. Its journal still says what they were, until they are that.
    fn leave(&self, at: &At) {
        for one in self.0.borrow_mut().values_mut() {
            one.users.remove(at);
        }
    }

    /// These are what they were; whose journals say so, and need not any more.
    fn back(&self, settings: &[Setting]) -> BTreeSet<At> {
        let mut changed = self.0.borrow_mut();
        let told: Vec<Changing> = settings.iter().filter_map(|one| changed.remove(&key(one))).collect();
        let mut told: BTreeSet<At> = told.into_iter().flat_map(|one| one.notes).collect();
        told.retain(|at| !changed.values().any(|one| one.notes.contains(at)));
        told
    }

    /// Whether a node's journal still has to say what something was.
    fn is_noted(&self, at: &At) -> bool {
        self.0.borrow().values().any(|one| one.notes.contains(at))
    }
}

impl<N: Nodes, R: Recorder, P: Person> Run<'_, N, R, P> {
    /// Takes over what an earlier rollout left, and puts it back. What cannot be put back now may be the very
    /// thing that the rollout mends: it is tried again with each node that joins its cluster, and at the end;
    /// then it needs a person.
    pub(super) async fn put_back_leftovers(&self, last: bool) -> Vec<Failed> {
        let mut failures = Vec::new();
        for one in &self.plan.leftovers {
            let at = At { node: one.node.clone(), role: one.role.clone() };
            if self.changed.is_new(&at) {
                // Whoever holds that node may be the one who needs them changed.
                let locked = self.nodes.lock(&at.node).await;
                if locked.is_err_and(|error| error.fault == Fault::Locked) {
                    continue;
                }
                self.changed.found(&at, &one.settings);
            }
            if !self.changed.is_noted(&at) {
                continue;
            }
            let _alone = self.setting.lock().await;
            match (self.put_back(&at, &self.changed.only(&at)).await, last) {
                (Ok(()), _) => {}
                (Err(error), true) => {
                    let step = StepKind::Undrain;
                    failures.push(Failed { at, step, undo: true, error });
                }
                (Err(error), false) => {
                    let event = Event::UndoFailed { at, step: StepKind::Undrain, error };
                    let _ = self.recorder.record(event, false);
                }
            }
        }
        failures
    }

    /// Puts settings back, and says so in all journals.
    async fn put_back(&self, at: &At, settings: &[Setting]) -> Result<(), NodeError> {
        let policy = &self.plan.policy;
        let patience = Patience { limit: policy.progress_deadline.0, progress: policy.progress_deadline.0 };
        let mut told = Told::new(self.recorder, at.clone(), StepKind::Undrain);
        let ask = async || self.nodes.undrain(&at.node, &at.role, settings).await;
        let fails = |why: String| {
            let mut error = NodeError::new(Fault::Refused, "settings", format!("not put back: {why}"));
            for setting in settings {
                error.line.help.push(format!("it was: {} = {}", setting.name, setting.prior));
            }
            error.line.help.push("`windlass resume` puts it back".to_owned());
            error
        };
        wait_until(&patience, &mut told, ask, fails).await?;
        if settings.is_empty() {
            return Ok(());
        }
        let event = Event::SettingsBack { at: at.clone(), settings: settings.to_vec() };
        let _ = self.recorder.record(event, false);
        for told in self.changed.back(settings) {
            // Where this is lost they are put back once more by the next rollout: that changes nothing.
            let _ = self.nodes.note_settings(&told.node, &told.role, &[]).await;
        }
        Ok(())
    }

    /// What a node may change in its service's cluster, on record before it does.
    pub(super) async fn change_settings(&self, at: &At) -> Result<Vec<Setting>, NodeError> {
        let _alone = self.setting.lock().await;
        let found = self.nodes.settings(&at.node, &at.role).await?;
        if found.is_empty() {
            return Ok(found);
        }
        let settings = self.changed.take(at, found);
        let event = Event::SettingsChanging { at: at.clone(), settings: settings.clone() };
        self.recorder.record(event, true)?;
        self.nodes.note_settings(&at.node, &at.role, &settings).await?;
        Ok(settings)
    }

    /// Ends a node's absence: what no other node needs is put back.
    pub(super) async fn undrain(&self, at: &At) -> Result<(), NodeError> {
        // Of two that end their absence together one is the last.
        let _alone = self.setting.lock().await;
        let settings = self.changed.only(at);
        self.put_back(at, &settings).await?;
        self.changed.leave(at);
        Ok(())
    }
}

/// Whether it holds, with what it does not hold for.
pub(super) fn held(held: Held, never: impl FnOnce(String) -> NodeError) -> Result<Option<String>, NodeError> {
    match held {
        Held::Yes => Ok(None),
        Held::NotYet(why) => Ok(Some(why)),
        Held::Moving { left, what, .. } => Ok(Some(format!("{left} {what}"))),
        Held::Never(why) => Err(never(why)),
    }
}
