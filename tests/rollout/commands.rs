//! What the other commands say, to people and to programs.

use serde_json::{Value, json};

use crate::support::rollout::{Lab, Mode};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn has(value: &Value, wanted: &[&str]) {
    let keys = keys(value);
    for key in wanted {
        assert!(keys.contains(key), "{key} is not in {value}");
    }
}

#[test]
fn a_plan_shows_what_changes_and_no_secret() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.build("2", Mode::Good);
    let path = lab.dir.join("cluster.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("vars = {", "vars = { greeting = \"bonjour\",")).unwrap();
    let plan = lab.json(0, &["plan"]);
    assert_eq!(plan["waves"].as_array().unwrap().len(), 2);
    let node = &plan["waves"][0]["nodes"][0];
    has(
        node,
        &[
            "node",
            "role",
            "from",
            "to",
            "bytes_to_send",
            "files_added",
            "files_removed",
            "files_changed",
            "point_of_no_return",
            "steps",
        ],
    );
    assert_eq!((&node["from"], &node["to"]), (&json!("1"), &json!("2")));
    assert_eq!((&node["files_changed"], &node["files_added"]), (&json!(1), &json!(0)));
    // Tables, manifest and one small file; not the library.
    assert!(node["bytes_to_send"].as_u64().unwrap() < 10_000, "{node}");
    let diff = node["conf"][0]["diff"].as_str().unwrap();
    assert!(diff.contains("-greeting = hello\n+greeting = bonjour\n"), "{diff}");
    assert!(diff.contains("password = ***"), "{diff}");
    let text = lab.expect(0, &["plan"]);
    assert!(
        text.contains("WAVE") && text.contains("+greeting = bonjour") && text.contains("canary"),
        "{text}"
    );
    assert_eq!(lab.answers(), ["1", "1"]);
}

#[test]
fn status_service_drift_and_gc_say_what_is_there() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    let status = lab.json(0, &["status"]);
    let node = &status["nodes"][0];
    has(node, &["node", "reachable", "error", "roles"]);
    let role = &node["roles"][0];
    has(role, &["role", "release", "version", "digest", "prior", "staged", "bad", "process", "ready"]);
    assert_eq!(
        (&role["release"], &role["version"], &role["process"], &role["ready"], &role["staged"]),
        (&json!("1-1"), &json!("1"), &json!("running"), &json!(true), &json!(["1-1"]))
    );
    assert!(lab.expect(0, &["status"]).contains("running"));

    let stopped = lab.json(0, &["service", "stop", "--nodes", "n2"]);
    assert_eq!(stopped["services"][0]["process"], "stopped");
    assert_eq!(lab.answers(), ["1", "-"]);
    assert_eq!(lab.json(0, &["status"])["nodes"][1]["roles"][0]["ready"], false);
    // What is on target and does not run is not left alone.
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["1", "1"]);
    lab.json(0, &["service", "restart"]);
    lab.until("both answer again", || lab.answers() == ["1", "1"]);

    assert_eq!(lab.json(0, &["drift"])["drift"], json!([]));
    let file = lab.dir.join("n1/roles/web/releases/1-1/web/VERSION");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "other").unwrap();
    let drift = lab.json(1, &["drift"]);
    assert_eq!(
        drift["drift"][0],
        json!({ "node": "n1", "role": "web", "path": "web/VERSION", "what": "changed" })
    );
    // Whoever plans to leave that release is told what would be lost.
    lab.build("1b", Mode::Good);
    assert_eq!(lab.json(0, &["plan", "web:1b"])["drift"], drift["drift"]);
    assert!(lab.expect(0, &["plan", "web:1b"]).contains("n1 web: changed web/VERSION"));
    let healed = lab.json(0, &["drift", "--heal"]);
    assert_eq!((&healed["healed"], &healed["left"]), (&drift["drift"], &json!([])));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    assert_eq!(lab.json(0, &["drift"])["drift"], json!([]));

    lab.build("2", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.build("3", Mode::Good);
    lab.expect(0, &["promote"]);
    let dry = lab.json(0, &["gc", "--on-nodes", "--keep", "1", "--dry-run"]);
    assert_eq!(dry["nodes"][0]["releases"][0]["release"], "1-1");
    let done = lab.json(0, &["gc", "--on-nodes", "--keep", "1"]);
    assert_eq!(dry["nodes"][0]["releases"], done["nodes"][0]["releases"]);
    assert!(!file.exists());
}

#[test]
fn a_node_that_is_down_is_a_row_of_its_own() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    let path = lab.dir.join("cluster.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, tail) = text.rsplit_once("transport = \"local\"").unwrap();
    // Nothing listens on port 1 of the node's address.
    std::fs::write(&path, format!("{head}port = 1\nuser = \"nobody\"{tail}")).unwrap();
    let status = lab.json(1, &["status"]);
    assert_eq!(
        (&status["nodes"][0]["reachable"], &status["nodes"][1]["reachable"]),
        (&json!(true), &json!(false))
    );
    assert!(status["nodes"][1]["error"].as_str().unwrap().contains("n2"));
    lab.build("2", Mode::Good);
    let said = lab.expect(1, &["promote"]);
    assert!(said.contains("n2"), "{said}");
    assert_eq!(lab.answers(), ["1", "1"]);
    lab.expect(0, &["promote", "--nodes", "n1"]);
    assert_eq!(lab.answers(), ["2", "1"]);
}

#[test]
fn history_tells_of_rollouts_and_of_nodes() {
    let lab = Lab::new(1, "");
    assert!(lab.expect(0, &["history"]).contains("no rollout"));
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    let history = lab.json(0, &["history"]);
    let row = &history["rollouts"][0];
    assert_eq!(
        (&row["kind"], &row["outcome"], &row["done"]),
        (&json!("promote"), &json!("succeeded"), &json!(1))
    );
    let one = lab.json(0, &["history", row["rollout"].as_str().unwrap()]);
    assert_eq!(one["events"][0]["event"], "rollout-started");
    let nodes = lab.json(0, &["history", "--on-nodes"]);
    let records: Vec<&str> = nodes["journals"][0]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["record"].as_str().unwrap())
        .collect();
    assert!(records.contains(&"activated") && records.contains(&"confirmed"), "{records:?}");
    lab.expect(2, &["history", "no-such"]);
    // Nothing that was written down has the secret.
    for entry in walkdir::WalkDir::new(lab.dir.join("out/rollouts")) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            assert!(
                !std::fs::read_to_string(entry.path()).unwrap().contains(crate::support::rollout::SECRET)
            );
        }
    }
}

#[test]
fn a_report_is_one_page_of_what_happened() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    // Long enough for its first answer on a machine that is busy.
    lab.build("2", Mode::Sick("5s"));
    lab.expect(3, &["promote"]);
    let html = lab.expect(0, &["report"]);
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"), "{html}");
    for part in ["promote of lab", "n1 web", "rolled back", "answers 500", "class=\"down\"", "class=\"fail\""]
    {
        assert!(html.contains(part), "{part}: {html}");
    }
    let rollouts = lab.json(0, &["history"]);
    let first = rollouts["rollouts"][0]["rollout"].as_str().unwrap();
    let report = lab.json(0, &["report", first]);
    assert!(report["html"].as_str().unwrap().contains("succeeded"), "{report}");
    assert!(lab.expect(2, &["report", "none"]).contains("there is no rollout none"));
}
