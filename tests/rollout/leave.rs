//! Nodes that leave, and nodes that come.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::rollout::{Lab, Mode, site, text};

fn cluster(lab: &Lab) -> String {
    std::fs::read_to_string(lab.dir.join("cluster.toml")).unwrap()
}

/// The role's state on a node, as the node itself says it.
fn on_node(lab: &Lab, node: &str) -> Value {
    let out =
        lab.run(&["node", "status", "--root", lab.dir.join(node).to_str().unwrap(), "--format", "json"]);
    serde_json::from_str(&text(&out)).unwrap_or_else(|error| panic!("{error}: {}", text(&out)))
}

#[test]
fn a_node_leaves_and_is_forgotten() {
    let lab = Lab::new(3, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    let with_remark = cluster(&lab).replace("\n[nodes.n2]", "\n# the second\n[nodes.n2]");
    std::fs::write(lab.dir.join("cluster.toml"), format!("# mine\n{with_remark}")).unwrap();
    let lines = lab.lines(0, &["leave", "n3"]);
    let steps: Vec<&str> = lines
        .iter()
        .filter(|line| line["event"] == "step-done")
        .map(|line| line["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["lock", "preflight", "stop", "gone", "forget"]);
    assert_eq!(lines.last().unwrap()["outcome"], "succeeded");
    assert_eq!(lab.answers(), ["1", "1", "-"]);
    let left = cluster(&lab);
    assert!(!left.contains("n3") && left.contains("# mine") && left.contains("# the second"), "{left}");
    // Everything that it had is still there, and its own journal says what happened.
    let status = on_node(&lab, "n3");
    let role = &status["roles"][0];
    assert_eq!((&role["release"], &role["process"]), (&Value::Null, &"stopped".into()), "{status}");
    assert_eq!((&role["errand"]["kind"], &role["ended"]), (&"leave".into(), &"succeeded".into()), "{status}");
    assert!(lab.dir.join("n3/roles/web/shared").is_dir() && lab.dir.join("n3/roles/web/releases").is_dir());
    let history = lab.json(0, &["history"]);
    let last = history["rollouts"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["kind"], &last["outcome"]), (&"leave".into(), &"succeeded".into()), "{history}");
    assert!(lab.expect(0, &["report"]).contains("leave of lab"));
    // The others go on without it.
    lab.build("2", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["2", "2", "-"]);
    let none = lab.expect(2, &["leave", "n3"]);
    assert!(none.contains("there is no node `n3`"), "{none}");
}

#[test]
fn a_role_that_would_end_is_refused_and_one_may_go_alone() {
    let lab = Lab::with(2, &["web", "api"], "", |_, _| "transport = \"local\"\n".to_owned());
    lab.build_role("web", "1", Mode::Good);
    lab.build_role("api", "1", Mode::Good);
    lab.expect(0, &["promote"]);
    // The only other one does not run.
    lab.expect(0, &["service", "stop", "--nodes", "n2", "--role", "web"]);
    let refused = lab.expect(1, &["leave", "n1"]);
    assert!(refused.contains("web on n1 may not leave: last-of-role"), "{refused}");
    assert!(refused.contains("predicates_off"), "{refused}");
    assert_eq!(lab.answers_of("web"), ["1", "-"]);
    assert_eq!(lab.answers_of("api"), ["1", "1"]);
    // One role goes, the other stays.
    let text = cluster(&lab);
    lab.expect(0, &["leave", "n1", "--role", "api"]);
    assert_eq!(lab.answers_of("api"), ["-", "1"]);
    assert_eq!(lab.answers_of("web"), ["1", "-"]);
    assert_eq!(cluster(&lab), text.replacen("[\"web\", \"api\"]", "[\"web\"]", 1));
    let refused = lab.expect(1, &["leave", "n2", "--role", "api"]);
    assert!(refused.contains("no other node has that role"), "{refused}");
}

#[test]
fn an_interrupt_brings_it_back_and_so_does_resume_after_a_kill() {
    let order = "order = [\"web\", \"api\"]";
    let lab = Lab::with(2, &["web", "api"], order, |_, _| "transport = \"local\"\n".to_owned());
    lab.build_role("web", "1", Mode::Good);
    lab.build_role("api", "1", Mode::Good);
    lab.expect(0, &["promote"]);
    // While its cluster is looked at for so long, both roles are stopped.
    let short = cluster(&lab);
    let long = short.replace("min_healthy = \"200ms\"", "min_healthy = \"3s\"");
    let write = |text: &str| std::fs::write(lab.dir.join("cluster.toml"), text).unwrap();
    write(&long);
    // Both are stopped, the last of the order first.
    let stopped = || lab.ask("api", "n2").is_none() && lab.ask("web", "n2").is_none();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 130)] {
        let child = lab.spawn(&["leave", "n2"]);
        lab.until("both are stopped", stopped);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{}", text(&out));
        assert!(text(&out).contains("everything is as it was, and the node stays"), "{}", text(&out));
        assert_eq!(
            (lab.answers_of("api"), lab.answers_of("web")),
            (vec!["1".into(); 2], vec!["1".into(); 2])
        );
        assert_eq!(cluster(&lab), long);
    }
    let mut child = lab.spawn(&["leave", "n2"]);
    lab.until("both are stopped", stopped);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lab.answers_of("web"), ["1", "-"]);
    write(&short);
    let said = lab.expect(0, &["resume"]);
    assert!(said.contains("n2 stays"), "{said}");
    assert_eq!((lab.answers_of("api"), lab.answers_of("web")), (vec!["1".into(); 2], vec!["1".into(); 2]));
    assert_eq!(on_node(&lab, "n2")["roles"][1]["release"], "1-1");
    assert_eq!(cluster(&lab), short);
    write(&long);
    // Another machine has the nodes' journals alone.
    let mut child = lab.spawn(&["leave", "n2"]);
    lab.until("both are stopped", stopped);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::rename(lab.dir.join("out/rollouts"), lab.dir.join("away")).unwrap();
    write(&short);
    lab.expect(0, &["resume"]);
    assert_eq!((lab.answers_of("api"), lab.answers_of("web")), (vec!["1".into(); 2], vec!["1".into(); 2]));
}

#[test]
fn one_that_left_may_come_back() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    let text = cluster(&lab);
    lab.expect(0, &["leave", "n2", "--keep-entry"]);
    assert_eq!((lab.answers(), cluster(&lab)), (vec!["1".to_owned(), "-".to_owned()], text));
    let said = lab.expect(2, &["resume"]);
    assert!(said.contains("n2 has left its cluster"), "{said}");
    // Nothing runs there: its entry is all that is left to be taken out, or it is taken in again.
    let done = lab.finished(0, &["promote", "--nodes", "n2"]);
    assert_eq!((&done["nodes"].as_array().unwrap().len(), &done["nodes"][0]["node"]), (&1, &"n2".into()));
    assert_eq!(lab.answers(), ["1", "1"]);
    lab.expect(0, &["leave", "n2", "--keep-entry"]);
    lab.expect(0, &["leave", "n2"]);
    assert!(!cluster(&lab).contains("n2"), "{}", cluster(&lab));
}

#[test]
fn a_node_comes_and_the_others_are_left_alone() {
    let lab = Lab::new(3, "");
    // Conf that names all nodes: it is another one for everybody when one comes.
    let site = site("web") + "peers = {% for node in nodes_with('web') %}{{ node.name }} {% endfor %}\n";
    std::fs::write(lab.dir.join("conf/web/site.conf"), site).unwrap();
    let all = cluster(&lab);
    let (two, _) = all.split_once("\n[nodes.n3]").unwrap();
    std::fs::write(lab.dir.join("cluster.toml"), two).unwrap();
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    let pid = |node: &str| on_node(&lab, node)["roles"][0]["pid"].clone();
    let before = [pid("n1"), pid("n2")];
    std::fs::write(lab.dir.join("cluster.toml"), &all).unwrap();
    let plan = lab.json(0, &["plan", "--nodes", "n3"]);
    let waves = plan["waves"].as_array().unwrap();
    assert_eq!(
        (waves.len(), &waves[0]["forming"], waves[0]["nodes"].as_array().unwrap().len()),
        (1, &false.into(), 1)
    );
    let both = serde_json::json!([{"node": "n1", "role": "web"}, {"node": "n2", "role": "web"}]);
    assert_eq!(plan["left_alone"], both);
    assert!(lab.expect(0, &["plan", "--nodes", "n3"]).contains("left alone, though"));
    let done = lab.finished(0, &["promote", "--nodes", "n3"]);
    assert_eq!((done["nodes"].as_array().unwrap().len(), &done["nodes"][0]["node"]), (1, &"n3".into()));
    assert_eq!(lab.answers(), ["1", "1", "1"]);
    assert_eq!([pid("n1"), pid("n2")], before, "nobody else was restarted");
    assert_eq!(lab.ask("web", "n3").unwrap()["conf"]["peers"], "n1 n2 n3");
    assert_eq!(lab.ask("web", "n1").unwrap()["conf"]["peers"], "n1 n2");
    // Without --nodes they are changed, and not it.
    let done = lab.finished(0, &["promote"]);
    let names: Vec<&str> =
        done["nodes"].as_array().unwrap().iter().map(|node| node["node"].as_str().unwrap()).collect();
    assert_eq!(names, ["n1", "n2"]);
    assert_eq!(lab.ask("web", "n1").unwrap()["conf"]["peers"], "n1 n2 n3");
    // A new one alone is changed where nothing else moved.
    lab.expect(0, &["leave", "n3", "--keep-entry"]);
    let done = lab.finished(0, &["promote"]);
    assert_eq!((done["nodes"].as_array().unwrap().len(), &done["nodes"][0]["node"]), (1, &"n3".into()));
}

#[test]
fn one_that_is_gone_is_forgotten_without_being_asked() {
    let lab = Lab::with(2, &["web"], "", |_, n| match n {
        1 => "transport = \"local\"\n".to_owned(),
        // Nothing listens there.
        _ => "port = 1\nuser = \"nobody\"\n".to_owned(),
    });
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote", "--nodes", "n1", "--role", "web"]);
    let refused = lab.expect(1, &["leave", "n2"]);
    assert!(refused.contains("windlass leave n2 --dead"), "{refused}");
    assert!(cluster(&lab).contains("[nodes.n2]"));
    lab.expect(0, &["leave", "n2", "--dead"]);
    assert!(!cluster(&lab).contains("n2"), "{}", cluster(&lab));
    let history = lab.json(0, &["history"]);
    let last = history["rollouts"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["kind"], &last["outcome"]), (&"leave".into(), &"succeeded".into()), "{history}");
    let refused = lab.expect(1, &["leave", "n1", "--dead"]);
    assert!(refused.contains("no other node has that role"), "{refused}");
}
