//! One seed: a cluster, a promotion in bad weather, whatever it takes to end it, and what must hold then.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use windlass::agent::ReleaseName;
use windlass::inventory::{MaxUnavailable, OnFailure, Rollout};
use windlass::model::{Span, Version};
use windlass::rollout::{
    At, Finished, Goal, Kind, NodePlan, NodeState, Operator, Outcome, Plan, Run, interrupt,
};

use crate::simulation::chance::Chance;
use crate::simulation::world::{Fate, Place, Weather, World, bundle};

/// What happened, in numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rollouts: usize,
    pub(crate) nodes: usize,
    pub(crate) largest: usize,
    pub(crate) crashes: usize,
    pub(crate) outcomes: BTreeMap<&'static str, usize>,
    /// Simulated time.
    pub(crate) time: Duration,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.rollouts += other.rollouts;
        self.nodes += other.nodes;
        self.largest = self.largest.max(other.largest);
        self.crashes += other.crashes;
        self.time += other.time;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time.as_secs() / 3600;
        let Self { rollouts, nodes, largest, crashes, outcomes, .. } = self;
        write!(
            f,
            "{rollouts} rollouts over {nodes} nodes (at most {largest} in one), {crashes} controllers killed, \
             {outcomes:?}, {hours} simulated hours"
        )
    }
}

fn release(number: u64, version: &str) -> ReleaseName {
    ReleaseName::new(number, version.parse().unwrap())
}

/// Has it run `v1` for as long as anybody can remember.
pub(crate) fn formed(place: &mut Place) {
    let first = release(1, "v1");
    place.staged.insert(first.clone(), bundle(first.version()));
    place.confirmed.push(first.clone());
    (place.current, place.running) = (Some(first.clone()), Some(first));
}

/// What every story is about.
pub(crate) fn target() -> (Goal, Version) {
    let target: Version = "v2".parse().unwrap();
    (Goal::Bundle(bundle(&target)), target)
}

pub(crate) fn rollout(chance: &mut Chance) -> Rollout {
    let seconds = |seconds| Span(Duration::from_secs(seconds));
    Rollout {
        max_unavailable: if chance.hits(300) {
            MaxUnavailable::Percent(chance.one(&[10, 25, 50]))
        } else {
            MaxUnavailable::Count(chance.one(&[1, 1, 2, 3]))
        },
        canary: chance.one(&[0, 1, 1, 2]),
        pause_after_canary: chance.hits(100),
        gate_timeout: seconds(chance.one(&[30, 120, 600])),
        min_healthy: seconds(chance.one(&[1, 5, 10])),
        progress_deadline: seconds(chance.one(&[20, 120, 600])),
        max_failures: chance.one(&[0, 0, 0, 1, 2]),
        on_failure: chance.one(&[
            OnFailure::RollbackNode,
            OnFailure::RollbackNode,
            OnFailure::RollbackAll,
            OnFailure::Halt,
        ]),
        confirm_within: (!chance.hits(50)).then(|| seconds(chance.one(&[120, 900]))),
        ..Rollout::default()
    }
}

/// How many nodes: mostly few, now and then thousands.
fn size(chance: &mut Chance) -> usize {
    let many = std::env::var_os("WINDLASS_SIM").is_some();
    match chance.below(2000) {
        0..5 if !many => 300,
        0 => 5000,
        1..5 => 1000 + chance.below(1000),
        5..40 => 50 + chance.below(250),
        _ => 3 + chance.below(12),
    }
}

fn world(seed: u64) -> World {
    let mut chance = Chance::new(seed);
    let count = size(&mut chance);
    let rollout = rollout(&mut chance);
    let zones = chance.one(&[0, 0, 2, 3]);
    let formed = !chance.hits(80);
    // A version may be bad everywhere, on some nodes, or nowhere.
    let sick = chance.one(&[Fate::Well, Fate::Well, Fate::Well, Fate::Dies, Fate::Hangs, Fate::Wavers]);
    let everywhere = chance.hits(300);
    let now = Instant::now();
    let mut places = BTreeMap::new();
    for n in 0..count {
        let mut place = Place::new((zones > 0).then(|| format!("z{}", n % zones)), now);
        if formed {
            self::formed(&mut place);
        }
        if everywhere || chance.hits(150) {
            place.fates.insert("v2".parse().unwrap(), sick);
        }
        places.insert(At { node: format!("n{n:04}").parse().unwrap(), role: "web".parse().unwrap() }, place);
    }
    let weather = match chance.below(4) {
        0 => Weather::default(),
        1 => Weather { cuts: 2, deaths: 0, disk: 0 },
        2 => Weather { cuts: 10, deaths: 1, disk: 1 },
        _ => Weather { cuts: 1, deaths: 1, disk: 0 },
    };
    let before = chance.one(&[0, 1]);
    let before = if before == 0 { serde_json::Value::Null } else { "all".into() };
    let totals = BTreeMap::from([("web".parse().unwrap(), count)]);
    let drains = formed && chance.hits(500);
    World {
        drains,
        before: before.clone(),
        setting: before.into(),
        ..World::new(rollout, totals, places, weather, !formed, chance)
    }
}

/// How a run ended: by itself, or because its controller died.
enum End {
    Finished(Box<Finished>),
    Died,
}

async fn run(world: &World, plan: &Plan, id: &str) -> End {
    world.places.borrow_mut().values_mut().for_each(|place| place.inherited = place.ours);
    let (interrupter, interrupted) = interrupt();
    {
        let mut chance = world.chance.borrow_mut();
        let events = world.events.borrow().len();
        // About as many events as a rollout of that size has.
        let most = 30 + plan.nodes().count() * 25;
        world.dies_at.set(chance.hits(300).then(|| events + 1 + chance.below(most)));
        let mut stops = Vec::new();
        if chance.hits(150) {
            stops.push((events + 1 + chance.below(most), interrupter.clone()));
            if chance.hits(400) {
                stops.push((events + 1 + chance.below(most), interrupter.clone()));
            }
        }
        *world.stop_at.borrow_mut() = stops;
        world.locked.set(chance.hits(10));
    }
    let run = Run::new(id, plan, (world, world, world), interrupted, Operator::default());
    // Both at once: the controller is gone before it can do anything more.
    tokio::select! {
        biased;
        () = world.dead.notified() => End::Died,
        finished = run.run() => End::Finished(Box::new(finished)),
    }
}

/// Tells one seed's story; what was broken in it.
pub(crate) fn tell(seed: u64, aloud: bool, tally: &mut Tally) -> Vec<String> {
    tell_of(|| world(seed), aloud, tally)
}

/// The story of a world, which is made on the simulated clock.
pub(crate) fn tell_of(world: impl FnOnce() -> World, aloud: bool, tally: &mut Tally) -> Vec<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = world();
        let begun = Instant::now();
        sleep(Duration::from_secs(5)).await;
        whole(&world, tally, aloud).await;
        tally.time += begun.elapsed();
        if aloud {
            for event in world.events.borrow().iter() {
                println!("{}", serde_json::to_string(event).unwrap());
            }
        }
        world.broken.take()
    })
}

async fn whole(world: &World, tally: &mut Tally, aloud: bool) {
    let target: Version = "v2".parse().unwrap();
    let to_target = |_: &At, _: &Place| Some((Goal::Bundle(bundle(&target)), target.clone()));
    let mut plan = world.plan(Kind::Promote, world.candidates(to_target));
    let mut elsewhere = false;
    // Bad weather first; it clears up, and then the end must come soon.
    for attempt in 0..14 {
        if attempt == 4 {
            world.weather.set(Weather::default());
            sleep(Duration::from_hours(1)).await;
            plan = replan(world, &target, elsewhere);
        }
        if plan.is_empty() {
            break;
        }
        if plan.nodes().any(|one| is_bad(world, one)) {
            // The command line refuses: another version has to be built.
            break;
        }
        if aloud {
            println!(
                "plan {attempt}: {:?}",
                plan.waves
                    .iter()
                    .map(|wave| wave
                        .nodes
                        .iter()
                        .map(|one| (one.node.to_string(), one.healthy))
                        .collect::<Vec<_>>())
                    .collect::<Vec<_>>()
            );
            for (node, place) in world.places.borrow().iter() {
                println!("  {node:?} {place:?}");
            }
        }
        tally.rollouts += 1;
        tally.nodes += plan.nodes().count();
        tally.largest = tally.largest.max(plan.nodes().count());
        let id = format!("r{attempt:02}");
        let before: BTreeMap<At, (Option<ReleaseName>, bool)> = world
            .places
            .borrow()
            .iter()
            .map(|(at, place)| (at.clone(), (place.current.clone(), place.ours)))
            .collect();
        match run(world, &plan, &id).await {
            End::Died => {
                tally.crashes += 1;
                *tally.outcomes.entry("killed").or_default() += 1;
                let pause = world.chance.borrow_mut().seconds(0, 1800);
                elsewhere = world.chance.borrow_mut().hits(500);
                sleep(pause).await;
            }
            End::Finished(finished) => {
                *tally.outcomes.entry(finished.outcome.name()).or_default() += 1;
                if aloud {
                    println!("{id}: {finished:?}");
                }
                judge(world, &plan, &finished, &before);
                if finished.outcome == Outcome::Succeeded {
                    break;
                }
                elsewhere = false;
            }
        }
        world.check(None);
        plan = replan(world, &target, elsewhere);
    }
    rest(world, &target).await;
}

/// Once every guard's time has come, nothing is left half way.
async fn rest(world: &World, target: &Version) {
    world.weather.set(Weather::default());
    sleep(Duration::from_hours(2)).await;
    world.check(None);
    let now = Instant::now();
    let formed = !world.forming.get();
    for (node, place) in world.places.borrow().iter() {
        let to_nothing = |errand: &windlass::agent::Errand| errand.kind == "rollback" && errand.to.is_none();
        if place.errand.as_ref().is_some_and(to_nothing) {
            continue;
        }
        // One that never had a release before may end without.
        if place.current.is_none() {
            continue;
        }
        let unguarded = world.rollout.confirm_within.is_none();
        if formed
            && !place.confirmed.is_empty()
            && !place.is_ready(now)
            && !unguarded
            && place.confirmed.last() != place.current.as_ref()
        {
            world.break_rule(&format!("{node:?} has no working release at the end: {place:?}"));
        }
        if !place.confirmed.is_empty() && place.current.is_none() {
            world.break_rule(&format!("{node:?} has lost its release"));
        }
    }
    if *world.setting.borrow() != world.before {
        // One more command puts it back.
        let plan = replan(world, target, false);
        world.locked.set(false);
        world.dies_at.set(None);
        world.stop_at.borrow_mut().clear();
        let (_, interrupted) = interrupt();
        let ports = (world, world, world);
        let only = Plan { waves: Vec::new(), ..plan };
        let _ = Run::new("last", &only, ports, interrupted, Operator::default()).run().await;
        if *world.setting.borrow() != world.before {
            world.break_rule(&format!("the setting is {} and was {}", world.setting.borrow(), world.before));
        }
    }
}

fn is_bad(world: &World, plan: &NodePlan) -> bool {
    let places = world.places.borrow();
    let at = At { node: plan.node.clone(), role: plan.role.clone() };
    let (Some(place), goal) = (places.get(&at), &plan.goal) else { return false };
    let of = |digest| place.bad.iter().any(|bad| place.staged.get(bad) == Some(digest));
    match goal {
        Goal::Bundle(digest) => {
            of(digest) && place.current.as_ref().and_then(|one| place.staged.get(one)) != Some(digest)
        }
        Goal::Release(release) => place.bad.contains(release) && place.current.as_ref() != Some(release),
        Goal::Nothing => false,
    }
}

/// What `resume` plans: from the controller's own journal, or from the nodes' on another machine.
fn replan(world: &World, target: &Version, elsewhere: bool) -> Plan {
    let newest =
        world.places.borrow().values().filter_map(|one| one.errand.clone()).map(|one| one.rollout).max();
    let back = {
        let places = world.places.borrow();
        let of_newest = |place: &&Place| place.errand.as_ref().map(|one| &one.rollout) == newest.as_ref();
        places.values().filter(of_newest).any(|place| {
            place.errand.as_ref().is_some_and(|one| one.kind == "rollback") && place.ended.is_none()
        })
    };
    let Some(newest) = newest.filter(|_| elsewhere || back) else {
        let to_target = |_: &At, _: &Place| Some((Goal::Bundle(bundle(target)), target.clone()));
        return world.plan(Kind::Promote, world.candidates(to_target));
    };
    let kind = if back { Kind::Rollback } else { Kind::Promote };
    let candidates = world.candidates(|_, place| {
        let errand =
            place.errand.as_ref().filter(|one| one.rollout == newest && one.kind == kind.command())?;
        let to = errand.to.clone()?;
        Some((Goal::Release(to.clone()), to.version().clone()))
    });
    world.plan(kind, candidates)
}

/// What a rollout says at its end must be so.
fn judge(
    world: &World,
    plan: &Plan,
    finished: &Finished,
    before: &BTreeMap<At, (Option<ReleaseName>, bool)>,
) {
    let places = world.places.borrow();
    let at = |one: &NodePlan| At { node: one.node.clone(), role: one.role.clone() };
    let priors: BTreeMap<At, Option<&ReleaseName>> = plan.nodes().map(|one| (at(one), one.prior())).collect();
    for result in &finished.nodes {
        let place = &places[&result.at];
        let (was, was_down) = &before[&result.at];
        match result.state {
            NodeState::Done => {
                if place.current != result.release {
                    world
                        .break_rule(&format!("{}: done, and {:?} is current", result.at.node, place.current));
                }
                if place.unconfirmed.is_some() {
                    world.break_rule(&format!("{}: done, and not confirmed", result.at.node));
                }
            }
            NodeState::RolledBack => {
                let prior = priors[&result.at];
                if place.current.as_ref() != prior {
                    world.break_rule(&format!(
                        "{}: said to be back, and {:?} is current, not {prior:?}",
                        result.at.node, place.current
                    ));
                }
            }
            NodeState::Untouched => {
                if place.ours
                    && !was_down
                    && place.current == *was
                    && finished.outcome != Outcome::NeedsPerson
                {
                    world.break_rule(&format!("{}: said to be untouched, and down", result.at.node));
                }
            }
            NodeState::Changing => world.break_rule(&format!("{}: left without an end", result.at.node)),
            NodeState::Guarded | NodeState::NeedsPerson => {}
        }
    }
    if finished.outcome == Outcome::Succeeded && *world.setting.borrow() != world.before {
        world.break_rule("succeeded, and a setting was not put back");
    }
    let locked = finished.failures.iter().any(|one| one.error.fault == windlass::rollout::Fault::Locked);
    if finished.outcome == Outcome::RolledBack && !locked && *world.setting.borrow() != world.before {
        world.break_rule("rolled back, and a setting was not put back");
    }
}
