//! From what was found on the nodes to a plan. Pure: no disk, no network, no clock.
//!
//! # Invariants
//!
//! * A wave never has more nodes of a role than `max_unavailable`, and never nodes of two zones; a forming
//!   role is the exception: it is one wave.
//! * What is wrong goes first: a role that is down on a node, before any node on which it is up may be taken down;
//!   then those whose release failed or was never confirmed.
//! * What is on target and healthy is in no wave.
//! * Nodes of a higher rank begin when all of a lower one are done: a leader goes last. Roles that are not in the
//!   order go by the ranks of their nodes too.
//! * Forming roles of a service whose cluster has nodes of several roles are one wave.
//! * Where two versions must not run at the same time, the role is one wave.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::plan::{Goal, Kind, Leftover, NodePlan, PLAN_FORMAT, Plan, Policy, Skipped, Wave};
use super::step::{Step, StepKind};
use crate::agent::ReleaseName;
use crate::inventory::{By, OnFailure, Rollout};
use crate::model::{Digest, NodeName, Role, Span, Timestamp, Version};

/// One role on one node, as it was found, and what shall become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an answer to a question of its own")]
pub struct Candidate {
    /// The node.
    pub node: NodeName,
    /// The role.
    pub role: Role,
    /// The failure zone.
    pub zone: Option<String>,
    /// What is current.
    pub from: Option<ReleaseName>,
    /// What was current before an earlier rollout made the target so, which nobody has confirmed yet.
    pub unconfirmed_from: Option<ReleaseName>,
    /// What shall be current.
    pub goal: Goal,
    /// Its version.
    pub to: Option<Version>,
    /// What is current is what shall be, to the last rendered byte.
    pub on_target: bool,
    /// Its service answers, whatever else is wrong with it.
    pub up: bool,
    /// What is current runs, is confirmed, and was not marked bad.
    pub healthy: bool,
    /// Something runs, before or after.
    pub service: bool,
    /// Its peers take over its work before it is stopped.
    pub drains: bool,
    /// Only its conf changes, and what runs can be told to read it again.
    pub reloads: bool,
    /// Its place among the nodes of its role: those with a lower one go first, all of them. 0 where any order
    /// will do.
    pub rank: u32,
    /// What travels and what changes.
    pub change: Change,
    /// Going back would lose data.
    pub point_of_no_return: bool,
    /// Of what templates see on the node besides secrets, where something is rendered.
    pub inputs: Option<Digest>,
    /// All nodes of its role stop before the first one starts: two versions must not run at the same time.
    pub together: bool,
    /// Its cluster is made of nodes of several roles: those that are forming form it together.
    pub joint: bool,
}

impl Candidate {
    /// It has a release, which does not answer.
    fn is_down(&self) -> bool {
        !self.up && self.from.is_some()
    }

    /// A role on a node of which nothing else is known: it has no release, and nothing runs or moves.
    pub fn of(node: NodeName, role: Role, goal: Goal) -> Self {
        Self {
            node,
            role,
            zone: None,
            from: None,
            unconfirmed_from: None,
            goal,
            to: None,
            on_target: false,
            up: false,
            healthy: false,
            service: false,
            drains: false,
            reloads: false,
            rank: 0,
            change: Change::default(),
            point_of_no_return: false,
            inputs: None,
            together: false,
            joint: false,
        }
    }
}

/// What travels to a node and what changes there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Bytes that have to be sent, at most.
    pub bytes_to_send: u64,
    /// Files that come.
    pub files_added: u64,
    /// Files that go.
    pub files_removed: u64,
    /// Files that change.
    pub files_changed: u64,
}

/// What a plan is made from besides its candidates.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    /// What the rollout is for.
    pub kind: Kind,
    /// The cluster's name.
    pub cluster: &'a str,
    /// The cluster's policy.
    pub rollout: &'a Rollout,
    /// How many nodes of the cluster have each role, whether they take part or not.
    pub totals: BTreeMap<Role, usize>,
    /// Roles that no node has run yet.
    pub forming: BTreeSet<Role>,
    /// What earlier rollouts changed in services' clusters and did not put back.
    pub leftovers: Vec<Leftover>,
    /// When.
    pub time: Timestamp,
}

/// Makes the plan.
pub fn plan(scope: &Scope<'_>, candidates: Vec<Candidate>) -> Plan {
    let restart = scope.kind == Kind::Restart;
    let (skipped, wanted): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|one| !restart && one.on_target && one.healthy);
    let ranks = ranks(&scope.rollout.order, &wanted);
    let (forming, standing): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|one| scope.forming.contains(&one.role));
    let at_once: BTreeSet<Role> =
        standing.iter().filter(|one| one.together).map(|one| one.role.clone()).collect();
    let (at_once, standing): (Vec<_>, Vec<_>) =
        standing.into_iter().partition(|one| at_once.contains(&one.role));
    let (mut joint, forming): (Vec<_>, Vec<_>) = forming.into_iter().partition(|one| one.joint);
    // At the place of the first of their roles.
    let mut forming_of = |role: &Role| {
        let of_role: Vec<Candidate> = if joint.iter().any(|one| one.role == *role) {
            std::mem::take(&mut joint)
        } else {
            forming.iter().filter(|one| one.role == *role).cloned().collect()
        };
        forming_wave(scope, of_role)
    };
    let mut waves = match scope.rollout.by {
        By::Role => {
            let mut waves = Vec::new();
            for role in &ranks {
                let of_role = |all: &[Candidate]| -> Vec<Candidate> {
                    all.iter().filter(|one| one.role == *role).cloned().collect()
                };
                waves.extend(forming_of(role));
                waves.extend(together_wave(scope, of_role(&at_once)));
                waves.extend(pack(scope, &ranks, of_role(&standing)));
            }
            waves
        }
        By::Node => {
            let mut waves: Vec<Wave> = Vec::new();
            for role in &ranks {
                waves.extend(forming_of(role));
            }
            waves.extend(pack(scope, &ranks, standing));
            for role in &ranks {
                let of_role = at_once.iter().filter(|one| one.role == *role).cloned().collect();
                waves.extend(together_wave(scope, of_role));
            }
            waves
        }
    };
    waves.retain(|wave| !wave.nodes.is_empty());
    let skipped =
        skipped.into_iter().map(|one| Skipped { node: one.node, role: one.role, version: one.to }).collect();
    Plan {
        format: PLAN_FORMAT,
        kind: scope.kind,
        cluster: scope.cluster.to_owned(),
        time: scope.time.clone(),
        policy: Policy::from(scope.rollout),
        waves,
        skipped,
        leftovers: scope.leftovers.clone(),
    }
}

/// The plan of a node that leaves: one wave of its roles, in the reverse of the order in which they are changed,
/// so that all of them are back if one cannot go.
pub fn leave(scope: &Scope<'_>, mut candidates: Vec<Candidate>) -> Plan {
    let ranks = ranks(&scope.rollout.order, &candidates);
    candidates.sort_by_key(|one| std::cmp::Reverse(ranks.iter().position(|role| *role == one.role)));
    let nodes: Vec<NodePlan> = candidates.into_iter().map(|one| node_plan(scope, one)).collect();
    let waves = if nodes.is_empty() {
        Vec::new()
    } else {
        vec![Wave { canary: false, forming: false, together: false, nodes }]
    };
    let policy = Policy {
        on_failure: OnFailure::RollbackNode,
        max_failures: 0,
        confirm_within: None,
        ..Policy::from(scope.rollout)
    };
    Plan {
        format: PLAN_FORMAT,
        kind: scope.kind,
        cluster: scope.cluster.to_owned(),
        time: scope.time.clone(),
        policy,
        waves,
        skipped: Vec::new(),
        leftovers: scope.leftovers.clone(),
    }
}

/// Roles in the order they go: those that are named, then the others by their highest rank and by name.
fn ranks(order: &[Role], wanted: &[Candidate]) -> Vec<Role> {
    let mut present: BTreeMap<&Role, u32> = BTreeMap::new();
    for one in wanted {
        let rank = present.entry(&one.role).or_default();
        *rank = one.rank.max(*rank);
    }
    let named = order.iter().filter(|role| present.contains_key(role));
    let mut others: Vec<(u32, &Role)> =
        present.iter().filter(|(role, _)| !order.contains(role)).map(|(role, rank)| (*rank, *role)).collect();
    others.sort();
    named.chain(others.into_iter().map(|(_, role)| role)).cloned().collect()
}

/// All of them at the same time, since no two versions may run together.
fn together_wave(scope: &Scope<'_>, candidates: Vec<Candidate>) -> Option<Wave> {
    forming_wave(scope, candidates).map(|wave| Wave { forming: false, together: true, ..wave })
}

fn forming_wave(scope: &Scope<'_>, mut candidates: Vec<Candidate>) -> Option<Wave> {
    candidates.sort_by(|a, b| (&a.node, &a.role).cmp(&(&b.node, &b.role)));
    let nodes: Vec<NodePlan> = candidates.into_iter().map(|one| node_plan(scope, one)).collect();
    (!nodes.is_empty()).then_some(Wave { canary: false, forming: true, together: false, nodes })
}

/// Nodes with all their roles that go together.
struct Unit {
    node: NodeName,
    zone: Option<String>,
    up: bool,
    healthy: bool,
    rank: u32,
    roles: Vec<Candidate>,
}

/// Packs nodes into waves: what is wrong first, zone by zone, the canary alone.
fn pack(scope: &Scope<'_>, ranks: &[Role], candidates: Vec<Candidate>) -> Vec<Wave> {
    let mut units: BTreeMap<NodeName, Unit> = BTreeMap::new();
    for one in candidates {
        let unit = units.entry(one.node.clone()).or_insert_with(|| Unit {
            node: one.node.clone(),
            zone: one.zone.clone(),
            up: true,
            healthy: true,
            rank: 0,
            roles: Vec::new(),
        });
        unit.up &= one.up;
        unit.healthy &= one.healthy;
        unit.rank = unit.rank.max(one.rank);
        unit.roles.push(one);
    }
    let mut units: Vec<Unit> = units.into_values().collect();
    for unit in &mut units {
        unit.roles.sort_by_key(|one| ranks.iter().position(|role| *role == one.role));
    }
    units.sort_by(|a, b| {
        (a.up, a.healthy, a.rank, &a.zone, &a.node).cmp(&(b.up, b.healthy, b.rank, &b.zone, &b.node))
    });
    let canary = usize::try_from(scope.rollout.canary).unwrap_or(usize::MAX);
    let mut waves: Vec<Wave> = Vec::new();
    let mut open = Open::default();
    for unit in down_first(units) {
        let most = if waves.len() <= 1 && canary > 0 { canary } else { usize::MAX };
        if waves.is_empty() || !open.takes(scope, &unit, most) {
            let canary = waves.is_empty() && canary > 0;
            waves.push(Wave { canary, forming: false, together: false, nodes: Vec::new() });
            open = Open { zone: unit.zone.clone(), rank: unit.rank, ..Open::default() };
        }
        open.add(&unit);
        if let Some(wave) = waves.last_mut() {
            wave.nodes.extend(unit.roles.into_iter().map(|one| node_plan(scope, one)));
        }
    }
    waves
}

impl Unit {
    /// Roles that ran here and do not now.
    fn down(&self) -> impl Iterator<Item = &Candidate> {
        self.roles.iter().filter(|one| one.is_down())
    }

    /// Has only those of its roles that are down; gives the others.
    fn split(&mut self) -> Self {
        let (down, rest): (Vec<_>, Vec<_>) = self.roles.drain(..).partition(Candidate::is_down);
        self.roles = down;
        Self { node: self.node.clone(), zone: self.zone.clone(), roles: rest, ..*self }
    }
}

/// Has a node wait for all others on which a role is down that is up on it. Of nodes that wait for each other, one is
/// brought up first where it is down, and is changed where it is up later.
fn down_first(units: Vec<Unit>) -> Vec<Unit> {
    let mut down: BTreeMap<Role, usize> = BTreeMap::new();
    for one in units.iter().flat_map(Unit::down) {
        *down.entry(one.role.clone()).or_default() += 1;
    }
    let mut left = VecDeque::from(units);
    let mut ordered = Vec::new();
    loop {
        let may = |unit: &Unit| {
            !unit.roles.iter().any(|one| one.up && down.get(&one.role).is_some_and(|count| *count > 0))
        };
        let next = if let Some(next) = left.iter().position(may) {
            left.remove(next)
        } else if let Some(unit) = left.iter_mut().find(|unit| unit.down().next().is_some()) {
            let rest = unit.split();
            Some(std::mem::replace(unit, rest))
        } else {
            left.pop_front()
        };
        let Some(next) = next else { return ordered };
        for one in next.down() {
            down.entry(one.role.clone()).and_modify(|count| *count -= 1);
        }
        ordered.push(next);
    }
}

/// The wave that is being filled.
#[derive(Default)]
struct Open {
    zone: Option<String>,
    rank: u32,
    nodes: usize,
    of_role: BTreeMap<Role, usize>,
}

impl Open {
    fn takes(&self, scope: &Scope<'_>, unit: &Unit, most: usize) -> bool {
        let fits = |one: &Candidate| {
            let total = scope.totals.get(&one.role).copied().unwrap_or(0);
            self.of_role.get(&one.role).copied().unwrap_or(0) < scope.rollout.max_unavailable.of(total)
        };
        self.zone == unit.zone && self.rank == unit.rank && self.nodes < most && unit.roles.iter().all(fits)
    }

    fn add(&mut self, unit: &Unit) {
        self.nodes += 1;
        for one in &unit.roles {
            *self.of_role.entry(one.role.clone()).or_default() += 1;
        }
    }
}

fn node_plan(scope: &Scope<'_>, one: Candidate) -> NodePlan {
    let reloads = one.reloads && one.service && scope.kind == Kind::Promote;
    NodePlan {
        steps: steps(scope.kind, &Policy::from(scope.rollout), one.service, one.drains, reloads),
        reloads,
        from: one.from.as_ref().map(|release| release.version().clone()),
        node: one.node,
        role: one.role,
        to: one.to,
        from_release: one.from,
        goes_back_to: one.unconfirmed_from,
        goal: one.goal,
        zone: one.zone,
        service: one.service,
        healthy: one.healthy,
        drains: one.drains,
        bytes_to_send: one.change.bytes_to_send,
        files_added: one.change.files_added,
        files_removed: one.change.files_removed,
        files_changed: one.change.files_changed,
        point_of_no_return: one.point_of_no_return,
        inputs: one.inputs,
    }
}

/// The steps of a node.
pub(super) fn steps(kind: Kind, policy: &Policy, service: bool, drains: bool, reloads: bool) -> Vec<Step> {
    let gate = policy.gate_timeout;
    let settle = Span(policy.min_healthy.0.saturating_add(gate.0));
    let leaves = kind == Kind::Leave;
    let all = [
        (StepKind::Lock, true),
        (StepKind::Preflight, true),
        (StepKind::Stage, kind == Kind::Promote),
        (StepKind::Drain, drains && service),
        (StepKind::Activate, matches!(kind, Kind::Promote | Kind::Rollback)),
        (StepKind::Stop, service && !reloads && kind != Kind::Rollback),
        (StepKind::Start, service && !reloads && matches!(kind, Kind::Promote | Kind::Restart)),
        (StepKind::Reload, reloads),
        (StepKind::Ready, service && !leaves),
        (StepKind::Gone, service && leaves),
        (StepKind::Undrain, drains && service),
        (StepKind::Settle, service && !leaves),
        (StepKind::Confirm, matches!(kind, Kind::Promote | Kind::Rollback)),
        (StepKind::Forget, leaves),
    ];
    let within = |step| match step {
        StepKind::Ready | StepKind::Drain | StepKind::Undrain => gate,
        StepKind::Settle | StepKind::Gone => settle,
        StepKind::Lock
        | StepKind::Preflight
        | StepKind::Stage
        | StepKind::Stop
        | StepKind::Activate
        | StepKind::Start
        | StepKind::Reload
        | StepKind::Confirm
        | StepKind::Forget => policy.progress_deadline,
    };
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(step, _)| Step::new(step, within(step))).collect()
}
