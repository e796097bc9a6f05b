//! The simulated cluster as a rollout sees it: every call may be slow, or lost before or after its effect.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use windlass::agent::{
    Activated, Errand, NodeStatus, ReleaseName, RoleStatus, RolledBack, Setting, StagedStatus, supervise,
};
use windlass::fs::IoError;
use windlass::model::{NodeName, Role, Span};
use windlass::recipe::Ready;
use windlass::rollout::{
    At, Back, Event, Fault, Held, NodeError, NodePlan, Nodes, Person, Recorder, StagedRelease, Swap,
};

use crate::simulation::world::{Fate, Place, World, bundle};

/// How long a lost node is connected to again: as `windlass::nodes` has it.
const AGAIN: Duration = Duration::from_secs(30);

impl World {
    /// A call to a node: it may be cut, before its effect or after it, and is asked again once the node is back.
    async fn call<T>(
        &self,
        node: &NodeName,
        role: &Role,
        mut effect: impl FnMut(&mut Place, Instant) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        let at = At { node: node.clone(), role: role.clone() };
        let begun = Instant::now();
        loop {
            sleep(Duration::from_millis(20)).await;
            let weather = self.weather.get();
            let (before, after, length) = {
                let mut chance = self.chance.borrow_mut();
                let length = if chance.hits(500) { chance.seconds(1, 20) } else { chance.seconds(30, 1500) };
                (chance.hits(weather.cuts), chance.hits(weather.cuts), length)
            };
            let now = Instant::now();
            let answer = {
                let mut places = self.places.borrow_mut();
                let mut cuts = self.cuts.borrow_mut();
                let place = places.get_mut(&at).unwrap();
                let cut_until = cuts.entry(node.clone()).or_insert(now);
                place.tick(now);
                if before && now >= *cut_until {
                    *cut_until = now + length;
                }
                if now < *cut_until {
                    None
                } else {
                    let answer = effect(place, now);
                    if after {
                        *cut_until = now + length;
                        None
                    } else {
                        Some(answer)
                    }
                }
            };
            self.check(Some(&at));
            if let Some(answer) = answer {
                return answer;
            }
            if begun.elapsed() >= AGAIN {
                return Err(NodeError::new(Fault::Lost, "transport", "the connection broke"));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Recorder for World {
    fn record(&self, event: Event, _durable: bool) -> Result<(), IoError> {
        self.events.borrow_mut().push(event);
        let count = self.events.borrow().len();
        for (_, interrupter) in self.stop_at.borrow().iter().filter(|(at, _)| *at == count) {
            interrupter.raise();
        }
        if self.dies_at.get() == Some(count) {
            self.dead.notify_one();
        }
        if self.chance.borrow_mut().hits(self.weather.get().disk) {
            let source = std::io::Error::from_raw_os_error(28);
            return Err(IoError::new("write", camino::Utf8Path::new("journal.jsonl"), source));
        }
        Ok(())
    }
}

impl Person for World {
    async fn goes_on(&self) -> bool {
        self.chance.borrow_mut().hits(700)
    }
}

fn refused(message: &str) -> NodeError {
    NodeError::new(Fault::Refused, "refused", message)
}

impl Nodes for World {
    async fn lock(&self, node: &NodeName) -> Result<(), NodeError> {
        if self.locked.get() {
            return Err(NodeError::new(Fault::Locked, "locked", "ann on pc holds this node's lock"));
        }
        let role = self.roles_of(node).swap_remove(0);
        self.call(node, &role, |_, _| Ok(())).await
    }

    async fn unlock_all(&self) {}

    async fn status(&self, node: &NodeName) -> Result<NodeStatus, NodeError> {
        let roles = self.roles_of(node);
        self.call(node, &roles[0], |_, _| Ok(())).await?;
        let places = self.places.borrow();
        let told = |role: &Role| status(role, &places[&At { node: node.clone(), role: role.clone() }]);
        Ok(NodeStatus { lock: None, roles: roles.iter().map(told).collect() })
    }

    async fn stage(&self, wanted: &[&NodePlan]) -> Vec<Result<StagedRelease, NodeError>> {
        let mut all = Vec::new();
        for plan in wanted {
            let version = plan.to.clone().unwrap();
            let digest = bundle(&version);
            let staged = self.call(&plan.node, &plan.role, |place, _| {
                let there =
                    place.staged.iter().rev().find(|(one, has)| **has == digest && !place.bad.contains(*one));
                let release = if let Some((release, _)) = there {
                    release.clone()
                } else {
                    let number = place.staged.keys().map(ReleaseName::number).max().unwrap_or(0) + 1;
                    let release = ReleaseName::new(number, version.clone());
                    place.staged.insert(release.clone(), digest);
                    release
                };
                Ok(StagedRelease { release, ready: None, service: true, bytes_sent: 1 })
            });
            // Many at once in the real world; here the order is part of the seed.
            all.push(staged.await);
        }
        all
    }

    async fn plan(&self, node: &NodeName, role: &Role, errand: &Errand) -> Result<(), NodeError> {
        self.call(node, role, |place, _| {
            (place.errand, place.ended) = (Some(errand.clone()), None);
            Ok(())
        })
        .await
    }

    async fn end(&self, node: &NodeName, role: &Role, rollout: &str, outcome: &str) -> Result<(), NodeError> {
        self.call(node, role, |place, _| {
            if place.errand.as_ref().is_some_and(|errand| errand.rollout == rollout) {
                place.ended = Some(outcome.to_owned());
            }
            Ok(())
        })
        .await
    }

    async fn may_leave(&self, node: &NodeName, role: &Role) -> Result<Held, NodeError> {
        self.call(node, role, |_, _| Ok(())).await?;
        Ok(if self.chance.borrow_mut().hits(100) {
            Held::NotYet("1 of 3: shards move".to_owned())
        } else {
            Held::Yes
        })
    }

    async fn settings(&self, node: &NodeName, role: &Role) -> Result<Vec<Setting>, NodeError> {
        self.call(node, role, |_, _| Ok(())).await?;
        let prior = self.setting.borrow().clone();
        let (cluster, name) = ("c".to_owned(), "allocation".to_owned());
        Ok(vec![Setting { cluster, name, prior, value: "primaries".into() }])
    }

    async fn note_settings(
        &self,
        node: &NodeName,
        role: &Role,
        settings: &[Setting],
    ) -> Result<(), NodeError> {
        self.call(node, role, |place, _| {
            place.settings = settings.to_vec();
            Ok(())
        })
        .await
    }

    async fn drain(&self, node: &NodeName, role: &Role, settings: &[Setting]) -> Result<Held, NodeError> {
        // What is changed must be in the node's journal by then.
        self.call(node, role, |place, _| {
            assert_eq!(place.settings, settings, "{node}: changed before it was journalled");
            Ok(())
        })
        .await?;
        if let Some(setting) = settings.first() {
            *self.setting.borrow_mut() = setting.value.clone();
        }
        Ok(Held::Yes)
    }

    async fn undrain(&self, _: &NodeName, _: &Role, settings: &[Setting]) -> Result<Held, NodeError> {
        sleep(Duration::from_millis(20)).await;
        // Any peer that answers will do.
        let now = Instant::now();
        let cuts = self.cuts.borrow();
        let is_cut = |at: &At| cuts.get(&at.node).is_some_and(|until| now < *until);
        if self.places.borrow().iter().all(|(at, place)| is_cut(at) || place.running.is_none()) {
            return Ok(Held::NotYet("nobody answers for the cluster".to_owned()));
        }
        if let Some(setting) = settings.first() {
            *self.setting.borrow_mut() = setting.prior.clone();
        }
        Ok(Held::Yes)
    }

    async fn settled(&self, node: &NodeName, role: &Role, _: &ReleaseName) -> Result<Held, NodeError> {
        self.call(node, role, |_, _| Ok(Held::Yes)).await
    }

    async fn stop(
        &self,
        node: &NodeName,
        role: &Role,
        _: &str,
        start_within: Option<Span>,
    ) -> Result<supervise::Stopped, NodeError> {
        let ran = self
            .call(node, role, |place, now| {
                place.start_by = start_within.map(|within| now + within.0);
                place.taken_down(now);
                let ran = place.running.take().is_some();
                Ok(ran)
            })
            .await?;
        sleep(Duration::from_millis(300)).await;
        Ok(supervise::Stopped { ran, killed: false, duration_ms: 250 })
    }

    async fn activate(&self, node: &NodeName, role: &Role, swap: &Swap) -> Result<Activated, NodeError> {
        self.call(node, role, |place, now| {
            let answer = |already| Activated {
                from: swap.from.clone(),
                to: swap.to.clone(),
                already,
                guarded: swap.confirm_within.is_some(),
            };
            if place.current == swap.to {
                if let (Some((_, Some(deadline))), Some(within)) =
                    (&mut place.unconfirmed, swap.confirm_within)
                {
                    *deadline = now + within.0;
                }
                return Ok(answer(true));
            }
            if place.current != swap.from {
                return Err(refused("another release is current"));
            }
            if let Some(to) = &swap.to {
                if !place.staged.contains_key(to) {
                    return Err(refused("it is not staged"));
                }
                if place.bad.contains(to) && !swap.allow_bad {
                    return Err(refused("it was marked bad"));
                }
            }
            place.current.clone_from(&swap.to);
            // What goes back to nothing is missed by nobody.
            place.ours &= swap.to.is_some();
            let deadline = swap.confirm_within.map(|within| now + within.0);
            place.unconfirmed = swap.to.as_ref().map(|_| (swap.from.clone(), deadline));
            Ok(answer(false))
        })
        .await
    }

    async fn start(&self, node: &NodeName, role: &Role, to: &ReleaseName) -> Result<(), NodeError> {
        self.call(node, role, |place, now| {
            place.start_by = None;
            if place.running.as_ref() == Some(to) {
                return Ok(());
            }
            if place.running.is_some() {
                return Err(refused("another release runs"));
            }
            (place.running, place.since) = (Some(to.clone()), now);
            Ok(())
        })
        .await
    }

    async fn reload(&self, node: &NodeName, role: &Role, to: &ReleaseName) -> Result<(), NodeError> {
        self.start(node, role, to).await
    }

    async fn probe(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
        _: Option<&Ready>,
    ) -> Result<Held, NodeError> {
        let dies = self.chance.borrow_mut().hits(self.weather.get().deaths);
        self.call(node, role, |place, now| {
            if place.current.as_ref() != Some(release) {
                return Ok(Held::Never("the node went back by itself".to_owned()));
            }
            if dies && place.is_ready(now) {
                place.running = None;
            }
            let Some(running) = &place.running else {
                return Ok(Held::NotYet("the service is stopped".to_owned()));
            };
            if running != release {
                return Ok(Held::NotYet("another release still runs".to_owned()));
            }
            if place.fates.get(release.version()) == Some(&Fate::Dies) {
                place.running = None;
                return Ok(Held::Never("the service ended by itself".to_owned()));
            }
            Ok(if place.is_ready(now) { Held::Yes } else { Held::NotYet("it starts".to_owned()) })
        })
        .await
    }

    async fn confirm(&self, node: &NodeName, role: &Role, release: &ReleaseName) -> Result<(), NodeError> {
        self.call(node, role, |place, _| {
            if place.current.as_ref() != Some(release) {
                return Err(refused("another release is current"));
            }
            place.unconfirmed = None;
            place.confirmed.retain(|one| one != release);
            place.confirmed.push(release.clone());
            Ok(())
        })
        .await
    }

    async fn go_back(&self, node: &NodeName, role: &Role, back: &Back) -> Result<RolledBack, NodeError> {
        self.call(node, role, |place, now| {
            if !place.staged.contains_key(&back.to) {
                return Err(refused("it is not there"));
            }
            let already = place.current.as_ref() == Some(&back.to)
                && (!back.restart || place.running.as_ref() == Some(&back.to));
            let from = place.current.clone();
            if !already {
                if back.restart {
                    place.taken_down(now);
                }
                place.go_back(&back.to, back.bad, back.restart, now);
            }
            Ok(RolledBack {
                from,
                to: Some(back.to.clone()),
                already,
                pid: None,
                killed: false,
                stop_ms: 0,
                service_error: None,
            })
        })
        .await
    }

    async fn mark_bad(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
        _: &str,
    ) -> Result<(), NodeError> {
        self.call(node, role, |place, _| {
            place.bad.insert(release.clone());
            Ok(())
        })
        .await
    }
}

fn status(role: &Role, place: &Place) -> RoleStatus {
    let staged = |(release, digest): (&ReleaseName, &windlass::model::Digest)| StagedStatus {
        release: release.clone(),
        digest: *digest,
        good: place.confirmed.contains(release),
        pinned: false,
        product: None,
    };
    RoleStatus {
        role: role.clone(),
        release: place.current.clone(),
        version: place.current.as_ref().map(|one| one.version().clone()),
        digest: place.current.as_ref().and_then(|one| place.staged.get(one)).copied(),
        prior: None,
        staged: place.staged.iter().map(staged).collect(),
        bad: Vec::new(),
        process: supervise::ProcessState::Running,
        pid: None,
        runs: place.running.clone(),
        unconfirmed: None,
        interrupted: None,
        busy: false,
        said: None,
        problem: None,
        kind: None,
        probe: None,
        api: None,
        product: None,
        gave_up: None,
        opened: None,
        settings: place.settings.clone(),
        errand: place.errand.clone(),
        ended: place.ended.clone(),
    }
}
