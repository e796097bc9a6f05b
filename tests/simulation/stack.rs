//! The whole old stack, as docs/examples/cluster.toml has it: four nodes in two racks, several roles on each, some of
//! them on all. It is rolled by role and by node, in the same weather and with the same invariants as any cluster.

use std::collections::BTreeMap;

use tokio::time::Instant;
use windlass::inventory::{By, Rollout};
use windlass::model::{NodeName, Role};
use windlass::rollout::{At, Kind};

use crate::simulation::chance::Chance;
use crate::simulation::story::{Tally, formed, rollout, tell_of};
use crate::simulation::wanted;
use crate::simulation::world::{Fate, Place, Weather, World};
use crate::support::old_stack::{ORDER, WHOLE};

fn world(seed: u64, by: By) -> World {
    let mut chance = Chance::new(seed);
    let order: Vec<Role> = ORDER.iter().map(|role| role.parse().unwrap()).collect();
    let rollout = Rollout { by, order, ..rollout(&mut chance) };
    let has_formed = !chance.hits(80);
    // One role's release may be bad, everywhere or on some nodes; the others' are good.
    let sick = chance.one(&[Fate::Well, Fate::Well, Fate::Dies, Fate::Hangs, Fate::Wavers]);
    let (sick_role, everywhere) = (chance.one(&ORDER), chance.hits(500));
    let now = Instant::now();
    let (mut places, mut shared, mut totals) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (n, (zone, roles)) in WHOLE.iter().enumerate() {
        let node: NodeName = format!("es{}", n + 1).parse().unwrap();
        let roles: Vec<Role> = roles.iter().map(|role| role.parse().unwrap()).collect();
        for role in &roles {
            *totals.entry(role.clone()).or_default() += 1;
            let mut place = Place::new(Some((*zone).to_owned()), now);
            if has_formed {
                formed(&mut place);
            }
            if role.as_str() == sick_role && (everywhere || chance.hits(400)) {
                place.fates.insert("v2".parse().unwrap(), sick);
            }
            places.insert(At { node: node.clone(), role: role.clone() }, place);
        }
        shared.insert(node, roles);
    }
    let weather = match chance.below(3) {
        0 => Weather::default(),
        1 => Weather { cuts: 2, deaths: 0, disk: 0 },
        _ => Weather { cuts: 8, deaths: 1, disk: 1 },
    };
    let calm = weather.cuts == 0 && sick == Fate::Well && has_formed;
    World {
        shared,
        calm,
        drains: has_formed,
        ..World::new(rollout, totals, places, weather, !has_formed, chance)
    }
}

/// Its first plan keeps the order of roles, and by node comes back to none.
fn planned(seed: u64, by: By) -> Vec<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = world(seed, by);
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        let plan =
            world.plan(Kind::Promote, world.candidates(|_, _| Some(crate::simulation::story::target())));
        if plan.waves.iter().any(|wave| wave.forming) {
            return Vec::new();
        }
        let place = |role: &Role| ORDER.iter().position(|one| *one == role.as_str());
        let all: Vec<(&NodeName, Option<usize>)> =
            plan.nodes().map(|one| (&one.node, place(&one.role))).collect();
        let mut broken = Vec::new();
        if by == By::Role && !all.iter().map(|(_, place)| place).is_sorted() {
            broken.push(format!("roles do not go in order: {all:?}"));
        }
        if by == By::Node {
            let mut nodes: Vec<&NodeName> = all.iter().map(|(node, _)| *node).collect();
            nodes.dedup();
            let sorted = all.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1);
            if nodes.len() != WHOLE.len() || !sorted {
                broken.push(format!("not node by node, each in order: {all:?}"));
            }
        }
        broken
    })
}

#[test]
fn the_old_stack_by_role_and_by_node() {
    the_old_stack(wanted(3_000));
}

#[test]
#[ignore = "long: 10,000 seeds of the old stack, about two hours without optimisation"]
fn long_the_old_stack_by_role_and_by_node() {
    the_old_stack(wanted(200_000));
}

/// A twentieth of so many seeds, each by role and by node.
fn the_old_stack(wanted: usize) {
    let wanted = u64::try_from(wanted / 20).unwrap();
    let (first, wanted) = match std::env::var("WINDLASS_SIM_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (0, wanted),
    };
    println!("{wanted} seeds, from WINDLASS_SIM_SEED={first} on");
    let mut tally = Tally::default();
    for seed in first..first + wanted {
        for by in [By::Role, By::Node] {
            let mut broken = planned(seed, by);
            broken.extend(tell_of(|| world(seed, by), wanted == 1, &mut tally));
            let again = format!("WINDLASS_SIM_SEED={seed} cargo test --test fast the_old_stack");
            assert!(broken.is_empty(), "seed {seed}, {by:?}: {broken:#?}\n{again}");
        }
    }
    println!("{tally}");
}
