//! Data that a newer version has opened: nothing goes back from there by itself, and people only on their word.

use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::guard::wait_for_guards;
use crate::support::node::{Lab, SITE, activation, service, wait_until};

/// A node whose service binds its data to its version. It runs 1.0; 2.0 and 2.0 with other conf are staged.
fn bound() -> (Lab, String, String) {
    let lab = Lab::new();
    let recipe = lab.dir.join("recipes/web.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let text = text.replace("kind = \"process\"", "kind = \"elasticsearch\"");
    std::fs::write(recipe, text.replace("versions.web", "versions.elasticsearch")).unwrap();
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(lab.http()["version"], "1.0");
    assert_eq!(lab.status()["opened"], "1.0.0");
    let second = lab.stage(&lab.build("2.0", &service("2.0")));
    (lab, first, second)
}

fn back(lab: &Lab, to: &str, force: bool) -> Value {
    lab.call(&json!({ "op": "rollback", "role": "web", "to": to, "why": "a test", "restart": true, "force": force }))
}

fn records(lab: &Lab) -> Vec<String> {
    let history = lab.done(&json!({ "op": "journal", "role": "web" }));
    let entries = history["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["record"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn until_it_has_run_there_is_a_way_back() {
    let (lab, first, second) = bound();
    lab.done(&activation(Some(&first), &second, None));
    assert_eq!(lab.status()["opened"], "1.0.0");
    assert!(back(&lab, &first, false).get("done").is_some());
    assert_eq!(lab.current().as_deref(), Some(&*first));
}

#[test]
fn after_it_has_run_nothing_goes_back_but_on_a_persons_word() {
    let (lab, first, second) = bound();
    lab.done(&json!({ "op": "service-stop", "role": "web" }));
    lab.done(&activation(Some(&first), &second, None));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(lab.http()["version"], "2.0");
    assert_eq!(lab.status()["opened"], "2.0.0");
    // On the disk before the process: the record stands before that of the start.
    let records = records(&lab);
    let opened = records.iter().rposition(|one| one == "data-opened").unwrap();
    assert_eq!(records[opened + 1], "service-start");

    let refused = back(&lab, &first, false);
    assert_eq!(refused["error"]["kind"], "no-return", "{refused}");
    assert!(refused["error"]["help"].to_string().contains("roll forward"), "{refused}");
    let refused = lab.activate(Some(&second), &first, None);
    assert_eq!(refused["error"]["kind"], "no-return", "{refused}");
    let refused = lab.call(&json!({ "op": "service-start", "role": "web", "release": first }));
    assert_eq!(refused["error"]["kind"], "no-return", "{refused}");
    assert_eq!(lab.current().as_deref(), Some(&*second));
    assert_eq!(lab.http()["version"], "2.0");

    // Somebody has put a snapshot back.
    let done = back(&lab, &first, true);
    assert!(done.get("done").is_some(), "{done}");
    wait_until("1.0 answers", || lab.answers("1.0"));
    assert_eq!(lab.status()["opened"], "1.0.0");
}

#[test]
fn the_same_version_with_other_conf_has_a_way_back() {
    let (lab, first, _) = bound();
    std::fs::write(lab.dir.join("conf/web/site.conf"), format!("{SITE}other = 1\n")).unwrap();
    let other = lab.stage(&lab.build("1.0", &service("1.0")));
    assert_ne!(first, other);
    lab.done(&json!({ "op": "service-stop", "role": "web" }));
    lab.done(&activation(Some(&first), &other, None));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert!(back(&lab, &first, false).get("done").is_some());
}

#[test]
fn the_guard_leaves_it_running_and_says_so() {
    let (lab, first, second) = bound();
    lab.done(&json!({ "op": "service-stop", "role": "web" }));
    lab.done(&activation(Some(&first), &second, Some("10m")));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    lab.advance(Duration::from_mins(10));
    wait_until("the guard gives up", || lab.status()["gave_up"].is_string());
    wait_for_guards(&lab);
    let status = lab.status();
    let why = status["gave_up"].as_str().unwrap();
    assert!(why.contains("not confirmed within") && why.contains("has opened the data"), "{why}");
    assert_eq!((&status["release"], &status["bad"]), (&json!(second), &json!([])));
    assert_eq!(lab.http()["version"], "2.0");
    // Whoever sees that it is well after all says so.
    lab.done(&json!({ "op": "confirm", "role": "web", "release": second }));
    assert_eq!(lab.status()["gave_up"], Value::Null);
}
