//! What a node costs the controller: the planner and the engine over 10 to 5,000 nodes, in fair weather.
//!
//! ```text
//! cargo test --release --test fast simulation::curve::long -- --include-ignored --nocapture
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant as Wall};

use tokio::time::Instant;
use windlass::inventory::{MaxUnavailable, Rollout};
use windlass::model::Span;
use windlass::rollout::{At, Kind, Operator, Outcome, Run, interrupt};

use crate::simulation::chance::Chance;
use crate::simulation::story::{formed, target};
use crate::simulation::world::{Place, Weather, World};

/// What one size cost.
struct Cost {
    plan: Duration,
    run: Duration,
    /// Bytes at the peak of planning and running, above what the simulated cluster takes before.
    memory: u64,
    events: usize,
}

/// The most memory that this process ever had since the peak was forgotten, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn cost(nodes: usize, most: MaxUnavailable) -> Cost {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let now = Instant::now();
        let rollout = Rollout {
            max_unavailable: most,
            canary: 1,
            min_healthy: Span(Duration::from_secs(1)),
            ..Rollout::default()
        };
        let place = |n: usize| {
            let mut place = Place::new(None, now);
            formed(&mut place);
            (At { node: format!("n{n:04}").parse().unwrap(), role: "web".parse().unwrap() }, place)
        };
        let places: BTreeMap<At, Place> = (0..nodes).map(place).collect();
        let totals = BTreeMap::from([("web".parse().unwrap(), nodes)]);
        let world = World::new(rollout, totals, places, Weather::default(), false, Chance::new(1));
        tokio::time::sleep(Duration::from_secs(5)).await;
        forget_peak();
        let before = peak();
        let begun = Wall::now();
        let plan = world.plan(Kind::Promote, world.candidates(|_, _| Some(target())));
        let planned = begun.elapsed();
        let begun = Wall::now();
        let (_interrupter, interrupted) = interrupt();
        let finished =
            Run::new("curve", &plan, (&world, &world, &world), interrupted, Operator::default()).run().await;
        let ran = begun.elapsed();
        assert_eq!(finished.outcome, Outcome::Succeeded);
        assert_eq!(world.broken.take(), [""; 0]);
        let events = world.events.borrow().len();
        Cost { plan: planned, run: ran, memory: peak().saturating_sub(before), events }
    })
}

fn shown(nodes: usize, most: MaxUnavailable, cost: &Cost) -> String {
    let each = |whole: f64| whole / f64::from(u32::try_from(nodes).unwrap());
    format!(
        "{nodes:5} nodes, {most:?}: plan {:.1} ms, run {:.0} ms, {:.0} us a node; {:.1} MiB, {:.1} KiB a node; {} events",
        cost.plan.as_secs_f64() * 1e3,
        cost.run.as_secs_f64() * 1e3,
        each((cost.plan + cost.run).as_secs_f64() * 1e6),
        f64::from(u32::try_from(cost.memory >> 10).unwrap()) / 1024.0,
        each(f64::from(u32::try_from(cost.memory >> 10).unwrap())),
        cost.events,
    )
}

#[test]
fn curve_of_nodes() {
    curve(&[10, 200]);
}

#[test]
#[ignore = "long: up to 5,000 nodes, about 10 minutes without optimisation"]
fn long_curve_of_nodes() {
    curve(&[10, 100, 1000, 5000]);
}

fn curve(sizes: &[usize]) {
    for most in [MaxUnavailable::Count(1), MaxUnavailable::Percent(10)] {
        let mut costs = Vec::new();
        for nodes in sizes {
            let cost = cost(*nodes, most);
            println!("{}", shown(*nodes, most, &cost));
            costs.push((*nodes, cost.plan + cost.run));
        }
        // Five times the nodes must not cost much more than five times the time.
        if let [.., (fewer, before), (more, after)] = costs[..]
            && more == 5000
            && most == MaxUnavailable::Count(1)
        {
            let grown = after.as_secs_f64() / before.as_secs_f64();
            let wanted = f64::from(u32::try_from(more / fewer).unwrap());
            assert!(grown < wanted * 2.0, "{more} nodes cost {grown:.1} times as much as {fewer}");
        }
    }
}
