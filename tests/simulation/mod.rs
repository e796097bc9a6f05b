//! Rollouts on clusters that do not exist, with a clock that does not wait: thousands of nodes, thousands of
//! failures. The engine and the planner are the real ones; nodes, network, services and disks fail as a seed says.
//!
//! ```text
//! cargo test --test fast simulation                                            some rollouts, none on more than 300 nodes
//! cargo test --release --test fast simulation::long -- --include-ignored       the campaign; WINDLASS_SIM sets its size
//! WINDLASS_SIM_SEED=4711 cargo test --test fast simulation -- --nocapture      one seed again, event by event
//! ```

mod chance;
mod curve;
mod ports;
mod stack;
mod story;
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use story::{Tally, tell};

/// How many rollouts are tried: what `WINDLASS_SIM` says, or `default`.
fn wanted(default: usize) -> usize {
    std::env::var("WINDLASS_SIM").map_or(default, |text| text.parse().unwrap())
}

#[test]
fn rollouts_end_as_they_should_whatever_fails() {
    rollouts(wanted(1500));
}

#[test]
#[ignore = "long: 100,000 rollouts, about an hour without optimisation"]
fn long_rollouts_end_as_they_should_whatever_fails() {
    rollouts(wanted(100_000));
}

fn rollouts(wanted: usize) {
    if let Ok(seed) = std::env::var("WINDLASS_SIM_SEED") {
        let seed: u64 = seed.parse().unwrap();
        let mut tally = Tally::default();
        let broken = tell(seed, true, &mut tally);
        assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
        return;
    }
    let first: u64 = std::env::var("WINDLASS_SIM_FIRST").map_or(0, |text| text.parse().unwrap());
    println!("{wanted} rollouts, from WINDLASS_SIM_SEED={first} on");
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<(Tally, BTreeMap<u64, Vec<String>>)> = std::thread::scope(|scope| {
        let run = |thread: usize| {
            scope.spawn(move || {
                let mut tally = Tally::default();
                let mut failed = BTreeMap::new();
                let mut seed = first + thread as u64;
                while tally.rollouts < wanted / threads && failed.len() < 5 {
                    let broken = tell(seed, false, &mut tally);
                    if !broken.is_empty() {
                        failed.insert(seed, broken);
                    }
                    seed += threads as u64;
                }
                (tally, failed)
            })
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = Tally::default();
    let mut failed = BTreeMap::new();
    for (tally, broken) in results {
        all.add(&tally);
        failed.extend(broken);
    }
    println!("{all}\nin {:.1} s", begun.elapsed().as_secs_f64());
    for (seed, broken) in &failed {
        println!("seed {seed}: {}", broken.join("\n    "));
    }
    assert!(
        failed.is_empty(),
        "replay: WINDLASS_SIM_SEED={} cargo test --test fast simulation",
        failed.keys().next().unwrap()
    );
}
