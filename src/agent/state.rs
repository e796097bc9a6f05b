//! What a role's journal says about it: derived from its records, from nothing else.
//!
//! # Invariants
//!
//! * [`State::after`] is the only code that knows which record may follow which.
//! * Prior is the last release confirmed before the current one: never by time stamps, never by names.

use std::collections::BTreeMap;

use super::names::ReleaseName;
use super::record::{Deadline, Errand, FORMAT, Record, Setting};
use crate::model::Digest;

/// What is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// A swap was announced and not yet told to have happened.
    Activating {
        /// Before.
        from: Option<ReleaseName>,
        /// After.
        to: Option<ReleaseName>,
    },
    /// Going back was announced and is not finished.
    RollingBack {
        /// Before.
        from: Option<ReleaseName>,
        /// After.
        to: Option<ReleaseName>,
        /// Whether the service is restarted.
        restart: bool,
    },
}

/// One release, as far as the journal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Made from what.
    pub bundle: Digest,
    /// It was confirmed once.
    pub good: bool,
    /// Why it is bad.
    pub bad: Option<String>,
    /// gc leaves it alone.
    pub pinned: bool,
    /// It is no longer on the disk.
    pub removed: bool,
}

/// An activation that nobody has confirmed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// What was activated.
    pub release: ReleaseName,
    /// What was current before.
    pub from: Option<ReleaseName>,
    /// When the guard goes back; `None` if there is no guard, or none any more.
    pub deadline: Option<Deadline>,
}

/// A role's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    created: bool,
    /// What is under way.
    pub phase: Phase,
    /// Every release that ever was.
    pub releases: BTreeMap<ReleaseName, Known>,
    /// What `current` points at.
    pub current: Option<ReleaseName>,
    /// The releases that were confirmed, the last one last, each once; going back shortens it.
    pub confirmed: Vec<ReleaseName>,
    /// The activation that waits for a confirmation.
    pub unconfirmed: Option<Unconfirmed>,
    announced: Option<Unconfirmed>,
    /// The service was stopped by somebody who meant to have started it again by then.
    pub start_by: Option<Deadline>,
    /// What a rollout changed in the service's cluster, and has not put back.
    pub settings: Vec<Setting>,
    /// The newest version of the product that was executed on the role's data, where that binds it.
    pub opened: Option<String>,
    /// Why the guard did not go back from what is current.
    pub gave_up: Option<String>,
    /// The last rollout that had this role among what it changes, and how it ended.
    pub errand: Option<(Errand, Option<String>)>,
}

/// A record that may not follow what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} cannot be: {why}")]
pub struct Illegal {
    /// Number of the record.
    pub seq: u64,
    /// Why not.
    pub why: String,
}

impl State {
    /// The release to go back to.
    pub fn prior(&self) -> Option<&ReleaseName> {
        self.confirmed.iter().rev().find(|release| {
            let usable =
                self.releases.get(release).is_some_and(|known| known.bad.is_none() && !known.removed);
            // A confirmed current release is on top of its own history.
            usable && Some(*release) != self.current.as_ref()
        })
    }

    /// A release that is on the disk.
    pub fn present(&self, release: &ReleaseName) -> Option<&Known> {
        self.releases.get(release).filter(|known| !known.removed)
    }

    /// The next release's number.
    pub fn next_number(&self) -> u64 {
        self.releases.keys().next_back().map_or(1, |last| last.number() + 1)
    }

    /// What a guard is for: a service that is to be started again, the deadline of an activation that is
    /// announced or waits for its confirmation. The first that comes.
    pub fn guarded(&self) -> Option<&Deadline> {
        let waiting = [&self.announced, &self.unconfirmed];
        let confirm = waiting.into_iter().flatten().find_map(|one| one.deadline.as_ref());
        self.start_by.iter().chain(confirm).min_by_key(|one| one.at_ms)
    }

    /// The state after `record`, the `seq`th.
    #[cfg(test)]
    pub(super) fn after(&self, record: &Record, seq: u64) -> Result<Self, Illegal> {
        let mut next = self.clone();
        next.advance(record, seq)?;
        Ok(next)
    }

    /// Becomes the state after `record`, the `seq`th; one that may not follow changes nothing.
    pub(super) fn advance(&mut self, record: &Record, seq: u64) -> Result<(), Illegal> {
        self.apply(record).map_err(|why| Illegal { seq, why })
    }

    /// The one table of what may follow what. Each row asks before it changes anything.
    #[expect(clippy::too_many_lines, reason = "a table, of a few lines for each record")]
    fn apply(&mut self, record: &Record) -> Result<(), String> {
        if self.created == matches!(record, Record::Created { .. }) {
            return Err("a journal begins with `created`, once".to_owned());
        }
        match record {
            Record::Created { format, .. } if *format == FORMAT => self.created = true,
            Record::Created { format, .. } => return Err(format!("it has format {format}")),
            Record::Staged { release, bundle, .. } => {
                self.idle()?;
                if self.releases.keys().any(|known| known.number() >= release.number()) {
                    return Err(format!("release {release} is not newer than those before"));
                }
                let known = Known { bundle: *bundle, good: false, bad: None, pinned: false, removed: false };
                self.releases.insert(release.clone(), known);
            }
            Record::Activating { from, to, confirm, .. } => {
                self.idle()?;
                self.moves(from.as_ref(), to.as_ref())?;
                self.phase = Phase::Activating { from: from.clone(), to: to.clone() };
                let announced = |release: &ReleaseName| Unconfirmed {
                    release: release.clone(),
                    from: from.clone(),
                    deadline: confirm.clone(),
                };
                self.announced = to.as_ref().map(announced);
            }
            Record::Activated { to } => {
                let Phase::Activating { to: announced, .. } = &self.phase else {
                    return Err("no activation was announced".to_owned());
                };
                if announced != to {
                    return Err("another release was announced".to_owned());
                }
                (self.phase, self.current) = (Phase::Idle, to.clone());
                (self.unconfirmed, self.gave_up) = (self.announced.take(), None);
            }
            Record::Abandoned { .. } => {
                if !matches!(self.phase, Phase::Activating { .. }) {
                    return Err("no activation was announced".to_owned());
                }
                (self.phase, self.announced) = (Phase::Idle, None);
            }
            Record::Rearmed { confirm } => {
                self.idle()?;
                let waiting = self.unconfirmed.as_mut().filter(|waiting| waiting.deadline.is_some());
                waiting.ok_or("nothing waits for a confirmation")?.deadline = Some(confirm.clone());
            }
            Record::Confirmed { release } => {
                self.idle()?;
                if self.current.as_ref() != Some(release) {
                    return Err(format!("{release} is not current"));
                }
                self.release(release)?.good = true;
                self.confirmed.retain(|known| known != release);
                self.confirmed.push(release.clone());
                (self.unconfirmed, self.gave_up) = (None, None);
            }
            Record::RollingBack { from, to, restart, .. } => {
                self.idle()?;
                self.moves(from.as_ref(), to.as_ref())?;
                self.phase = Phase::RollingBack { from: from.clone(), to: to.clone(), restart: *restart };
            }
            Record::RolledBack { to } => {
                let Phase::RollingBack { to: announced, .. } = &self.phase else {
                    return Err("no rollback was announced".to_owned());
                };
                if announced != to {
                    return Err("another release was announced".to_owned());
                }
                if let Some(at) = to.as_ref().and_then(|to| self.confirmed.iter().position(|one| one == to)) {
                    self.confirmed.truncate(at + 1);
                }
                (self.phase, self.current, self.unconfirmed) = (Phase::Idle, to.clone(), None);
                // Going back starts it, or was asked not to.
                self.start_by = None;
                self.gave_up = None;
            }
            Record::GuardGaveUp { release, why } => {
                let waiting = self.unconfirmed.as_mut().filter(|waiting| waiting.release == *release);
                waiting.ok_or("nothing waits for a confirmation")?.deadline = None;
                self.gave_up = Some(why.clone());
            }
            Record::MarkedBad { release, why } => self.release(release)?.bad = Some(why.clone()),
            Record::Pinned { release } => self.release(release)?.pinned = true,
            Record::Unpinned { release } => self.release(release)?.pinned = false,
            Record::Removed { release } => {
                self.idle()?;
                if self.current.as_ref() == Some(release) || self.prior() == Some(release) {
                    return Err(format!("{release} is current or prior"));
                }
                self.release(release)?.removed = true;
                self.confirmed.retain(|known| known != release);
            }
            Record::ServiceStart { release } => {
                self.release(release)?;
                self.start_by = None;
            }
            Record::ServiceStop { start_by, .. } => self.start_by.clone_from(start_by),
            Record::ServiceFailed { .. } => self.start_by = None,
            Record::ServiceStopped { .. } => {}
            Record::DataOpened { product } => self.opened = Some(product.clone()),
            Record::Settings { settings } => self.settings.clone_from(settings),
            Record::Planned { errand } => self.errand = Some((errand.clone(), None)),
            Record::Ended { rollout, outcome } => {
                // Another rollout may have begun meanwhile; what is said of an older one is history.
                if let Some((errand, ended)) = &mut self.errand
                    && errand.rollout == *rollout
                {
                    *ended = Some(outcome.clone());
                }
            }
        }
        Ok(())
    }

    fn idle(&self) -> Result<(), String> {
        match &self.phase {
            Phase::Idle => Ok(()),
            Phase::Activating { .. } => Err("an activation is under way".to_owned()),
            Phase::RollingBack { .. } => Err("a rollback is under way".to_owned()),
        }
    }

    fn moves(&self, from: Option<&ReleaseName>, to: Option<&ReleaseName>) -> Result<(), String> {
        if self.current.as_ref() != from {
            return Err("another release is current".to_owned());
        }
        match to {
            Some(to) if self.present(to).is_none() => Err(format!("{to} is not on the disk")),
            _ => Ok(()),
        }
    }

    fn release(&mut self, release: &ReleaseName) -> Result<&mut Known, String> {
        let known = self.releases.get_mut(release).filter(|known| !known.removed);
        known.ok_or_else(|| format!("there is no release {release}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Run(State, u64);

    impl Run {
        fn new() -> Self {
            let mut run = Self(State::default(), 0);
            run.push(Record::Created { format: FORMAT, role: "kafka".parse().unwrap() });
            for release in ["1-a", "2-b", "3-c", "4-d"] {
                let release = name(release);
                let (rollout, who) = (None, String::new());
                run.push(Record::Staged { release, bundle: Digest::of(b""), rollout, who });
            }
            run
        }

        #[expect(clippy::needless_pass_by_value, reason = "every caller makes the record for it")]
        fn push(&mut self, record: Record) {
            self.1 += 1;
            self.0 = self.0.after(&record, self.1).unwrap();
        }

        fn activate(&mut self, to: &str) {
            let (from, to) = (self.0.current.clone(), Some(name(to)));
            self.push(Record::Activating { from, to: to.clone(), rollout: None, confirm: None });
            self.push(Record::Activated { to });
        }

        fn confirm(&mut self) {
            self.push(Record::Confirmed { release: self.0.current.clone().unwrap() });
        }

        fn back(&mut self) {
            let (from, to) = (self.0.current.clone(), self.0.prior().cloned());
            self.push(Record::RollingBack { from, to: to.clone(), why: String::new(), restart: false });
            self.push(Record::RolledBack { to });
        }

        fn prior(&self) -> String {
            self.0.prior().map_or_else(String::new, ToString::to_string)
        }
    }

    fn name(text: &str) -> ReleaseName {
        text.parse().unwrap()
    }

    #[test]
    fn prior_is_the_last_confirmed_before_the_current() {
        let mut run = Run::new();
        run.activate("1-a");
        assert_eq!(run.prior(), "");
        run.confirm();
        assert_eq!(run.prior(), "");
        run.activate("2-b");
        assert_eq!(run.prior(), "1-a");
        run.confirm();
        assert_eq!(run.prior(), "1-a");
        // 3 is never confirmed: it is nothing to go back to.
        run.activate("3-c");
        assert_eq!(run.prior(), "2-b");
        run.activate("4-d");
        assert_eq!(run.prior(), "2-b");
        run.confirm();
        run.back();
        assert_eq!(run.0.current, Some(name("2-b")));
        // Not 4, which was just left: going back twice goes further back.
        assert_eq!(run.prior(), "1-a");
        run.back();
        assert_eq!((run.0.current.clone(), run.prior().as_str()), (Some(name("1-a")), ""));
    }

    #[test]
    fn a_bad_or_removed_release_is_not_gone_back_to() {
        let mut run = Run::new();
        for release in ["1-a", "2-b", "3-c"] {
            run.activate(release);
            run.confirm();
        }
        run.push(Record::MarkedBad { release: name("2-b"), why: "it was".to_owned() });
        assert_eq!(run.prior(), "1-a");
        run.push(Record::Removed { release: name("2-b") });
        assert!(run.0.after(&Record::Removed { release: name("1-a") }, 99).is_err());
        assert!(run.0.after(&Record::Removed { release: name("3-c") }, 99).is_err());
        // An older release that is activated again goes to the top once confirmed.
        run.activate("1-a");
        assert_eq!(run.prior(), "3-c");
        run.confirm();
        assert_eq!(run.prior(), "3-c");
    }

    #[test]
    fn what_may_not_follow_is_refused() {
        let mut run = Run::new();
        let refused = |run: &Run, record: Record| run.0.after(&record, 99).is_err();
        let to = Some(name("1-a"));
        assert!(refused(&run, Record::Created { format: FORMAT, role: "x".parse().unwrap() }));
        assert!(refused(&run, Record::Activated { to: to.clone() }));
        assert!(refused(&run, Record::RolledBack { to: to.clone() }));
        assert!(refused(&run, Record::Confirmed { release: name("1-a") }));
        let announce = |from, to| Record::Activating { from, to, rollout: None, confirm: None };
        assert!(refused(&run, announce(Some(name("2-b")), to.clone())));
        assert!(refused(&run, announce(None, Some(name("9-z")))));
        run.push(announce(None, to.clone()));
        assert!(refused(&run, announce(None, to.clone())));
        assert!(refused(&run, Record::Activated { to: Some(name("2-b")) }));
        run.push(Record::Abandoned { to, why: String::new() });
        assert_eq!(run.0.current, None);
        assert!(State::default().after(&Record::Activated { to: None }, 1).is_err());
    }
}
