//! The dead-man switch, and the lock.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::node::{Lab, activation, service, until};

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

fn guards(root: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("\0guard\0") && line.contains(root)
    })
    .collect()
}

pub(crate) fn guards_of(lab: &Lab) -> Vec<u32> {
    guards(lab.root.to_str().unwrap())
}

#[test]
fn the_guard_goes_back_when_the_controller_is_gone() {
    let (lab, first, second) = ready();
    move_on(&lab, &first, &second, "2500ms");
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(lab.http()["version"], "2.0");
    // A hang-up of the session that started it does not reach it.
    let [guard] = *guards_of(&lab) else { panic!("one guard: {:?}", guards_of(&lab)) };
    let hang_up = std::process::Command::new("kill").args(["-HUP", &guard.to_string()]).status();
    assert!(hang_up.unwrap().success());
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(guards_of(&lab), [guard]);
    until("the guard goes back", 15, || {
        let link = std::fs::read_link(lab.root.join("roles/web/current")).unwrap();
        link.to_str().unwrap().ends_with(&first)
    });
    until("the service is back", 15, || {
        crate::support::node::ask(lab.port).is_some_and(|answer| answer["version"] == "1.0")
    });
    until("the guard is done", 5, || guards_of(&lab).is_empty());
    let status = lab.status();
    assert_eq!(status["bad"], json!([{ "release": second, "why": "not confirmed within 2s 500ms" }]));
    // The controller that comes back finds the truth.
    let late = lab.call(&json!({ "op": "confirm", "role": "web", "release": second }));
    assert_eq!(late["error"]["kind"], "not-current");
    assert_eq!(late["error"]["message"].as_str().unwrap(), format!("{first} is current, not {second}"));
}

#[test]
fn a_service_that_was_stopped_to_be_started_again_is_started() {
    let (lab, first, second) = ready();
    let stop = json!({ "op": "service-stop", "role": "web", "start_within": "600ms" });
    // A restart whose controller died between the two.
    lab.done(&stop);
    until("the service is back", 10, || {
        crate::support::node::ask(lab.port).is_some_and(|answer| answer["version"] == "1.0")
    });
    until("the guard is done", 5, || guards_of(&lab).is_empty());
    // In an activation it goes back at once, not when the time to confirm is over, and nothing is to blame.
    let done = lab.done(&activation(Some(&first), &second, Some("10m")));
    assert_eq!(done["guarded"], json!(true));
    lab.done(&stop);
    until("the service is back", 10, || {
        crate::support::node::ask(lab.port).is_some_and(|answer| answer["version"] == "1.0")
    });
    let status = lab.status();
    assert_eq!((&status["release"], &status["bad"]), (&json!(first), &json!([])));
    // Whoever starts it in time is not disturbed.
    lab.done(&stop);
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    let pid = lab.status()["pid"].clone();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(lab.status()["pid"], pid);
    assert!(guards_of(&lab).is_empty());
}

#[test]
fn a_confirmation_ends_the_guard() {
    let (lab, first, second) = ready();
    move_on(&lab, &first, &second, "2s");
    assert!(lab.status()["unconfirmed"]["left_ms"].as_u64().unwrap() <= 2000);
    lab.done(&json!({ "op": "confirm", "role": "web", "release": second }));
    until("the guard is done", 5, || guards_of(&lab).is_empty());
    std::thread::sleep(std::time::Duration::from_millis(2200));
    assert_eq!(lab.current().as_deref(), Some(&*second));
    assert_eq!(lab.status()["unconfirmed"], Value::Null);
}

#[test]
fn a_killed_guard_is_replaced_and_an_expired_activation_taken_back() {
    let (lab, first, second) = ready();
    move_on(&lab, &first, &second, "4s");
    let before = guards_of(&lab);
    for pid in &before {
        assert!(
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
        );
    }
    // Whatever runs next sees to it: here, somebody who only looks.
    until("another guard lives", 5, || {
        lab.status();
        guards_of(&lab).iter().any(|pid| !before.contains(pid))
    });
    assert_eq!(lab.current().as_deref(), Some(&*second));
    for pid in guards_of(&lab) {
        let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
    std::thread::sleep(std::time::Duration::from_millis(4200));
    // Nobody has looked meanwhile; the first who does sees to it.
    until("it went back", 10, || lab.current().as_deref() == Some(&*first));
    assert_eq!(lab.http()["version"], "1.0");
}

#[test]
fn with_nothing_to_go_back_to_the_guard_leaves_what_is_there() {
    let lab = Lab::new();
    let first = lab.stage(&lab.build("1.0", &service("1.0")));
    lab.done(&activation(None, &first, Some("300ms")));
    until("the guard gave up", 5, || {
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
        assert_eq!(session.ask(&activation(Some(from), to, Some("1m")))["done"]["guarded"], json!(true));
        let [guard] = *guards_of(&lab) else { panic!("one guard: {:?}", guards_of(&lab)) };
        assert_eq!(*first_guard.get_or_insert(guard), guard);
    }
    // A shorter deadline than the one that it waited for.
    assert_eq!(
        session.ask(&activation(Some(&names[1]), &names[0], Some("1s")))["done"]["guarded"],
        json!(true)
    );
    until("it went back", 15, || lab.current().as_deref() == Some(&*names[1]));
    until("the guard is done", 5, || guards_of(&lab).is_empty());
}

#[test]
fn status_is_quick_and_true_while_somebody_is_at_a_role() {
    let mut lab = Lab::new();
    lab.vars = json!({ "stop": "3s" });
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    let mut files = service("2.0");
    let stubborn = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n";
    files.insert("run.sh".to_owned(), (0o755, stubborn.into()));
    let second = lab.promote(&lab.build("2.0", &files));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    // Going back takes as long as the service takes to be killed.
    let mut back = lab.session();
    back.send(&json!({ "op": "rollback", "role": "web", "why": "to see", "restart": true }));
    let mut session = lab.session();
    let mut looks = 0;
    until("the rollback is seen", 5, || {
        session.ask(&json!({ "op": "status" }))["done"]["roles"][0]["interrupted"] == "rolling-back"
    });
    loop {
        let begun = std::time::Instant::now();
        let status = session.ask(&json!({ "op": "status" }))["done"]["roles"][0].clone();
        let took = begun.elapsed();
        if status["interrupted"] == Value::Null {
            assert_eq!(status["release"], json!(first));
            break;
        }
        assert_eq!((&status["release"], &status["busy"]), (&json!(second), &json!(true)), "{status}");
        assert!(took < std::time::Duration::from_secs(2), "{took:?}, of which 250 ms are waited");
        looks += 1;
    }
    assert!(looks > 0);
}
