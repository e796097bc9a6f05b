//! The agent killed at random moments of what it does; the next run finds a node that works.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::guard::kill_guards;
use crate::support::node::{Lab, activation, service, wait_until};
use crate::support::seed::{Random, seed};

/// `current` resolves to a complete release: every time, with nobody having looked at the node before.
fn resolves(lab: &Lab) -> String {
    let link = std::fs::read_link(lab.root.join("roles/web/current")).unwrap();
    let name = link.file_name().unwrap().to_str().unwrap().to_owned();
    let version = std::fs::read_to_string(lab.root.join("roles/web/current/web/VERSION")).unwrap();
    assert!(name.contains(&format!("-{version}-")), "{name} holds {version}");
    name
}

fn at_rest(lab: &Lab) -> Value {
    // The lock of one that was killed while it started a guard goes when the guard's program is loaded, which
    // a busy machine takes its time for.
    wait_until("nothing is interrupted", || lab.status()["interrupted"] == Value::Null);
    let status = lab.status();
    assert_eq!((&status["interrupted"], &status["problem"]), (&Value::Null, &Value::Null), "{status}");
    assert_eq!(status["release"], json!(resolves(lab)));
    status
}

#[test]
fn killed_at_any_moment_the_next_run_puts_it_right() {
    let lab = Lab::new();
    let mut random = Random::new(seed(7));
    let built = [lab.build("1.0", &service("1.0")), lab.build("2.0", &service("2.0"))];
    let mut names = vec![lab.promote(&built[0]), lab.promote(&built[1])];
    let mut moves = 0;
    // Until when they are killed, in microseconds. That of moves follows what they take on this machine: half of the
    // kills come before the swap.
    let (mut staging, mut moving) = (120_000, 40_000);
    let mut round = 0;
    while round < 60 || moves <= 3 {
        assert!(round < 1000, "{moves} of the kills came after the swap");
        let before = resolves(&lab);
        let other = names.iter().find(|name| **name != before).unwrap().clone();
        let request = match round % 3 {
            0 => {
                let mut request = lab.stage_request(&built[round % 2]);
                request["context"]["node"]["name"] = json!(format!("n{round}"));
                request
            }
            1 => activation(Some(&before), &other, Some("2m")),
            _ => {
                json!({ "op": "rollback", "role": "web", "to": other, "why": "to see", "restart": round % 2 == 0 })
            }
        };
        let mut session = lab.session();
        session.send(&request);
        let moment = random.below(if round % 3 == 0 { staging } else { moving });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(moment) {
            std::hint::spin_loop();
        }
        session.kill();
        resolves(&lab);
        let status = at_rest(&lab);
        let moved = status["release"] != json!(before);
        moves += usize::from(moved);
        if round % 3 > 0 {
            moving = if moved { moving - moving / 4 } else { moving + moving / 4 };
            staging = moving * 3;
        }
        let staged = status["staged"].as_array().unwrap();
        // Each release that is told of is there, and nothing else is.
        let mut there: Vec<String> =
            staged.iter().map(|one| one["release"].as_str().unwrap().to_owned()).collect();
        for name in &there {
            assert!(lab.release(name).join("web/VERSION").is_file(), "{name}");
        }
        if round % 10 == 9 {
            for name in &there {
                let answer = lab.done(&json!({ "op": "drift", "role": "web", "release": name }));
                assert_eq!(answer["drift"], json!([]), "{name}");
            }
            // Staging again clears what a killed one left.
            lab.done(&lab.stage_request(&built[0]));
            let left = std::fs::read_dir(lab.root.join("roles/web/releases")).unwrap();
            let left: Vec<String> =
                left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            let known = |name: &String| {
                there
                    .iter()
                    .any(|release| name.trim_end_matches(".json").trim_end_matches(".service") == release)
            };
            assert!(left.iter().all(known), "{left:?} {there:?}");
        }
        there.truncate(2);
        if there.len() == 2 {
            names = vec![there[0].clone(), status["release"].as_str().unwrap().to_owned(), there[1].clone()];
        }
        round += 1;
    }
    lab.done(&json!({ "op": "service-stop", "role": "web" }));
}

#[test]
fn an_interrupted_rollback_is_finished_with_its_service() {
    let lab = Lab::new();
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    let second = lab.promote(&lab.build("2.0", &service("2.0")));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(lab.http()["version"], "2.0");
    // As if it had been killed right after it said what it would do.
    let journal = lab.root.join("roles/web/journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let record = json!({ "seq": last["seq"].as_u64().unwrap() + 1, "time": last["time"], "record": "rolling-back",
        "from": second, "to": first, "why": "killed", "restart": true });
    std::fs::write(&journal, format!("{text}{record}\n{{\"seq\":99,\"torn")).unwrap();
    let status = at_rest(&lab);
    assert_eq!((&status["release"], &status["runs"]), (&json!(first), &json!(first)));
    assert_eq!(lab.http()["version"], "1.0");
}

#[test]
fn a_guard_killed_at_any_moment_leaves_a_node_that_goes_back() {
    let lab = Lab::new();
    let mut random = Random::new(seed(11));
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    lab.http();
    let second = lab.stage(&lab.build("2.0", &service("2.0")));
    for round in 0..8 {
        let mut request = activation(Some(&first), &second, Some("10m"));
        request["allow_bad"] = json!(true);
        lab.done(&request);
        // The guard notices within 50 ms, and then rolls back.
        lab.advance(Duration::from_mins(10));
        std::thread::sleep(Duration::from_millis(random.below(250)));
        kill_guards(&lab);
        resolves(&lab);
        wait_until("the node is rolled back", || {
            let status = lab.status();
            status["release"] == json!(first) && status["interrupted"] == Value::Null
        });
        assert_eq!(resolves(&lab), first, "round {round}");
        assert_eq!(lab.http()["version"], "1.0");
        assert_eq!(lab.status()["problem"], Value::Null);
    }
}
