//! Settings of services' clusters: changed while nodes are away, and put back on every way out.
//!
//! # Invariants
//!
//! * What a setting was is in the rollout's journal and in the node's before it is changed.
//! * What it was is what it was before the rollout: a node that finds it changed by another node of the same
//!   rollout takes over what that node found.
//! * It is put back when the last node that needs it changed is done, whatever became of that node.

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

/// What is changed now, and for whom.
#[derive(Debug, Default)]
pub(super) struct Changed(RefCell<BTreeMap<Key, (Setting, BTreeSet<At>)>>);

fn key(setting: &Setting) -> Key {
    (setting.cluster.clone(), setting.name.clone())
}

impl Changed {
    /// A node needs these; gives them with what they were before anybody changed them.
    pub(super) fn take(&self, at: &At, settings: Vec<Setting>) -> Vec<Setting> {
        let mut changed = self.0.borrow_mut();
        let mut take = |setting: Setting| {
            let (known, users) =
                changed.entry(key(&setting)).or_insert_with(|| (setting.clone(), BTreeSet::new()));
            users.insert(at.clone());
            Setting { prior: known.prior.clone(), ..setting }
        };
        settings.into_iter().map(&mut take).collect()
    }

    /// Those of a node's that no other node needs.
    pub(super) fn only(&self, at: &At) -> Vec<Setting> {
        let changed = self.0.borrow();
        let only = |users: &BTreeSet<At>| users.len() == 1 && users.contains(at);
        changed.values().filter(|(_, users)| only(users)).map(|(setting, _)| setting.clone()).collect()
    }

    /// A node needs none any more.
    pub(super) fn give_back(&self, at: &At) {
        self.0.borrow_mut().retain(|_, (_, users)| {
            users.remove(at);
            !users.is_empty()
        });
    }
}

impl<N: Nodes, R: Recorder, P: Person> Run<'_, N, R, P> {
    /// Puts back what an earlier rollout left. What cannot be put back now may be the very thing that the
    /// rollout mends: it is tried again at the end, and then needs a person.
    pub(super) async fn put_back_leftovers(&self, last: bool) -> Vec<Failed> {
        let mut failures = Vec::new();
        for one in &self.plan.leftovers {
            let at = At { node: one.node.clone(), role: one.role.clone() };
            if self.restored.borrow().contains(&at) {
                continue;
            }
            let outcome = self.put_back(&at, &one.settings).await;
            match outcome {
                Ok(()) => drop(self.restored.borrow_mut().insert(at)),
                Err(error) if last => {
                    let step = StepKind::Undrain;
                    failures.push(Failed { at, step, undo: true, error });
                }
                Err(error) => {
                    let event = Event::UndoFailed { at, step: StepKind::Undrain, error };
                    let _ = self.recorder.record(event, false);
                }
            }
        }
        failures
    }

    /// Puts settings back, and says so in both journals.
    pub(super) async fn put_back(&self, at: &At, settings: &[Setting]) -> Result<(), NodeError> {
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
        if !settings.is_empty() {
            let _ = self
                .recorder
                .record(Event::SettingsBack { at: at.clone(), settings: settings.to_vec() }, false);
        }
        // If this is lost, they are put back once more: that changes nothing.
        self.nodes.note_settings(&at.node, &at.role, &[]).await
    }

    /// What a node may change in its service's cluster, on record before it does.
    pub(super) async fn change_settings(&self, at: &At) -> Result<Vec<Setting>, NodeError> {
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
        let settings = self.changed.only(at);
        self.put_back(at, &settings).await?;
        self.changed.give_back(at);
        Ok(())
    }
}

/// Whether it holds, with what it does not hold for.
pub(super) fn held(held: Held, never: impl FnOnce(String) -> NodeError) -> Result<Option<String>, NodeError> {
    match held {
        Held::Yes => Ok(None),
        Held::NotYet(why) => Ok(Some(why)),
        Held::Never(why) => Err(never(why)),
    }
}
