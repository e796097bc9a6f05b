//! A cluster that does not exist: nodes with guards, a network that breaks, services that fail, and what must
//! always hold of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use windlass::agent::{Errand, ReleaseName, Setting};
use windlass::inventory::Rollout;
use windlass::model::{Digest, NodeName, Role, Version};
use windlass::rollout::{At, Candidate, Event, Goal, Interrupter, Kind, Leftover, Scope};

use crate::simulation::chance::Chance;

/// What becomes of a release's service on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Well,
    /// Its process ends at once.
    Dies,
    /// It is never ready.
    Hangs,
    /// It is ready for three seconds, and then no more.
    Wavers,
}

/// A role on a node.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) zone: Option<String>,
    pub(crate) current: Option<ReleaseName>,
    pub(crate) staged: BTreeMap<ReleaseName, Digest>,
    pub(crate) confirmed: Vec<ReleaseName>,
    pub(crate) bad: BTreeSet<ReleaseName>,
    pub(crate) running: Option<ReleaseName>,
    pub(crate) since: Instant,
    pub(crate) unconfirmed: Option<(Option<ReleaseName>, Option<Instant>)>,
    pub(crate) start_by: Option<Instant>,
    pub(crate) errand: Option<Errand>,
    pub(crate) ended: Option<String>,
    pub(crate) settings: Vec<Setting>,
    /// Down, or not ready, because a rollout touched it.
    pub(crate) ours: bool,
    /// It was an earlier rollout's doing, which was broken off.
    pub(crate) inherited: bool,
    pub(crate) fates: BTreeMap<Version, Fate>,
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// A call's connection breaks before, or after, it had its effect; per mille each.
    pub(crate) cuts: usize,
    /// A healthy service ends by itself, per mille of the times it is asked.
    pub(crate) deaths: usize,
    /// The rollout's journal cannot be written, per mille of events.
    pub(crate) disk: usize,
}

pub(crate) struct World {
    pub(crate) rollout: Rollout,
    pub(crate) places: RefCell<BTreeMap<At, Place>>,
    /// How many nodes have each role.
    pub(crate) totals: BTreeMap<Role, usize>,
    /// The roles of a node, where it has several.
    pub(crate) shared: BTreeMap<NodeName, Vec<Role>>,
    /// Until when a node cannot be reached.
    pub(crate) cuts: RefCell<BTreeMap<NodeName, Instant>>,
    /// A role is on the way out of its cluster only alone on its node, if nothing goes wrong.
    pub(crate) calm: bool,
    pub(crate) chance: RefCell<Chance>,
    pub(crate) weather: Cell<Weather>,
    pub(crate) events: RefCell<Vec<Event>>,
    /// Raised when so many events were told.
    pub(crate) stop_at: RefCell<Vec<(usize, Interrupter)>>,
    /// The controller dies when so many events were told.
    pub(crate) dies_at: Cell<Option<usize>>,
    pub(crate) dead: tokio::sync::Notify,
    /// Its services leave their cluster before they are stopped.
    pub(crate) drains: bool,
    /// The cluster's setting, and what it was.
    pub(crate) setting: RefCell<serde_json::Value>,
    pub(crate) before: serde_json::Value,
    pub(crate) locked: Cell<bool>,
    pub(crate) forming: Cell<bool>,
    pub(crate) watched: RefCell<BTreeSet<At>>,
    pub(crate) broken: RefCell<Vec<String>>,
}

pub(crate) fn bundle(version: &Version) -> Digest {
    Digest::of(version.as_str().as_bytes())
}

impl Place {
    /// One where nothing ever ran.
    pub(crate) fn new(zone: Option<String>, now: Instant) -> Self {
        Self {
            zone,
            current: None,
            staged: BTreeMap::new(),
            confirmed: Vec::new(),
            bad: [].into(),
            running: None,
            since: now,
            unconfirmed: None,
            start_by: None,
            errand: None,
            ended: None,
            settings: Vec::new(),
            ours: false,
            inherited: false,
            fates: BTreeMap::new(),
        }
    }

    /// A rollout takes it down; one that served nobody is not missed.
    pub(crate) fn taken_down(&mut self, now: Instant) {
        if self.is_ready(now) {
            (self.ours, self.inherited) = (true, false);
        }
    }

    /// Ready for as long as its fate lets it.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        let Some(running) = &self.running else { return false };
        let age = now.duration_since(self.since);
        let up = age >= Duration::from_millis(1500);
        Some(running) == self.current.as_ref()
            && match self.fates.get(running.version()).copied().unwrap_or(Fate::Well) {
                Fate::Well => up,
                Fate::Dies | Fate::Hangs => false,
                Fate::Wavers => up && age < Duration::from_millis(4500),
            }
    }

    /// What the node's own guard does when its time comes.
    pub(crate) fn tick(&mut self, now: Instant) {
        // A guard acts when its time comes, not when somebody looks.
        if let Some(by) = self.start_by.filter(|by| now >= *by) {
            self.start_by = None;
            if self.unconfirmed.as_ref().is_some_and(|(_, deadline)| deadline.is_some()) {
                self.guard_goes_back(by, false);
            } else if let Some(current) = self.current.clone() {
                (self.running, self.since) = (Some(current), by);
            }
        }
        let deadline = self.unconfirmed.as_ref().and_then(|(_, deadline)| *deadline);
        if let Some(by) = deadline.filter(|by| now >= *by) {
            self.guard_goes_back(by, true);
        }
    }

    fn guard_goes_back(&mut self, now: Instant, bad: bool) {
        let Some((from, _)) = self.unconfirmed.clone() else { return };
        let Some(to) = from else {
            // There is nothing to go back to: it stays, unconfirmed.
            self.unconfirmed = Some((None, None));
            return;
        };
        self.go_back(&to, bad, true, now);
    }

    pub(crate) fn go_back(&mut self, to: &ReleaseName, bad: bool, restart: bool, now: Instant) {
        if self.current.as_ref() != Some(to) {
            if bad && let Some(left) = self.current.clone() {
                self.bad.insert(left);
            }
            self.current = Some(to.clone());
            if let Some(at) = self.confirmed.iter().position(|one| one == to) {
                self.confirmed.truncate(at + 1);
            }
        }
        (self.unconfirmed, self.start_by) = (None, None);
        if restart && self.running.as_ref() != Some(to) {
            (self.running, self.since) = (Some(to.clone()), now);
        }
    }
}

/// Whether a role's peers take over its work; in a cluster of several roles only those of Elasticsearch share one.
fn drains(role: &Role) -> bool {
    role.as_str() == "web" || role.as_str().starts_with("elasticsearch")
}

impl World {
    /// A cluster at the beginning of its story.
    pub(crate) fn new(
        rollout: Rollout,
        totals: BTreeMap<Role, usize>,
        places: BTreeMap<At, Place>,
        weather: Weather,
        forming: bool,
        chance: Chance,
    ) -> Self {
        Self {
            rollout,
            totals,
            places: places.into(),
            shared: BTreeMap::new(),
            cuts: RefCell::default(),
            calm: false,
            weather: weather.into(),
            events: RefCell::default(),
            stop_at: RefCell::default(),
            dies_at: None.into(),
            dead: tokio::sync::Notify::new(),
            drains: false,
            setting: RefCell::default(),
            before: serde_json::Value::Null,
            locked: false.into(),
            forming: forming.into(),
            watched: RefCell::default(),
            broken: RefCell::default(),
            chance: chance.into(),
        }
    }

    /// The roles of a node.
    pub(crate) fn roles_of(&self, node: &NodeName) -> Vec<Role> {
        let one = || self.totals.keys().cloned().collect();
        self.shared.get(node).cloned().unwrap_or_else(one)
    }

    pub(crate) fn break_rule(&self, what: &str) {
        let mut broken = self.broken.borrow_mut();
        if !broken.iter().any(|one| one.starts_with(what)) && broken.len() < 6 {
            broken.push(format!("{what} (after event {})", self.events.borrow().len()));
        }
    }

    /// What must hold at every moment.
    pub(crate) fn check(&self, touched: Option<&At>) {
        let now = Instant::now();
        let mut places = self.places.borrow_mut();
        let mut down = Vec::new();
        // Those of them that this rollout itself took down.
        let mut taken = Vec::new();
        // Of thousands only those that may be down are looked at each time.
        let mut watched = self.watched.borrow_mut();
        match touched {
            Some(at) => drop(watched.insert(at.clone())),
            None => watched.extend(places.keys().cloned()),
        }
        for name in watched.clone() {
            let Some(place) = places.get_mut(&name) else { continue };
            place.tick(now);
            if place.ours && place.is_ready(now) {
                (place.ours, place.inherited) = (false, false);
            }
            // One that goes back to nothing is not missed.
            if place.ours && place.current.is_some() {
                down.push((name.clone(), place.zone.clone()));
                taken.extend((!place.inherited).then(|| name.node.clone()));
            }
            if !place.ours && place.unconfirmed.is_none() && place.start_by.is_none() {
                watched.remove(&name);
            }
            if let Some(current) = &place.current
                && !place.staged.contains_key(current)
            {
                self.break_rule(&format!("{}: current leads to {current}, which is not there", name.node));
            }
        }
        if self.forming.get() {
            return;
        }
        for (role, total) in &self.totals {
            let of_role = down.iter().filter(|(at, _)| at.role == *role).count();
            let most = self.rollout.max_unavailable.of(*total);
            if of_role > most {
                self.break_rule(&format!(
                    "{of_role} nodes of {role} are down through our doing, {most} may be: {down:?}"
                ));
            }
        }
        let nodes: BTreeSet<&NodeName> = taken.iter().collect();
        if self.calm && nodes.len() < taken.len() {
            self.break_rule(&format!("several roles of one node are down at the same time: {down:?}"));
        }
        let zones: BTreeSet<&Option<String>> = down.iter().map(|(_, zone)| zone).collect();
        if zones.len() > 1 {
            self.break_rule(&format!("nodes of two zones are down: {down:?}"));
        }
    }

    /// Candidates, as a survey would give them; `goal` says what a place shall have.
    pub(crate) fn candidates(&self, goal: impl Fn(&At, &Place) -> Option<(Goal, Version)>) -> Vec<Candidate> {
        let now = Instant::now();
        let mut places = self.places.borrow_mut();
        let candidate = |(at, place): (&At, &mut Place)| {
            place.tick(now);
            let (goal, to) = goal(at, place)?;
            let on_target = match &goal {
                Goal::Bundle(digest) => {
                    place.current.as_ref().and_then(|one| place.staged.get(one)) == Some(digest)
                }
                Goal::Release(release) => place.current.as_ref() == Some(release),
                Goal::Nothing => place.current.is_none(),
            };
            let healthy = place.is_ready(now)
                && place.unconfirmed.is_none()
                && place.current.as_ref().is_some_and(|one| !place.bad.contains(one));
            Some(Candidate {
                zone: place.zone.clone(),
                from: place.current.clone(),
                unconfirmed_from: place
                    .unconfirmed
                    .as_ref()
                    .filter(|_| on_target)
                    .and_then(|(from, _)| from.clone()),
                to: Some(to),
                on_target,
                up: place.is_ready(now),
                healthy,
                service: true,
                drains: self.drains && place.running.is_some() && drains(&at.role),
                ..Candidate::of(at.node.clone(), at.role.clone(), goal)
            })
        };
        places.iter_mut().filter_map(candidate).collect()
    }

    pub(crate) fn plan(&self, kind: Kind, candidates: Vec<Candidate>) -> windlass::rollout::Plan {
        let places = self.places.borrow();
        let left = |(at, place): (&At, &Place)| {
            let settings = place.settings.clone();
            let (node, role) = (at.node.clone(), at.role.clone());
            (!settings.is_empty()).then_some(Leftover { node, role, settings })
        };
        let forming = kind == Kind::Promote && places.values().all(|place| place.confirmed.is_empty());
        self.forming.set(forming);
        let scope = Scope {
            kind,
            cluster: "simulated",
            rollout: &self.rollout,
            totals: self.totals.clone(),
            forming: if forming { self.totals.keys().cloned().collect() } else { BTreeSet::new() },
            leftovers: places.iter().filter_map(left).collect(),
            time: windlass::model::Timestamp::now(),
        };
        windlass::rollout::plan(&scope, candidates)
    }
}
