//! A rollout that lost its lock changes nothing any more, and gc takes nothing that somebody needs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use camino::Utf8Path;
use serde_json::{Value, json};
use windlass::fs::{DirLock, LockKind};

use crate::support::bench::{Bench, sleeps};
use crate::support::node::{activation, wait_until};
use crate::survive::operations::outcome;

/// A rollout that holds the node's lock, and its token.
fn holder(bench: &Bench, rollout: &str) -> (Child, Value) {
    let args = ["lock", "--rollout", rollout, "--who", "ann", "--host", "pc"];
    let mut child = bench.lab.node(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let held: Value = serde_json::from_str(&line).unwrap();
    let token = held["done"]["token"].clone();
    assert!(token.is_u64(), "{line}");
    (child, token)
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn whoever_lost_the_lock_is_refused_every_step() {
    let bench = Bench::new();
    bench.lab.push(&bench.last, None).unwrap();
    bench.ok(&["service", "start", "web"], "the service");
    let (first, token) = holder(&bench, "r-1");
    let with = |mut request: Value| {
        request["token"] = token.clone();
        request
    };
    let (current, staged) = (bench.name(4), bench.name(7));
    let steps = [
        activation(Some(current), staged, Some("5m")),
        json!({ "op": "confirm", "role": "web", "release": current }),
        json!({ "op": "rollback", "role": "web", "why": "to see", "bad": true, "restart": true }),
        json!({ "op": "mark-bad", "role": "web", "release": current, "why": "to see" }),
        json!({ "op": "pin", "role": "web", "release": current, "pinned": true }),
        json!({ "op": "heal", "role": "web" }),
        json!({ "op": "gc", "keep": 0 }),
        json!({ "op": "service-stop", "role": "web", "why": "to see" }),
        json!({ "op": "service-start", "role": "web" }),
        bench.lab.stage_request(&bench.last),
    ];
    // While it has the lock it may: the session is the one that later may not.
    let mut session = bench.lab.session();
    let pinned = session.ask(&with(steps[4].clone()));
    assert!(pinned.get("done").is_some(), "{pinned}");
    let before = outcome(&bench.lab.status());

    end(first);
    for other in [false, true] {
        let second = other.then(|| holder(&bench, "r-2"));
        for step in &steps {
            let answer = session.ask(&with(step.clone()));
            let error = &answer["error"];
            assert_eq!(error["kind"], "fenced", "{step}: {answer}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("no longer holds this node's lock"), "{message}");
            assert_eq!(
                message.contains("ann on pc") && message.contains("for rollout r-2 since 20"),
                other,
                "{message}"
            );
        }
        assert_eq!(outcome(&bench.lab.status()), before);
        if let Some((second, token)) = second {
            let mut step = steps[0].clone();
            step["token"] = token;
            assert!(bench.lab.call(&step).get("done").is_some(), "whoever has the lock may");
            bench.lab.done(
                &json!({ "op": "rollback", "role": "web", "to": current, "why": "", "token": step["token"] }),
            );
            end(second);
        }
    }
}

#[test]
fn a_step_that_waited_while_the_lock_changed_hands_is_refused() {
    let bench = Bench::new();
    let (first, token) = holder(&bench, "r-1");
    let role = bench.lab.root.join("roles/web");
    let held = DirLock::attempt(Utf8Path::from_path(&role).unwrap(), LockKind::Exclusive).unwrap().unwrap();
    let mut step = activation(Some(bench.name(4)), bench.name(7), None);
    step["token"] = token;
    let mut session = bench.lab.session();
    let before = sleeps(session.pid());
    session.send(&step);
    // It looks at the lock, and then again and again whether it can have the role.
    wait_until("it waits for the role", || sleeps(session.pid()) > before + 30);
    end(first);
    let second = holder(&bench, "r-2");
    drop(held);
    let answer = session.read();
    assert_eq!(answer["error"]["kind"], "fenced", "{answer}");
    assert_eq!(bench.whole("after it"), bench.name(4));
    end(second.0);
}

#[test]
fn gc_takes_nothing_that_a_rollout_a_person_or_a_process_needs() {
    let bench = Bench::new();
    let there = |number: usize| bench.lab.release(bench.name(number)).is_dir();
    bench.ok(&["pin", "web", bench.name(1)], "pinned");
    // A process that somebody runs by hand from an old release.
    let mut by_hand =
        Command::new("sleep").arg("100000").current_dir(bench.lab.release(bench.name(2))).spawn().unwrap();
    // A rollout has activated 7 and may go back to 4.
    let (holder, token) = holder(&bench, "r-1");
    let mut step = activation(Some(bench.name(4)), bench.name(7), Some("5m"));
    step["token"] = token.clone();
    bench.lab.done(&step);
    let out = bench.lab.run(&["gc", "--keep", "0"]);
    assert_eq!(out.status.code(), Some(5), "{}", String::from_utf8_lossy(&out.stderr));
    let gone = bench.lab.done(&json!({ "op": "gc", "keep": 0, "token": token }));
    // 1 is pinned, 2 in use, 3 the last that was confirmed before 4, 4 what 7 came from; 5 and 6 are bad.
    let there_now: Vec<usize> = (1..=7).filter(|number| there(*number)).collect();
    assert_eq!(there_now, [1, 2, 4, 7], "{gone}");
    end(holder);
    bench.lab.done(&json!({ "op": "rollback", "role": "web", "why": "to see" }));
    assert_eq!(bench.whole("after it"), bench.name(4));
    by_hand.kill().unwrap();
    by_hand.wait().unwrap();
    bench.ok(&["pin", "web", bench.name(1), "--undo"], "no longer pinned");
    bench.ok(&["gc", "--keep", "0"], "gc");
    // 2 is what a rollback would go to.
    let there_now: Vec<usize> = (1..=7).filter(|number| there(*number)).collect();
    assert_eq!(there_now, [2, 4, 7]);
    bench.clean("after gc");
}
