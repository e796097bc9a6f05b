//! The dead-man switch, and the lock.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bench::{end_all, processes};
use crate::support::node::{Lab, activation, service, wait_until};

/// A node that runs 1.0, confirmed, with 2.0 staged.
fn ready() -> (Lab, String, String) {
    let lab = Lab::new();
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(lab.http()["version"], "1.0");
    let second = lab.stage(&lab.build("2.0", &service("2.0")));
    (lab, first, second)
}

fn move_on(lab: &Lab, first: &str, second: &str, within: &str) {
    lab.done(&json!({ "op": "service-stop", "role": "web" }));
    let done = lab.done(&activation(Some(first), second, Some(within)));
    assert_eq!(done["guarded"], json!(true));
}

/// The guards of a lab's node that live.
pub(crate) fn guards_of(lab: &Lab) -> Vec<u32> {
    let root = lab.root.to_str().unwrap();
    processes(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("\0guard\0") && line.contains(root)
    })
}

/// Waits until the role needs no guard any more.
#[track_caller]
pub(crate) fn wait_for_guards(lab: &Lab) {
    wait_until("the guard is done", || guards_of(lab).is_empty());
}

/// Kills the node's guards, and waits for their ends.
#[track_caller]
pub(crate) fn kill_guards(lab: &Lab) {
    let guards = guards_of(lab);
    end_all(|pid| guards.contains(&pid));
}

/// Whether a process catches a signal, by its number.
fn catches(pid: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[test]
fn the_guard_goes_back_when_the_controller_is_gone() {
    let (lab, first, second) = ready();
    move_on(&lab, &first, &second, "10m");
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(lab.http()["version"], "2.0");
    // A hang-up of the session that started the guard does not end it: nothing else can move the link.
    let [guard] = *guards_of(&lab) else { panic!("one guard: {:?}", guards_of(&lab)) };
    wait_until("the guard has set up its signals", || catches(guard, 1));
    let hang_up = std::process::Command::new("kill").args(["-HUP", &guard.to_string()]).status();
    assert!(hang_up.unwrap().success());
    lab.advance(Duration::from_mins(10));
    wait_until("the guard rolls back", || {
        let link = std::fs::read_link(lab.root.join("roles/web/current")).unwrap();
        link.to_str().unwrap().ends_with(&first)
    });
    wait_until("the service is back", || lab.answers("1.0"));
    wait_for_guards(&lab);
    let status = lab.status();
    assert_eq!(status["bad"], json!([{ "release": second, "why": "not confirmed within 10m" }]));
    // The controller that comes back finds the truth.
    let late = lab.call(&json!({ "op": "confirm", "role": "web", "release": second }));
    assert_eq!(late["error"]["kind"], "not-current");
    assert_eq!(late["error"]["message"].as_str().unwrap(), format!("{first} is current, not {second}"));
}

#[test]
fn a_service_that_was_stopped_to_be_started_again_is_started() {
    let (lab, first, second) = ready();
    let stop = json!({ "op": "service-stop", "role": "web", "start_within": "10m" });
    // A restart whose controller died between the two.
    lab.done(&stop);
    lab.advance(Duration::from_mins(10));
    wait_until("the service is back", || lab.answers("1.0"));
    wait_for_guards(&lab);
    // An unconfirmed activation is rolled back at that deadline, not at its own, and no release is marked bad.
    let done = lab.done(&activation(Some(&first), &second, Some("5h")));
    assert_eq!(done["guarded"], json!(true));
    lab.done(&stop);
    lab.advance(Duration::from_mins(10));
    wait_until("the service is back", || lab.answers("1.0"));
    let status = lab.status();
    assert_eq!((&status["release"], &status["bad"]), (&json!(first), &json!([])));
    // A service that is started in time is left alone: its guard ends, and no other starts.
    lab.done(&stop);
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    let pid = lab.status()["pid"].clone();
    wait_for_guards(&lab);
    lab.advance(Duration::from_mins(10));
    assert_eq!(lab.status()["pid"], pid);
    assert!(guards_of(&lab).is_empty());
}

#[test]
fn a_confirmation_ends_the_guard() {
    let (lab, first, second) = ready();
    move_on(&lab, &first, &second, "10m");
    assert!(lab.status()["unconfirmed"]["left_ms"].as_u64().unwrap() <= 600_000);
    lab.done(&json!({ "op": "confirm", "role": "web", "release": second }));
    wait_for_guards(&lab);
    lab.advance(Duration::from_mins(10));
    // Status starts a guard where one is missing.
    assert_eq!(lab.current().as_deref(), Some(&*second));
    assert_eq!(lab.status()["unconfirmed"], Value::Null);
    assert!(guards_of(&lab).is_empty());
}

#[test]
fn a_killed_guard_is_replaced_and_an_expired_activation_taken_back() {
    let (lab, first, second) = ready();
    move_on(&lab, &first, &second, "10m");
    let before = guards_of(&lab);
    kill_guards(&lab);
    // The next command starts another guard: here, one that only reads.
    wait_until("another guard lives", || {
        lab.status();
        guards_of(&lab).iter().any(|pid| !before.contains(pid))
    });
    assert_eq!(lab.current().as_deref(), Some(&*second));
    wait_until("no guard is left", || {
        kill_guards(&lab);
        guards_of(&lab).is_empty()
    });
    lab.advance(Duration::from_mins(10));
    let link = std::fs::read_link(lab.root.join("roles/web/current")).unwrap();
    assert!(link.ends_with(&second), "no command has run meanwhile");
    // The first command afterwards rolls back.
    wait_until("the node is rolled back", || lab.current().as_deref() == Some(&*first));
    assert_eq!(lab.http()["version"], "1.0");
}

#[test]
fn with_nothing_to_go_back_to_the_guard_leaves_what_is_there() {
    let lab = Lab::new();
    let first = lab.stage(&lab.build("1.0", &service("1.0")));
    lab.done(&activation(None, &first, Some("10m")));
    lab.advance(Duration::from_mins(10));
    wait_until("the guard gave up", || {
        let text = String::from_utf8(lab.run(&["journal", "web"]).stdout).unwrap();
        text.contains("guard-gave-up")
    });
    assert_eq!(lab.current().as_deref(), Some(&*first));
    lab.done(&json!({ "op": "confirm", "role": "web", "release": first }));
}

#[test]
fn one_rollout_at_a_time_and_the_other_is_told_who() {
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    let first = lab.stage(&built);
    let mut holder = lab
        .node(&["lock", "--rollout", "r-17", "--who", "ann", "--host", "console"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let held: Value = serde_json::from_str(&line).unwrap();
    let token = held["done"]["token"].as_u64().unwrap();

    let out = lab.run(&["activate", "web", "--to", &first]);
    assert_eq!(out.status.code(), Some(5));
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.contains("ann on console holds this node's lock for rollout r-17 since "), "{text}");
    let second = lab.run(&["lock"]);
    assert_eq!(second.status.code(), Some(5));
    assert_eq!(lab.push(&built, None).unwrap_err()["error"]["kind"], "locked");
    // Looking is always allowed.
    assert_eq!(lab.done(&json!({ "op": "status" }))["lock"]["who"], "ann");

    let mut request = activation(None, &first, None);
    request["token"] = json!(token);
    assert_eq!(lab.call(&request)["done"]["to"], json!(first));
    // The connection goes, and the lock with it; what still comes from that rollout is refused.
    holder.kill().unwrap();
    holder.wait().unwrap();
    let mut request = json!({ "op": "confirm", "role": "web", "release": first, "token": token });
    let refused = lab.call(&request);
    assert_eq!(refused["error"]["kind"], "fenced", "{refused}");
    request.as_object_mut().unwrap().remove("token");
    lab.done(&request);
}

#[test]
fn one_guard_stands_in_for_whatever_activation_waits() {
    let lab = Lab::new();
    let names =
        [lab.promote(&lab.build("1.0", &service("1.0"))), lab.promote(&lab.build("2.0", &service("2.0")))];
    let mut session = lab.session();
    let mut first_guard = None;
    for n in 0..6 {
        let (from, to) = (&names[(n + 1) % 2], &names[n % 2]);
        assert_eq!(session.ask(&activation(Some(from), to, Some("1h")))["done"]["guarded"], json!(true));
        let [guard] = *guards_of(&lab) else { panic!("one guard: {:?}", guards_of(&lab)) };
        assert_eq!(*first_guard.get_or_insert(guard), guard);
    }
    // A shorter deadline than the one that it waited for.
    assert_eq!(
        session.ask(&activation(Some(&names[1]), &names[0], Some("1m")))["done"]["guarded"],
        json!(true)
    );
    lab.advance(Duration::from_mins(1));
    wait_until("the node is rolled back", || lab.current().as_deref() == Some(&*names[1]));
    wait_for_guards(&lab);
}

#[test]
fn status_is_quick_and_true_while_somebody_is_at_a_role() {
    let mut lab = Lab::new();
    lab.vars = json!({ "stop": "2m" });
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    let mut files = service("2.0");
    // This service stops when the test allows it, and the rollback waits for that.
    let stubborn = "#!/bin/sh\ntrap '' TERM\nwhile [ ! -e web/tmp/let ]; do sleep 0.1; done\n";
    files.insert("run.sh".to_owned(), (0o755, stubborn.into()));
    let second = lab.promote(&lab.build("2.0", &files));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    let mut back = lab.session();
    back.send(&json!({ "op": "rollback", "role": "web", "why": "to see", "restart": true }));
    let mut session = lab.session();
    let mut status = || session.ask(&json!({ "op": "status" }))["done"]["roles"][0].clone();
    wait_until("the rollback is seen", || status()["interrupted"] == "rolling-back");
    // None of these waits for the rollback, which cannot end before them.
    for _ in 0..5 {
        let status = status();
        let said = (&status["interrupted"], &status["busy"], &status["release"]);
        assert_eq!(said, (&json!("rolling-back"), &json!(true), &json!(second)), "{status}");
    }
    std::fs::write(lab.release(&second).join("web/tmp/let"), "").unwrap();
    wait_until("the rollback has ended", || {
        let status = status();
        if status["interrupted"] == Value::Null {
            assert_eq!(status["release"], json!(first), "{status}");
            return true;
        }
        assert_eq!((&status["release"], &status["busy"]), (&json!(second), &json!(true)), "{status}");
        false
    });
    assert_eq!(back.read()["done"]["to"], json!(first));
}

#[test]
fn status_is_true_between_any_two_steps_of_an_operation() {
    let lab = Lab::new();
    // Status waits up to 250 ms for an operation to end: stopping takes longer.
    let slow = "#!/bin/sh\ntrap 'sleep 0.3; exit' TERM\nwhile :; do sleep 0.01; done\n";
    let promote = |version: &str| {
        let mut files = service(version);
        files.insert("run.sh".to_owned(), (0o755, slow.into()));
        lab.promote(&lab.build(version, &files))
    };
    let names = [promote("1.0"), promote("2.0")];
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    let stop = AtomicBool::new(false);
    let watch = || {
        let mut session = lab.session();
        let mut seen = 0;
        while !stop.load(Ordering::Relaxed) {
            let status = session.ask(&json!({ "op": "status" }))["done"]["roles"][0].clone();
            assert_eq!(status["problem"], Value::Null, "{status}");
            // Nothing is killed here: every operation under way has a process.
            assert!(status["interrupted"] == Value::Null || status["busy"] == json!(true), "{status}");
            seen += usize::from(status["interrupted"] != Value::Null);
        }
        seen
    };
    std::thread::scope(|scope| {
        let watchers = [(); 4].map(|()| scope.spawn(watch));
        let mut session = lab.session();
        for n in 0..12 {
            let to = &names[n % 2];
            let request =
                json!({ "op": "rollback", "role": "web", "to": to, "why": "to see", "restart": true });
            let answer = session.ask(&request);
            assert!(answer.get("done").is_some(), "{answer}");
        }
        stop.store(true, Ordering::Relaxed);
        let seen: usize = watchers.map(|watcher| watcher.join().unwrap()).iter().sum();
        assert!(seen > 0, "nothing was seen under way");
    });
}
