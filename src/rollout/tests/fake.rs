//! A cluster in memory: nodes that do as they are told, or fail where a test says so.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::agent::{
    Activated, Errand, NodeStatus, ReleaseName, RoleStatus, RolledBack, Setting, StagedStatus, supervise,
};
use crate::fs::IoError;
use crate::inventory::{MaxUnavailable, Rollout};
use crate::model::{Digest, NodeName, Role, Span, Timestamp};
use crate::recipe::Ready;
use crate::rollout::{
    Back, Candidate, Event, Fault, Finished, Goal, Held, Interrupted, Interrupter, Kind, NodeError, NodePlan,
    Nodes, Operator, Person, Plan, Recorder, Run, Scope, StagedRelease, StepKind, Swap, interrupt,
};

/// What goes wrong with a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sick {
    /// Its process ends at once.
    Dies,
    /// It runs and is never ready.
    Hangs,
    /// It is ready for a second, and then no more.
    Wavers,
    /// It cannot be staged.
    Unstaged,
    /// The node is gone as soon as it is activated.
    Vanishes,
    /// It is well, and its node does not take its confirmation.
    Unconfirmed,
}

#[derive(Clone, Debug, Default)]
pub(super) struct FakeNode {
    pub(super) current: Option<ReleaseName>,
    pub(super) running: Option<ReleaseName>,
    since: Option<Instant>,
    pub(super) staged: BTreeMap<ReleaseName, Digest>,
    pub(super) bad: BTreeSet<ReleaseName>,
    pub(super) confirmed: BTreeSet<ReleaseName>,
    /// What its guard goes back to, and when.
    guard: Option<(ReleaseName, Instant)>,
    gone: bool,
}

pub(super) struct Fake {
    pub(super) nodes: RefCell<BTreeMap<(NodeName, Role), FakeNode>>,
    pub(super) sick: BTreeMap<(String, &'static str), Sick>,
    pub(super) held: Option<String>,
    pub(super) events: RefCell<Vec<Event>>,
    /// Most nodes that were down through our doing, at a time.
    pub(super) most_down: RefCell<usize>,
    pub(super) goes_on: bool,
    /// What this role has does not move, however often it says how much is left.
    pub(super) stuck: Option<&'static str>,
    /// Raised when this happens.
    pub(super) stop_at: Option<(StepKind, usize)>,
    interrupter: Interrupter,
    pub(super) interrupted: Interrupted,
    pub(super) rollout: Rollout,
}

pub(super) fn release(text: &str) -> ReleaseName {
    text.parse().unwrap()
}

pub(super) fn bundle(version: &str) -> Digest {
    Digest::of(version.as_bytes())
}

impl Fake {
    /// Nodes `n1` to `n<count>` with role `web`, all on `1-v1`, healthy; `None` runs nothing yet.
    pub(super) fn new(count: usize, from: Option<&str>) -> Self {
        let (interrupter, interrupted) = interrupt();
        let mut nodes = BTreeMap::new();
        for n in 1..=count {
            let mut node = FakeNode::default();
            if let Some(from) = from {
                node.staged.insert(release(from), bundle(release(from).version().as_str()));
                node.confirmed.insert(release(from));
                node.current = Some(release(from));
                node.running = Some(release(from));
                node.since = Some(Instant::now());
            }
            nodes.insert((format!("n{n}").parse().unwrap(), "web".parse().unwrap()), node);
        }
        Self {
            nodes: RefCell::new(nodes),
            sick: BTreeMap::new(),
            held: None,
            events: RefCell::default(),
            most_down: RefCell::default(),
            goes_on: true,
            stuck: None,
            stop_at: None,
            interrupter,
            interrupted,
            rollout: Rollout { max_unavailable: MaxUnavailable::Count(1), ..Rollout::default() },
        }
    }

    /// The first node has these roles too, all on what it has.
    pub(super) fn with_roles(self, roles: &[&str]) -> Self {
        let first = self.nodes.borrow().iter().next().map(|((node, _), is)| (node.clone(), is.clone()));
        if let Some((node, is)) = first {
            let more = roles.iter().map(|role| ((node.clone(), role.parse().unwrap()), is.clone()));
            self.nodes.borrow_mut().extend(more);
        }
        self
    }

    pub(super) fn plan_to(&self, version: &str) -> Plan {
        let nodes = self.nodes.borrow();
        let candidates: Vec<Candidate> = nodes
            .iter()
            .map(|((node, role), is)| Candidate {
                from: is.current.clone(),
                to: Some(version.parse().unwrap()),
                on_target: is.current.as_ref().is_some_and(|one| one.version().as_str() == version),
                up: is.current.is_some() && is.running == is.current,
                healthy: is.current.is_some() && is.running == is.current,
                service: true,
                ..Candidate::of(node.clone(), role.clone(), Goal::Bundle(bundle(version)))
            })
            .collect();
        let forming = nodes.values().all(|node| node.current.is_none());
        let scope = Scope {
            kind: Kind::Promote,
            cluster: "test",
            rollout: &self.rollout,
            totals: BTreeMap::from([("web".parse().unwrap(), nodes.len())]),
            forming: if forming { BTreeSet::from(["web".parse().unwrap()]) } else { BTreeSet::new() },
            leftovers: Vec::new(),
            time: Timestamp::now(),
        };
        crate::rollout::plan(&scope, candidates)
    }

    /// All roles of the first node leave.
    pub(super) fn leave(&self) -> Plan {
        let mut plan = self.plan_to("v2");
        let nodes = self.nodes.borrow();
        let (first, _) = nodes.keys().next().unwrap();
        let roles = nodes.iter().filter(|((node, _), _)| node == first);
        let candidates = roles.map(|((node, role), is)| Candidate {
            from: is.current.clone(),
            up: true,
            healthy: true,
            service: true,
            drains: true,
            ..Candidate::of(node.clone(), role.clone(), Goal::Nothing)
        });
        let scope = Scope {
            kind: Kind::Leave,
            cluster: "test",
            rollout: &self.rollout,
            totals: BTreeMap::new(),
            forming: BTreeSet::new(),
            leftovers: std::mem::take(&mut plan.leftovers),
            time: Timestamp::now(),
        };
        crate::rollout::leave(&scope, candidates.collect())
    }

    pub(super) async fn run(&self, plan: &Plan) -> Finished {
        let ports = (self, self, self);
        Run::new("r1", plan, ports, self.interrupted.clone(), Operator::default()).run().await
    }

    pub(super) async fn promote(&self, version: &str) -> Finished {
        self.run(&self.plan_to(version)).await
    }

    /// What runs on each node.
    pub(super) fn running(&self) -> Vec<String> {
        let nodes = self.nodes.borrow();
        let shown = |node: &FakeNode| match (&node.current, &node.running) {
            (current, running) if current == running => {
                current.as_ref().map_or_else(|| "-".to_owned(), |one| one.version().to_string())
            }
            (current, running) => format!("{current:?} but {running:?} runs"),
        };
        nodes.values().map(shown).collect()
    }

    pub(super) fn names(&self) -> Vec<String> {
        let name = |event: &Event| {
            let value = serde_json::to_value(event).unwrap();
            let part = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            [part("event"), part("node"), part("step")].join(" ").trim_end().to_owned()
        };
        self.events.borrow().iter().map(name).collect()
    }

    fn sick(&self, node: &NodeName, release: &ReleaseName) -> Option<Sick> {
        let of = |node: &str| {
            let mut sick = self.sick.iter();
            sick.find(|((one, version), _)| one == node && *version == release.version().as_str())
                .map(|(_, sick)| *sick)
        };
        of(node.as_str()).or_else(|| of("*"))
    }

    fn with<T>(
        &self,
        node: &NodeName,
        role: &Role,
        work: impl FnOnce(&mut FakeNode) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        let mut nodes = self.nodes.borrow_mut();
        let one = nodes.get_mut(&(node.clone(), role.clone())).unwrap();
        if one.gone {
            return Err(NodeError::new(Fault::Lost, "transport", "the connection broke"));
        }
        if let Some((prior, _)) = one.guard.take_if(|(_, deadline)| *deadline <= Instant::now()) {
            (one.current, one.running) = (Some(prior.clone()), Some(prior));
        }
        let outcome = work(one);
        let down = nodes.values().filter(|node| node.current.is_some() && node.running.is_none()).count();
        let mut most = self.most_down.borrow_mut();
        *most = down.max(*most);
        outcome
    }
}

impl Recorder for Fake {
    fn record(&self, event: Event, _durable: bool) -> Result<(), IoError> {
        if let (Event::StepStarted { step, .. }, Some((at, nth))) = (&event, self.stop_at)
            && *step == at
        {
            let before = self.events.borrow();
            let count =
                before.iter().filter(|one| matches!(one, Event::StepStarted { step, .. } if *step == at));
            if count.count() + 1 == nth {
                self.interrupter.raise();
            }
        }
        self.events.borrow_mut().push(event);
        Ok(())
    }
}

impl Person for Fake {
    async fn goes_on(&self) -> bool {
        self.goes_on
    }
}

impl Nodes for Fake {
    async fn lock(&self, node: &NodeName) -> Result<(), NodeError> {
        match &self.held {
            Some(held) if held == node.as_str() => {
                Err(NodeError::new(Fault::Locked, "locked", "ann on pc holds this node's lock"))
            }
            _ => Ok(()),
        }
    }

    async fn unlock_all(&self) {}

    async fn status(&self, node: &NodeName) -> Result<NodeStatus, NodeError> {
        let nodes = self.nodes.borrow();
        let role = |((_, role), is): (&(NodeName, Role), &FakeNode)| RoleStatus {
            role: role.clone(),
            release: is.current.clone(),
            version: is.current.as_ref().map(|one| one.version().clone()),
            digest: None,
            prior: None,
            staged: is
                .staged
                .iter()
                .map(|(release, digest)| StagedStatus {
                    release: release.clone(),
                    digest: *digest,
                    good: true,
                    pinned: false,
                    product: None,
                })
                .collect(),
            bad: Vec::new(),
            process: supervise::ProcessState::Running,
            pid: None,
            runs: is.running.clone(),
            unconfirmed: None,
            interrupted: None,
            busy: false,
            said: None,
            opened: None,
            gave_up: None,
            problem: None,
            kind: None,
            probe: None,
            api: None,
            product: None,
            settings: Vec::new(),
            errand: None,
            ended: None,
        };
        Ok(NodeStatus {
            lock: None,
            roles: nodes.iter().filter(|((one, _), _)| one == node).map(role).collect(),
        })
    }

    async fn stage(&self, wanted: &[&NodePlan]) -> Vec<Result<StagedRelease, NodeError>> {
        let stage = |plan: &&NodePlan| {
            let version = plan.to.clone().unwrap();
            self.with(&plan.node, &plan.role, |node| {
                let number = node.staged.keys().last().map_or(1, |last| last.number() + 1);
                let release = ReleaseName::new(number, version);
                if self.sick(&plan.node, &release) == Some(Sick::Unstaged) {
                    return Err(NodeError::new(Fault::Refused, "no-space", "no room"));
                }
                node.staged.insert(release.clone(), bundle(release.version().as_str()));
                Ok(StagedRelease { release, ready: None, service: true, bytes_sent: 7 })
            })
        };
        wanted.iter().map(stage).collect()
    }

    async fn plan(&self, _: &NodeName, _: &Role, _: &Errand) -> Result<(), NodeError> {
        Ok(())
    }

    async fn end(&self, _: &NodeName, _: &Role, _: &str, _: &str) -> Result<(), NodeError> {
        Ok(())
    }

    async fn may_leave(&self, _: &NodeName, _: &Role) -> Result<Held, NodeError> {
        Ok(Held::Yes)
    }

    async fn settings(&self, _: &NodeName, _: &Role) -> Result<Vec<Setting>, NodeError> {
        Ok(Vec::new())
    }

    async fn note_settings(&self, _: &NodeName, _: &Role, _: &[Setting]) -> Result<(), NodeError> {
        Ok(())
    }

    async fn drain(&self, _: &NodeName, role: &Role, _: &[Setting]) -> Result<Held, NodeError> {
        if self.stuck != Some(role.as_str()) {
            return Ok(Held::Yes);
        }
        let what = format!("copies left, {} events ago", self.events.borrow().len());
        Ok(Held::Moving { left: 3, what, mark: "3".to_owned() })
    }

    async fn undrain(&self, _: &NodeName, _: &Role, _: &[Setting]) -> Result<Held, NodeError> {
        Ok(Held::Yes)
    }

    async fn settled(&self, _: &NodeName, _: &Role, _: &ReleaseName) -> Result<Held, NodeError> {
        Ok(Held::Yes)
    }

    async fn stop(
        &self,
        node: &NodeName,
        role: &Role,
        _: &str,
        _: Option<Span>,
    ) -> Result<supervise::Stopped, NodeError> {
        let ran = self.with(node, role, |node| Ok(node.running.take().is_some()))?;
        sleep(Duration::from_millis(300)).await;
        Ok(supervise::Stopped { ran, killed: false, duration_ms: 250 })
    }

    async fn reload(&self, node: &NodeName, role: &Role, release: &ReleaseName) -> Result<(), NodeError> {
        self.with(node, role, |one| {
            assert_eq!(one.current.as_ref(), Some(release), "{node}");
            one.running = Some(release.clone());
            Ok(())
        })
    }

    async fn activate(&self, node: &NodeName, role: &Role, swap: &Swap) -> Result<Activated, NodeError> {
        let vanishes = swap.to.as_ref().is_some_and(|to| self.sick(node, to) == Some(Sick::Vanishes));
        self.with(node, role, |one| {
            let deadline = swap.confirm_within.map(|within| Instant::now() + within.0);
            let guarded = deadline.is_some();
            let done = |already| Activated { from: swap.from.clone(), to: swap.to.clone(), already, guarded };
            if one.current == swap.to {
                one.guard = one.guard.take().zip(deadline).map(|((prior, _), deadline)| (prior, deadline));
                return Ok(done(true));
            }
            assert_eq!(one.current, swap.from, "{node}");
            one.guard = one.current.clone().zip(deadline);
            one.current.clone_from(&swap.to);
            one.gone = vanishes;
            Ok(done(false))
        })
    }

    async fn start(&self, node: &NodeName, role: &Role, to: &ReleaseName) -> Result<(), NodeError> {
        sleep(Duration::from_millis(10)).await;
        self.with(node, role, |one| {
            one.running = Some(to.clone());
            one.since = Some(Instant::now());
            Ok(())
        })
    }

    async fn probe(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
        _: Option<&Ready>,
    ) -> Result<Held, NodeError> {
        let sick = self.sick(node, release);
        self.with(node, role, |one| {
            if one.running.as_ref() != Some(release) {
                return Ok(Held::Never("another release runs".to_owned()));
            }
            let age = one.since.map_or(Duration::ZERO, |since| since.elapsed());
            Ok(match sick {
                Some(Sick::Dies) => Held::Never("the service ended by itself".to_owned()),
                Some(Sick::Hangs) => Held::NotYet("nothing listens on port 80".to_owned()),
                Some(Sick::Wavers) if age > Duration::from_secs(1) => Held::NotYet("it wavers".to_owned()),
                _ if age < Duration::from_secs(2) && sick.is_none() => Held::NotYet("it starts".to_owned()),
                _ => Held::Yes,
            })
        })
    }

    async fn confirm(&self, node: &NodeName, role: &Role, release: &ReleaseName) -> Result<(), NodeError> {
        let sick = self.sick(node, release);
        self.with(node, role, |one| {
            if one.current.as_ref() != Some(release) || sick == Some(Sick::Unconfirmed) {
                return Err(NodeError::new(Fault::Refused, "refused", "another release is current"));
            }
            one.guard = None;
            one.confirmed.insert(release.clone());
            Ok(())
        })
    }

    async fn go_back(&self, node: &NodeName, role: &Role, back: &Back) -> Result<RolledBack, NodeError> {
        self.with(node, role, |one| {
            let from = one.current.replace(back.to.clone());
            one.guard = None;
            if back.bad
                && let Some(from) = &from
            {
                one.bad.insert(from.clone());
            }
            if back.restart {
                one.running = Some(back.to.clone());
                one.since = Some(Instant::now());
            }
            Ok(RolledBack {
                from,
                to: one.current.clone(),
                already: false,
                pid: None,
                killed: false,
                stop_ms: 0,
                service_error: None,
            })
        })
    }

    async fn mark_bad(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
        _: &str,
    ) -> Result<(), NodeError> {
        self.with(node, role, |one| {
            one.bad.insert(release.clone());
            Ok(())
        })
    }
}

pub(super) fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}
