//! A node that leaves, and one that cannot.

use super::fake::{Fake, seconds};
use crate::rollout::{Kind, NodeState, Outcome, StepKind};

/// Two nodes; the first has two roles, and `api` goes before `web` in a promotion.
fn fake() -> Fake {
    let mut fake = Fake::new(2, Some("1-v1"));
    fake.rollout.order = vec!["api".parse().unwrap(), "web".parse().unwrap()];
    let first = fake.nodes.borrow().values().next().unwrap().clone();
    fake.nodes.borrow_mut().insert(("n1".parse().unwrap(), "api".parse().unwrap()), first);
    fake
}

fn steps(fake: &Fake) -> Vec<String> {
    let done = |name: &String| name.strip_prefix("step-done ").map(str::to_owned);
    fake.names().iter().filter_map(done).filter(|name| !name.ends_with("lock")).collect()
}

#[tokio::test(start_paused = true)]
async fn roles_go_in_reverse_and_are_forgotten_when_all_are_through() {
    let fake = fake();
    let finished = fake.run(&fake.leave()).await;
    assert_eq!(finished.outcome, Outcome::Succeeded, "{finished:?}");
    assert_eq!(fake.running(), ["-", "-", "v1"]);
    let wanted = ["drain", "stop", "gone", "undrain", "drain", "stop", "gone", "undrain", "forget", "forget"];
    let steps: Vec<String> = steps(&fake).split_off(2);
    assert_eq!(steps.iter().map(|name| name.rsplit(' ').next().unwrap()).collect::<Vec<_>>(), wanted);
    let roles: Vec<String> = fake.leave().nodes().map(|one| one.role.to_string()).collect();
    assert_eq!(roles, ["web", "api"]);
    assert_eq!(fake.leave().waves.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_move_is_given_up_and_everything_is_back() {
    let mut fake = fake();
    fake.stuck = Some("api");
    fake.rollout.progress_deadline = seconds(30);
    let begun = tokio::time::Instant::now();
    let finished = fake.run(&fake.leave()).await;
    assert_eq!(finished.outcome, Outcome::RolledBack, "{finished:?}");
    // Telling of it in other words is no progress.
    assert!((30..60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let why = finished.failures[0].error.full();
    assert!(why.contains("no progress for 30s: 3 of 3 copies left"), "{why}");
    assert_eq!(fake.running(), ["v1"; 3]);
    assert!(finished.nodes.iter().all(|node| node.state == NodeState::RolledBack), "{finished:?}");
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_anywhere_brings_everything_back() {
    for (at, nth) in [(StepKind::Drain, 1), (StepKind::Gone, 1), (StepKind::Drain, 2), (StepKind::Gone, 2)] {
        let mut fake = fake();
        fake.stop_at = Some((at, nth));
        let finished = fake.run(&fake.leave()).await;
        assert_eq!(finished.outcome, Outcome::Interrupted, "{at} {nth}: {finished:?}");
        assert_eq!(fake.running(), ["v1"; 3], "{at} {nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_way_back_from_one_that_was_broken_off_is_in_its_plan() {
    let plan = fake().leave().undone();
    assert_eq!(plan.kind, Kind::Leave);
    assert!(plan.nodes().all(|one| one.to == one.from && one.to.is_some()));
}
