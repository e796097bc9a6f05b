//! What a rollout does when all goes well, and when it does not.

use super::fake::{Fake, Sick, release, seconds};
use crate::inventory::{By, MaxUnavailable, OnFailure};
use crate::model::Span;
use crate::rollout::{NodeState, Outcome, StepKind};

#[tokio::test(start_paused = true)]
async fn all_nodes_move_one_after_the_other() {
    let fake = Fake::new(3, Some("1-v1"));
    let finished = fake.promote("v2").await;
    assert_eq!(finished.outcome, Outcome::Succeeded, "{finished:?}");
    assert_eq!((fake.running(), *fake.most_down.borrow()), (vec!["v2".to_owned(); 3], 1));
    let first = &finished.nodes[0];
    // 300 ms stopping, 10 ms starting, 2 s until it is ready; 250 ms and the 2 s are the service's own.
    assert!((2300..3000).contains(&first.downtime_ms), "{first:?}");
    assert!((50..=70).contains(&first.tool_downtime_ms), "{first:?}");
    assert!(fake.plan_to("v2").is_empty());
    let names = fake.names();
    let at = |text: &str| names.iter().position(|name| name == text).unwrap();
    assert!(at("step-done n3 stage") < at("step-started n1 activate"), "staging comes first");
    assert!(at("step-done n1 confirm") < at("step-started n2 activate"));
}

#[tokio::test(start_paused = true)]
async fn the_canary_keeps_a_broken_release_from_the_rest() {
    for sick in [Sick::Dies, Sick::Hangs, Sick::Wavers] {
        let mut fake = Fake::new(3, Some("1-v1"));
        fake.sick.insert(("*".to_owned(), "v2"), sick);
        let finished = fake.promote("v2").await;
        assert_eq!(finished.outcome, Outcome::RolledBack, "{sick:?} {finished:?}");
        assert_eq!(fake.running(), vec!["v1".to_owned(); 3]);
        let states: Vec<NodeState> = finished.nodes.iter().map(|node| node.state).collect();
        assert_eq!(states, [NodeState::RolledBack, NodeState::Untouched, NodeState::Untouched]);
        assert!(fake.nodes.borrow().values().next().unwrap().bad.contains(&release("2-v2")));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_moves_when_a_node_cannot_be_staged_or_is_locked() {
    let mut fake = Fake::new(3, Some("1-v1"));
    fake.sick.insert(("n3".to_owned(), "v2"), Sick::Unstaged);
    let finished = fake.promote("v2").await;
    assert!(!finished.touched && finished.outcome == Outcome::RolledBack, "{finished:?}");
    assert_eq!(fake.running(), vec!["v1".to_owned(); 3]);
    let mut fake = Fake::new(3, Some("1-v1"));
    fake.held = Some("n2".to_owned());
    assert!(fake.promote("v2").await.is_locked());
}

#[tokio::test(start_paused = true)]
async fn what_has_moved_since_the_plan_is_refused() {
    let fake = Fake::new(2, Some("1-v1"));
    let plan = fake.plan_to("v2");
    assert_eq!(fake.promote("v2").await.outcome, Outcome::Succeeded);
    let finished = fake.run(&plan).await;
    assert!(!finished.touched && finished.failures.len() == 2, "{finished:?}");
    assert!(finished.failures[0].error.line.message.contains("2-v2 is current, not 1-v1"));
}

#[tokio::test(start_paused = true)]
async fn failures_are_put_up_with_up_to_their_number() {
    let mut fake = Fake::new(4, Some("1-v1"));
    fake.rollout.max_failures = 1;
    fake.sick.insert(("n2".to_owned(), "v2"), Sick::Dies);
    let finished = fake.promote("v2").await;
    assert_eq!(finished.outcome, Outcome::RolledBack);
    assert_eq!(fake.running(), ["v2", "v1", "v2", "v2"]);
    let mut fake = Fake::new(4, Some("1-v1"));
    fake.sick.insert(("n2".to_owned(), "v2"), Sick::Dies);
    assert_eq!(fake.promote("v2").await.outcome, Outcome::RolledBack);
    assert_eq!(fake.running(), ["v2", "v1", "v1", "v1"]);
}

#[tokio::test(start_paused = true)]
async fn rollback_all_brings_back_what_was_done_before() {
    let mut fake = Fake::new(5, Some("1-v1"));
    fake.rollout.on_failure = OnFailure::RollbackAll;
    fake.rollout.max_unavailable = MaxUnavailable::Count(2);
    fake.sick.insert(("n4".to_owned(), "v2"), Sick::Hangs);
    let finished = fake.promote("v2").await;
    assert_eq!(finished.outcome, Outcome::RolledBack, "{finished:?}");
    assert_eq!(fake.running(), vec!["v1".to_owned(); 5]);
    assert!(*fake.most_down.borrow() <= 2);
    let states: Vec<NodeState> = finished.nodes.iter().map(|node| node.state).collect();
    assert_eq!(states, [NodeState::RolledBack; 5]);
}

#[tokio::test(start_paused = true)]
async fn halt_leaves_the_failed_node_to_a_person() {
    let mut fake = Fake::new(3, Some("1-v1"));
    fake.rollout.on_failure = OnFailure::Halt;
    fake.sick.insert(("*".to_owned(), "v2"), Sick::Hangs);
    let finished = fake.promote("v2").await;
    assert_eq!(finished.outcome, Outcome::NeedsPerson);
    assert_eq!(fake.running(), ["v2", "v1", "v1"]);
    assert!(finished.nodes[0].next.as_ref().unwrap().contains("windlass"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_vanishes_is_left_to_its_guard() {
    let mut fake = Fake::new(3, Some("1-v1"));
    fake.sick.insert(("n1".to_owned(), "v2"), Sick::Vanishes);
    let finished = fake.promote("v2").await;
    assert_eq!(finished.outcome, Outcome::NeedsPerson);
    assert_eq!(finished.nodes[0].state, NodeState::Guarded);
    assert!(finished.failures.iter().any(|failed| failed.undo), "{finished:?}");
}

#[tokio::test(start_paused = true)]
async fn a_forming_role_starts_and_fails_as_a_whole() {
    let fake = Fake::new(3, None);
    let plan = fake.plan_to("v1");
    assert_eq!((plan.waves.len(), plan.waves[0].forming), (1, true));
    assert_eq!(fake.run(&plan).await.outcome, Outcome::Succeeded);
    let mut fake = Fake::new(3, None);
    fake.sick.insert(("n2".to_owned(), "v1"), Sick::Hangs);
    let finished = fake.promote("v1").await;
    assert_eq!(finished.outcome, Outcome::RolledBack, "{finished:?}");
    assert_eq!(fake.running(), vec!["-".to_owned(); 3]);
    let bad: Vec<usize> = fake.nodes.borrow().values().map(|node| node.bad.len()).collect();
    assert_eq!(bad, [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_wave_without_progress_fails() {
    let mut fake = Fake::new(2, Some("1-v1"));
    fake.rollout.progress_deadline = seconds(5);
    fake.rollout.gate_timeout = Span(std::time::Duration::from_hours(1));
    fake.sick.insert(("*".to_owned(), "v2"), Sick::Hangs);
    let begun = tokio::time::Instant::now();
    assert_eq!(fake.promote("v2").await.outcome, Outcome::RolledBack);
    assert!(begun.elapsed().as_secs() < 30);
}

#[tokio::test(start_paused = true)]
async fn a_person_says_when_it_goes_on_after_the_canary() {
    let mut fake = Fake::new(3, Some("1-v1"));
    (fake.rollout.pause_after_canary, fake.goes_on) = (true, false);
    let finished = fake.promote("v2").await;
    assert!(finished.paused && finished.outcome == Outcome::Interrupted);
    assert_eq!(fake.running(), ["v2", "v1", "v1"]);
    fake.goes_on = true;
    assert_eq!(fake.promote("v2").await.outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_finishes_or_undoes_the_node_at_hand() {
    // While the gate does not hold: back.
    let mut fake = Fake::new(3, Some("1-v1"));
    fake.stop_at = Some((StepKind::Ready, 2));
    let finished = fake.promote("v2").await;
    assert_eq!(finished.outcome, Outcome::Interrupted);
    assert_eq!(fake.running(), ["v2", "v1", "v1"]);
    assert!(fake.nodes.borrow().values().all(|node| node.bad.is_empty()));
    // Once it holds: to the end.
    let mut fake = Fake::new(3, Some("1-v1"));
    fake.stop_at = Some((StepKind::Settle, 1));
    assert_eq!(fake.promote("v2").await.outcome, Outcome::Interrupted);
    assert_eq!(fake.running(), ["v2", "v1", "v1"]);
    // Before anything: nothing.
    let mut fake = Fake::new(3, Some("1-v1"));
    fake.stop_at = Some((StepKind::Stage, 1));
    let finished = fake.promote("v2").await;
    assert!(!finished.touched && finished.outcome == Outcome::Interrupted, "{finished:?}");
}

/// The order in which nodes' services stopped and started.
fn stops_and_starts(fake: &Fake) -> Vec<String> {
    let names = fake.names();
    let wanted =
        |name: &&String| name.starts_with("step-done") && (name.ends_with("stop") || name.ends_with("start"));
    names.iter().filter(wanted).map(|name| name["step-done ".len()..].to_owned()).collect()
}

fn all_together(fake: &Fake) -> crate::rollout::Plan {
    let mut plan = fake.plan_to("v2");
    let nodes = plan.waves.drain(..).flat_map(|wave| wave.nodes).collect();
    plan.waves.push(crate::rollout::Wave { canary: false, forming: false, together: true, nodes });
    plan
}

#[tokio::test(start_paused = true)]
async fn together_all_stop_before_one_starts() {
    let fake = Fake::new(3, Some("1-v1"));
    let finished = fake.run(&all_together(&fake)).await;
    assert_eq!(finished.outcome, Outcome::Succeeded, "{finished:?}");
    let order = stops_and_starts(&fake);
    assert!(order[..3].iter().all(|one| one.ends_with("stop")), "{order:?}");
    assert!(order[3..].iter().all(|one| one.ends_with("start")), "{order:?}");
    assert_eq!(fake.running(), vec!["v2".to_owned(); 3]);
}

#[tokio::test(start_paused = true)]
async fn together_all_go_back_when_one_fails() {
    let mut fake = Fake::new(3, Some("1-v1"));
    fake.sick.insert(("n2".to_owned(), "v2"), Sick::Dies);
    let finished = fake.run(&all_together(&fake)).await;
    assert_eq!(finished.outcome, Outcome::RolledBack, "{finished:?}");
    assert_eq!(fake.running(), vec!["v1".to_owned(); 3]);
    assert!(finished.nodes.iter().all(|node| node.state == NodeState::RolledBack), "{finished:?}");
    let nodes = fake.nodes.borrow();
    let bad: Vec<usize> = nodes.values().map(|node| node.bad.len()).collect();
    assert_eq!(bad, [0, 1, 0], "only the one that failed has a bad release");
}

#[tokio::test(start_paused = true)]
async fn guards_of_a_nodes_other_roles_count_anew_while_one_is_changed() {
    let mut fake = Fake::new(1, Some("1-v1")).with_roles(&["api", "queue", "store"]);
    fake.rollout.by = By::Node;
    fake.rollout.min_healthy = seconds(60);
    // Each role takes a minute; all four take more than a guard waits.
    fake.rollout.confirm_within = Some(seconds(150));
    let finished = fake.promote("v2").await;
    assert_eq!(finished.outcome, Outcome::Succeeded, "{finished:?}");
    assert_eq!(fake.running(), vec!["v2".to_owned(); 4]);
    assert!(fake.nodes.borrow().values().all(|role| role.confirmed.contains(&release("2-v2"))));
}

#[tokio::test(start_paused = true)]
async fn a_role_that_cannot_be_confirmed_takes_its_whole_node_back() {
    let mut fake = Fake::new(2, Some("1-v1")).with_roles(&["api", "queue"]);
    fake.rollout.by = By::Node;
    fake.sick.insert(("n1".to_owned(), "v2"), Sick::Unconfirmed);
    let finished = fake.promote("v2").await;
    assert_eq!(finished.outcome, Outcome::RolledBack, "{finished:?}");
    let states: Vec<NodeState> = finished.nodes.iter().map(|node| node.state).collect();
    let back = NodeState::RolledBack;
    assert_eq!(states, [back, back, back, NodeState::Untouched]);
    assert_eq!(fake.running(), vec!["v1".to_owned(); 4]);
}
