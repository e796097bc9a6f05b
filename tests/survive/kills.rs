//! The agent killed at each system call that changes anything.
//!
//! The short tests try some of the calls, which `SEED` chooses; the long ones try each.
//!
//! After each kill: `current` leads to a complete release, `status` tells the truth, the same operation again ends
//! well and where an undisturbed one does, and nothing temporary is left.

use serde_json::{Value, json};

use crate::support::bench::Bench;
use crate::support::seed::seed;
use crate::support::tracer::{CHANGES, Hit, Tracer};
use crate::survive::operations::{self, Operation, outcome};

/// The first of every `step`th call, counted from 1.
pub(crate) fn first(step: usize) -> usize {
    1 + usize::try_from(seed(0)).unwrap() % step
}

fn kill(at: usize, follow: bool) -> Hit<'static> {
    Hit { at, what: "kill", counted: CHANGES, follow }
}

/// Kills it at each `step`th call; how many calls there are.
fn killed_everywhere(bench: &Bench, tracer: &mut Tracer, operation: &Operation, step: usize) -> usize {
    let args: Vec<&str> = operation.args.iter().map(String::as_str).collect();
    let mut hit = |at, what: &str| {
        bench.reset();
        (operation.ready)(bench, what);
        bench.hit(tracer, &args, operation.stdin.as_deref(), kill(at, operation.follow))
    };
    let whole = hit(usize::MAX >> 1, operation.name);
    assert_eq!(whole.code, Some(0), "{}: {}{}", operation.name, whole.stdout, whole.stderr);
    let wanted = outcome(&bench.at_rest(operation.name));
    let mut at = first(step);
    let mut kills = 0;
    loop {
        let ended = hit(at, operation.name);
        if ended.hits == 0 {
            assert_eq!(ended.code, Some(0), "{}: {}", operation.name, ended.stderr);
            break;
        }
        let what = format!("{} killed at call {at}, {}", operation.name, ended.what.unwrap_or_default());
        assert!(ended.signal == Some(9) || operation.follow, "{what}: {:?} {}", ended.code, ended.stderr);
        kills += 1;
        bench.whole(&what);
        bench.truthful(&what);
        (operation.again)(bench, &what);
        bench.whole(&what);
        assert_eq!(outcome(&bench.at_rest(&what)), wanted, "{what}");
        if let Some(then) = &operation.then {
            then(bench, &what);
        }
        bench.clean(&what);
        at += step;
    }
    eprintln!("{}: {} calls, {kills} kills", operation.name, whole.count);
    assert!(kills > 0, "{} changes something", operation.name);
    whole.count
}

fn moves(step: usize) {
    let bench = Bench::new();
    let Some(mut tracer) = Tracer::start(&bench.lab.dir) else { return };
    for operation in operations::moves(&bench) {
        killed_everywhere(&bench, &mut tracer, &operation, step);
    }
}

#[test]
fn activate_confirm_and_rollback_killed_at_each_call() {
    moves(2);
}

#[test]
#[ignore = "long: kills activate, confirm and rollback at every call, about 2 minutes"]
fn long_activate_confirm_and_rollback_killed_at_each_call() {
    moves(1);
}

fn gc_and_services(gc: usize, services: usize) {
    let bench = Bench::new();
    let Some(mut tracer) = Tracer::start(&bench.lab.dir) else { return };
    for operation in operations::services_and_gc() {
        let step = if operation.name == "gc" { gc } else { services };
        killed_everywhere(&bench, &mut tracer, &operation, step);
    }
}

#[test]
fn gc_and_services_killed_at_each_call() {
    gc_and_services(9, 2);
}

#[test]
#[ignore = "long: kills gc, starts and stops at every call, about 3 minutes"]
fn long_gc_and_services_killed_at_each_call() {
    gc_and_services(1, 1);
}

fn receive_and_stage(step: usize) {
    let mut bench = Bench::new();
    let Some(mut tracer) = Tracer::start(&bench.lab.dir) else { return };
    let receive = operations::receive(&bench);
    bench.learn_next();
    killed_everywhere(&bench, &mut tracer, &receive, step);
    bench.pushed();
    killed_everywhere(&bench, &mut tracer, &operations::stage(&bench), step);
}

#[test]
fn receive_and_stage_killed_at_each_call() {
    receive_and_stage(4);
}

#[test]
#[ignore = "long: kills receive and stage at every call, about 2 minutes"]
fn long_receive_and_stage_killed_at_each_call() {
    receive_and_stage(1);
}

fn staging_with_a_spare(step: usize) {
    let mut bench = Bench::with_spare();
    let Some(mut tracer) = Tracer::start(&bench.lab.dir) else { return };
    bench.learn_next();
    let calls = killed_everywhere(&bench, &mut tracer, &operations::stage_with_spare(&bench), step);
    assert!(calls < 200, "without the spare it is 2,000");
}

#[test]
fn staging_with_a_spare_killed_at_each_call() {
    staging_with_a_spare(7);
}

#[test]
#[ignore = "long: kills staging with a spare at every call, about 5 minutes"]
fn long_staging_with_a_spare_killed_at_each_call() {
    staging_with_a_spare(1);
}

fn guards(step: usize) {
    let bench = Bench::new();
    let Some(mut tracer) = Tracer::start(&bench.lab.dir) else { return };
    killed_everywhere(&bench, &mut tracer, &operations::guard(&bench), step);
}

#[test]
fn guards_killed_at_each_call() {
    guards(4);
}

#[test]
#[ignore = "long: kills a guard at every call, about a minute"]
fn long_guards_killed_at_each_call() {
    guards(1);
}

#[test]
fn the_first_push_and_release_of_a_node_killed_at_each_call() {
    first_push_and_release(9);
}

#[test]
#[ignore = "long: kills a node's first push and first staging at every call, about 3 minutes"]
fn long_the_first_push_and_release_of_a_node_killed_at_each_call() {
    first_push_and_release(1);
}

fn first_push_and_release(step: usize) {
    let bench = Bench::new();
    let Some(mut tracer) = Tracer::start(&bench.lab.dir) else { return };
    let (stream, request) = (operations::receive(&bench).stdin, Some(operations::stage_request(&bench)));
    let mut kills = 0;
    for (args, stdin) in [("receive", stream), ("stage", request)] {
        for at in (first(step)..).step_by(step) {
            bench.end_processes();
            std::fs::remove_dir_all(&bench.lab.root).unwrap();
            if args == "stage" {
                bench.lab.push(&bench.last, None).unwrap();
            }
            let ended = bench.hit(&mut tracer, &[args], stdin.as_deref(), kill(at, false));
            let what = format!("first {args} killed at call {at}, {}", ended.what.unwrap_or_default());
            if ended.hits == 0 {
                assert_eq!(ended.code, Some(0), "{args}: {}", ended.stderr);
                break;
            }
            kills += 1;
            // A node that has nothing yet has nothing to tell, and says so.
            let status = bench.lab.call(&json!({ "op": "status" }));
            let roles = status["done"]["roles"].as_array().unwrap_or_else(|| panic!("{what}: {status}"));
            assert!(roles.iter().all(|role| role["problem"] == Value::Null), "{what}: {status}");
            let pushed = bench.lab.push(&bench.last, None);
            assert!(pushed.is_ok(), "{what}: {pushed:?}");
            let staged = bench.lab.call(&bench.lab.stage_request(&bench.last));
            let release = staged["done"]["release"].as_str().unwrap_or_else(|| panic!("{what}: {staged}"));
            assert_eq!(release, "1-8.0-1", "{what}");
            bench.ok(&["activate", "web", "--to", release], &what);
            bench.ok(&["service", "start", "web"], &what);
            let drift = bench.ok(&["drift", "web"], &what);
            assert_eq!(drift["drift"], json!([]), "{what}: {drift}");
            bench.clean(&what);
        }
    }
    eprintln!("first receive and first stage: {kills} kills");
    assert!(kills > 0);
}

#[test]
fn healing_killed_at_each_call() {
    healing(3);
}

#[test]
#[ignore = "long: kills healing at every call, about a minute"]
fn long_healing_killed_at_each_call() {
    healing(1);
}

fn healing(step: usize) {
    let bench = Bench::new();
    let Some(mut tracer) = Tracer::start(&bench.lab.dir) else { return };
    let spoil = || {
        // By way of another inode, so that the object is as it was.
        let tree = bench.lab.release(bench.name(4)).join("web/lib");
        std::fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::remove_file(tree.join("part-1")).unwrap();
        std::fs::remove_file(tree.join("part-2")).unwrap();
        std::fs::write(tree.join("part-2"), "spoilt").unwrap();
    };
    let mut kills = 0;
    for at in (first(step)..).step_by(step) {
        bench.reset();
        spoil();
        let ended = bench.hit(&mut tracer, &["drift", "web", "--heal"], None, kill(at, false));
        let what = format!("healing killed at call {at}, {}", ended.what.unwrap_or_default());
        if ended.hits == 0 {
            break;
        }
        kills += 1;
        let out = bench.lab.run(&["drift", "web", "--heal"]);
        assert_eq!(out.status.code(), Some(0), "{what}: {}", String::from_utf8_lossy(&out.stdout));
        bench.whole(&what);
        bench.truthful(&what);
        bench.clean(&what);
    }
    eprintln!("heal: {kills} kills");
    assert!(kills > 0);
}
