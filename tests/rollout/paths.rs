//! Rollouts that go as they should.

use crate::support::rollout::{Lab, Mode};

#[test]
fn a_cluster_forms_moves_on_and_goes_back() {
    let lab = Lab::new(3, "");
    lab.build("1", Mode::Good);
    let lines = lab.lines(0, &["promote"]);
    let waves: Vec<_> = lines.iter().filter(|line| line["event"] == "wave-started").collect();
    assert_eq!((waves.len(), &waves[0]["forming"]), (1, &true.into()));
    assert_eq!(lab.answers(), ["1", "1", "1"]);

    lab.build("2", Mode::Good);
    let lines = lab.lines(0, &["promote"]);
    let finished = lines.last().unwrap();
    assert_eq!(finished["outcome"], "succeeded");
    for node in finished["nodes"].as_array().unwrap() {
        assert_eq!((&node["from"], &node["to"]), (&"1".into(), &"2".into()));
        assert!(node["downtime_ms"].as_u64().unwrap() >= node["tool_downtime_ms"].as_u64().unwrap());
        assert!(node["downtime_ms"].as_u64().unwrap() > 0 && node["bytes_sent"].as_u64().unwrap() > 0);
    }
    assert_eq!(lines.iter().filter(|line| line["event"] == "wave-started").count(), 3);
    assert_eq!(lab.answers(), ["2", "2", "2"]);

    // Again: nothing to do.
    assert!(lab.expect(0, &["promote"]).contains("nothing to do"));

    let finished = lab.finished(0, &["rollback"]);
    assert_eq!(finished["outcome"], "succeeded");
    assert_eq!(lab.answers(), ["1", "1", "1"]);

    lab.build("3", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["3", "3", "3"]);
    // To one that is no longer prior, but still there.
    lab.expect(0, &["rollback", "--to", "2"]);
    assert_eq!(lab.answers(), ["2", "2", "2"]);
    lab.expect(1, &["rollback", "--to", "7"]);
}

#[test]
fn going_back_now_takes_all_nodes_at_once() {
    let lab = Lab::new(4, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.build("2", Mode::Good);
    lab.cluster("max_unavailable = 4\ncanary = 0", "");
    lab.expect(0, &["promote"]);
    let begun = std::time::Instant::now();
    let finished = lab.finished(0, &["rollback", "--now"]);
    eprintln!("rollback --now of 4 nodes took {:?}", begun.elapsed());
    assert_eq!(finished["outcome"], "succeeded");
    lab.until("all answer with the first", || lab.answers() == ["1", "1", "1", "1"]);
}

#[test]
fn two_roles_go_in_their_order_and_by_node_together() {
    let lab = Lab::with(2, &["web", "api"], "order = [\"web\", \"api\"]", |_, _| {
        "transport = \"local\"\n".to_owned()
    });
    lab.build_role("api", "1", Mode::Good);
    lab.build_role("web", "1", Mode::Good);
    let order = |lines: &[serde_json::Value]| -> Vec<String> {
        let done = lines.iter().filter(|line| line["event"] == "node-done");
        done.map(|line| format!("{}/{}", line["node"].as_str().unwrap(), line["role"].as_str().unwrap()))
            .collect()
    };
    let first = order(&lab.lines(0, &["promote"]));
    assert!(first[..2].iter().all(|name| name.ends_with("/web")), "{first:?}");
    lab.build_role("api", "2", Mode::Good);
    lab.build_role("web", "2", Mode::Good);
    lab.cluster("by = \"node\"\norder = [\"web\", \"api\"]", "");
    assert_eq!(order(&lab.lines(0, &["promote"])), ["n1/web", "n1/api", "n2/web", "n2/api"]);
    assert_eq!((lab.answers(), lab.answers_of("api")), (vec!["2".to_owned(); 2], vec!["2".to_owned(); 2]));
    // One role, one node, one version that is named.
    lab.expect(0, &["promote", "api:1", "--nodes", "n2"]);
    assert_eq!(lab.answers_of("api"), ["2", "1"]);
}

#[test]
fn a_saved_plan_runs_until_the_cluster_has_moved() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.build("2", Mode::Good);
    let path = lab.dir.join("plan.json");
    let path = path.to_str().unwrap();
    lab.expect(0, &["plan", "--save", path]);
    assert_eq!(lab.answers(), ["1", "1"]);
    lab.expect(0, &["promote", path]);
    assert_eq!(lab.answers(), ["2", "2"]);
    let said = lab.expect(1, &["promote", path]);
    for node in ["n1", "n2"] {
        assert!(said.contains(&format!("web on {node}: 2-2 is current, not 1-1")), "{said}");
    }
    // What templates see moves a cluster as well.
    lab.build("3", Mode::Good);
    lab.expect(0, &["plan", "--save", path]);
    lab.cluster("", "[vars]\ngreeting = \"good day\"\n");
    let said = lab.expect(1, &["promote", path]);
    assert!(said.contains("are not those of the plan"), "{said}");
    assert_eq!(lab.answers(), ["2", "2"]);
}

#[test]
fn a_restart_goes_wave_by_wave_and_changes_no_release() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    let pids = || -> Vec<u64> {
        let status = lab.json(0, &["status"]);
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["roles"][0]["pid"].as_u64().unwrap()).collect()
    };
    let before = pids();
    let finished = lab.finished(0, &["restart"]);
    assert_eq!(finished["outcome"], "succeeded");
    let after = pids();
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    assert_eq!(lab.answers(), ["1", "1"]);
}
