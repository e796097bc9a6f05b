//! `check`, and what a plan and a promotion make of it.

use serde_json::Value;

use crate::support::rollout::{Lab, Mode};

fn codes(report: &Value) -> Vec<String> {
    let problems = report["problems"].as_array().unwrap_or_else(|| panic!("{report}"));
    for problem in problems {
        for key in ["code", "level", "node", "place", "message", "help"] {
            assert!(problem.get(key).is_some(), "{key} is not in {problem}");
        }
    }
    problems.iter().map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_promotion_is_refused_on_errors_and_nothing_is_changed() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    assert_eq!(codes(&lab.json(0, &["check"])), Vec::<String>::new());
    // Somebody else listens where the service of n1 is to listen.
    let held = std::net::TcpListener::bind(lab.at("web", "n1")).unwrap();
    let report = lab.json(2, &["check"]);
    assert_eq!(codes(&report), ["P211"]);
    let (problem, pid) = (&report["problems"][0], std::process::id().to_string());
    assert_eq!((problem["node"].as_str(), problem["level"].as_str()), (Some("n1"), Some("error")));
    assert!(problem["message"].as_str().unwrap().contains(&pid), "{problem}");
    assert_eq!(codes(&lab.json(0, &["check", "--nodes", "n2"])), Vec::<String>::new());
    assert_eq!(codes(&lab.json(0, &["check", "--offline"])), Vec::<String>::new());
    let text = lab.expect(2, &["check"]);
    assert!(text.contains("error P211: a port is taken\n  n1: recipes/web.toml service.ready\n"), "{text}");

    // A plan says it, a promotion refuses.
    assert_eq!(codes(&lab.json(0, &["plan"])), ["P211"]);
    assert!(lab.expect(0, &["plan"]).contains("error P211"));
    let refused = lab.expect(2, &["promote"]);
    assert!(refused.contains("error P211") && refused.contains("nothing was changed"), "{refused}");
    let lines = lab.lines(2, &["promote"]);
    assert_eq!(codes(&lines[0]), ["P211"]);
    assert_eq!(lines[1]["error"]["kind"], "check");
    assert!(!lab.dir.join("out/rollouts").exists());
    assert_eq!(lab.json(0, &["status"])["nodes"][0]["roles"], serde_json::json!([]));

    // One code is turned off, not all of them.
    lab.cluster("", "[lints]\nP211 = \"warn\"\n");
    assert_eq!(codes(&lab.json(0, &["check"])), ["P211"]);
    lab.cluster("", "[lints]\nP211 = \"allow\"\n");
    assert_eq!(codes(&lab.json(0, &["check"])), Vec::<String>::new());
    lab.cluster("", "[lints]\nP221 = \"allow\"\n");
    let unknown = lab.expect(2, &["promote"]);
    assert!(unknown.contains("there is no lint `P221`") && unknown.contains("did you mean"), "{unknown}");

    lab.cluster("", "");
    drop(held);
    lab.expect(0, &["promote"]);
    // Its own process may hold its port, and the next version comes in beside it.
    assert_eq!(codes(&lab.json(0, &["check"])), Vec::<String>::new());
    lab.build("2", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["2", "2"]);
}

#[test]
fn a_node_says_what_it_is_like() {
    let lab = Lab::new(1, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    let root = lab.dir.join("n1");
    let facts = lab.json(0, &["node", "preflight", "web", "--root", root.to_str().unwrap()]);
    let role = &facts["roles"]["web"];
    let pid = role["pid"].as_u64().unwrap();
    assert_eq!(role["limits"]["nofile"]["from"], "process");
    let port = lab.at("web", "n1").port();
    assert_eq!(
        (&role["ports"][0]["port"], &role["ports"][0]["own"]),
        (&serde_json::json!(port), &serde_json::json!(true))
    );
    assert_eq!(role["ports"][0]["pid"], pid);
    assert_eq!(facts["system"], "Linux");
    assert!(facts["went_us"].as_i64() >= facts["came_us"].as_i64());
    // Asked about a role that was never there, it says what holds for any.
    let other = lab.json(0, &["node", "preflight", "other", "--root", root.to_str().unwrap()]);
    assert_eq!(other["roles"]["other"]["limits"]["nofile"]["from"], "agent");
    let explained = lab.expect(0, &["check", "--explain", "P211"]);
    assert!(explained.starts_with("P211: a port is taken\n"), "{explained}");
    assert!(lab.expect(2, &["check", "--explain", "P2111"]).contains("there is no lint"));
}

#[test]
fn a_node_that_cannot_be_reached_is_said_and_no_error() {
    let lab = Lab::with(2, &["web"], "", |_, n| match n {
        1 => "transport = \"local\"\n".to_owned(),
        _ => "port = 1\n".to_owned(),
    });
    lab.build("1", Mode::Good);
    let report = lab.json(0, &["check"]);
    assert_eq!(codes(&report), ["W100"]);
    assert_eq!(report["problems"][0]["node"], "n2");
}
