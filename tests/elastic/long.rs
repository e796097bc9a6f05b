//! The long campaign: `tests/run --long 'test(/^elastic::long::/)'` or, to see its figures,
//! `cargo test --test servers elastic::long -- --ignored --nocapture --test-threads=1`.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::elastic::lab::Lab;
use crate::support::elastic::tell;
use crate::support::elastic_client::Client;
use crate::support::project::skip;

/// Promotes while a client works, and looks whether everything is as it should be after.
fn promoted(lab: &Lab, what: &str, version: &str, first: &mut u64) {
    let before = lab.settings();
    let (client, begun) = (Client::start(&lab.nodes(), *first), Instant::now());
    let done = lab.rolls(0, &["promote"]);
    tell(what, &done, begun.elapsed());
    *first += 1_000_000;
    client.done(&lab.nodes(), what);
    assert_eq!(done["outcome"], "succeeded");
    assert_eq!(lab.versions(), [version; 3]);
    assert_eq!(lab.settings(), before);
}

fn first(lab: &Lab, version: &str) {
    lab.build(version, "");
    let begun = Instant::now();
    tell(&format!("{version} forms"), &lab.rolls(0, &["promote"]), begun.elapsed());
    lab.index();
    let mine = json!({"persistent": {"cluster.routing.allocation.node_concurrent_recoveries": "3"}});
    lab.send("PUT", "/_cluster/settings", &mine);
}

fn role(lab: &Lab, node: usize) -> Value {
    lab.project.json(&["status"]).json()["nodes"][node]["roles"][0].clone()
}

#[test]
#[ignore = "long: three nodes of Elasticsearch in six rollouts, about 8 min"]
fn long_conf_broken_releases_and_ways_back() {
    let Some(mut lab) = Lab::new(&["6.4.2", "6.7.0"]) else { return };
    first(&lab, "6.4.2");
    let mut number = 0;

    // Conf alone: there is a way back, and it is taken.
    lab.build("6.4.2", "http.max_content_length: 90mb\n");
    let plan = lab.project.json(&["plan"]).ok().json();
    assert!(!plan.to_string().contains("\"point_of_no_return\":true"), "{plan}");
    promoted(&lab, "conf alone", "6.4.2", &mut number);
    let before = lab.settings();
    let (client, begun) = (Client::start(&lab.nodes(), number), Instant::now());
    number += 1_000_000;
    let done = lab.rolls(0, &["rollback"]);
    tell("conf alone, back", &done, begun.elapsed());
    client.done(&lab.nodes(), "conf alone, back");
    assert_eq!(lab.settings(), before);

    // Conf that it does not start with.
    lab.rollout("on_failure = \"rollback-node\"\n");
    lab.build("6.4.2", "no.such.setting: 1\n");
    let (client, begun) = (Client::start(&lab.nodes(), number), Instant::now());
    number += 1_000_000;
    let done = lab.rolls(3, &["promote"]);
    assert_eq!(done["outcome"], "rolled-back");
    tell("broken conf", &done, begun.elapsed());
    client.done(&lab.nodes(), "broken conf");
    assert_eq!(lab.settings(), before);
    assert_eq!(lab.versions(), ["6.4.2"; 3]);

    // A newer version with that conf: it never ran, but was executed on the data. It stays where it is.
    lab.build("6.7.0", "no.such.setting: 1\n");
    let (client, begun) = (Client::start(&lab.nodes(), number), Instant::now());
    number += 1_000_000;
    let done = lab.rolls(4, &["promote"]);
    assert_eq!(done["outcome"], "needs-person", "{done}");
    tell("a newer version, broken", &done, begun.elapsed());
    client.done(&lab.nodes(), "a newer version, broken");
    assert!(done.to_string().contains("windlass promote --nodes"), "{done}");
    assert_eq!(lab.settings(), before, "settings are back though the node is not");
    let stuck = role(&lab, 1);
    assert_eq!((&stuck["opened"], &stuck["version"]), (&"6.7.0".into(), &"6.7.0-1".into()), "{stuck}");
    let refused = lab.project.json(&["rollback", "--nodes", "n2"]).exits(1);
    assert!(refused.stdout.contains("cannot be read by an older one"), "{}", refused.stdout);
    let root = lab.project.path("n2");
    let node = ["node", "rollback", "elasticsearch-warm", "--root", root.to_str().unwrap()];
    let refused = lab.project.run(&node).exits(1);
    assert!(refused.stderr.contains("has opened the data"), "{}", refused.stderr);

    // Forward is the way out: the node that failed goes first.
    lab.build("6.7.0", "");
    promoted(&lab, "forward to 6.7.0", "6.7.0", &mut number);
    let refused = lab.project.json(&["rollback"]).exits(1);
    assert!(refused.stdout.contains("--force"), "{}", refused.stdout);
    let refused = lab.project.json(&["promote", "elasticsearch-hot:6.4.2-1"]).exits(1);
    assert!(refused.stdout.contains("version-path") || refused.stdout.contains("cannot go from"));
}

#[test]
#[ignore = "long: three nodes of Elasticsearch and two killed controllers, about 3 min"]
fn long_the_guard_leaves_a_newer_version_where_it_is() {
    let Some(mut lab) = Lab::new(&["6.4.2", "6.7.0"]) else { return };
    first(&lab, "6.4.2");
    let before = lab.settings();
    lab.rollout("confirm_within = \"1m\"\n");
    lab.build("6.7.0", "");
    let client = Client::start(&lab.nodes(), 0);
    lab.kill_in_the_middle(&["promote"]);
    // Killed while it drained: nothing newer has run. Now once more, killed when it has.
    let child = lab.spawn(&["promote"]);
    lab.until("the newer version runs", || role(&lab, 1)["opened"] == "6.7.0");
    child.kill();
    lab.until("the guard's time is over", || role(&lab, 1)["gave_up"].is_string());
    let stuck = role(&lab, 1);
    assert_eq!((&stuck["version"], &stuck["process"]), (&"6.7.0-1".into(), &"running".into()), "{stuck}");
    assert!(stuck["gave_up"].as_str().unwrap().contains("not confirmed within"), "{stuck}");
    // Whoever goes on puts the settings back and finishes.
    lab.rollout("");
    let begun = Instant::now();
    let done = lab.rolls(0, &["resume"]);
    tell("resumed after a kill", &done, begun.elapsed());
    client.done(&lab.nodes(), "two killed controllers");
    assert_eq!(lab.settings(), before);
    assert_eq!(lab.versions(), ["6.7.0"; 3]);
    assert_eq!(role(&lab, 1)["gave_up"], Value::Null);
}

#[test]
#[ignore = "long: three nodes of Elasticsearch, one killed, about 3 min"]
fn long_a_node_that_never_comes_back() {
    let Some(mut lab) = Lab::new(&["6.4.2"]) else { return };
    lab.rollout("");
    first(&lab, "6.4.2");
    let before = lab.settings();
    // Another node dies: no further node is taken away, and nothing is left changed.
    let pid = Pid::from_raw(lab.pid(0)).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    lab.build("6.4.2", "http.max_content_length: 90mb\n");
    let cluster = lab.project.read("cluster.toml");
    lab.project.write("cluster.toml", &cluster.replace("gate_timeout = \"3m\"", "gate_timeout = \"20s\""));
    let begun = Instant::now();
    let done = lab.rolls(1, &["promote", "--nodes", "n2"]);
    tell("a peer is dead", &done, begun.elapsed());
    let why = done["failures"].to_string();
    assert!(why.contains("may not be stopped now") && why.contains("started-copy"), "{done}");
    assert_eq!(lab.settings(), before);
    // It is itself the bad one: it goes first and comes back with the new conf.
    lab.project.write("cluster.toml", &cluster);
    let begun = Instant::now();
    let done = lab.rolls(0, &["promote"]);
    tell("the dead one first", &done, begun.elapsed());
    assert_eq!(done["nodes"][0]["node"], "n1", "{done}");
    assert_eq!(lab.settings(), before);
}

#[test]
#[ignore = "long: three nodes of Elasticsearch upgraded twice, about 5 min"]
fn long_from_7_17_to_8_18() {
    let Some(lab) = Lab::new(&["7.17.0", "7.17.28", "8.18.0", "9.0.0"]) else { return };
    first(&lab, "7.17.0");
    let mut number = 0;
    // A major version cannot be skipped, and 8 comes only after 7.17.
    lab.build("9.0.0", "# refused\n");
    let refused = lab.project.json(&["promote"]).exits(1);
    assert!(refused.stdout.contains("may skip no major version"), "{}", refused.stdout);
    for version in ["7.17.28", "8.18.0"] {
        lab.build(version, "");
        promoted(&lab, &format!("to {version}"), version, &mut number);
    }
}

/// With an index that 8 has made: 9 does not start with one of 7 that can be written to.
#[test]
#[ignore = "long: three nodes of Elasticsearch upgraded, about 3 min"]
fn long_from_8_18_to_9() {
    let Some(lab) = Lab::new(&["8.18.0", "9.0.0"]) else { return };
    first(&lab, "8.18.0");
    lab.build("9.0.0", "");
    promoted(&lab, "8.18.0 to 9.0.0", "9.0.0", &mut 0);
}

#[test]
#[ignore = "long: three nodes of Elasticsearch behind sshd, upgraded, about 2 min"]
fn long_over_ssh() {
    if !std::path::Path::new("/usr/sbin/sshd").is_file() {
        skip("sshd is not installed");
        return;
    }
    let Some(lab) = Lab::new(&["6.4.2", "6.7.0"]) else { return };
    let lab = lab.over_ssh();
    first(&lab, "6.4.2");
    lab.build("6.7.0", "");
    promoted(&lab, "6.4.2 to 6.7.0 over ssh", "6.7.0", &mut 0);
}

/// The steps of a node in a promotion.
const STEPS: [&str; 11] = [
    "lock",
    "preflight",
    "stage",
    "drain",
    "activate",
    "stop",
    "start",
    "ready",
    "undrain",
    "settle",
    "confirm",
];

#[test]
#[ignore = "long: three nodes of Elasticsearch and eleven killed controllers, about 6 min"]
fn long_the_controller_killed_in_each_step() {
    let Some(lab) = Lab::new(&["7.17.0"]) else { return };
    first(&lab, "7.17.0");
    let before = lab.settings();
    for (round, step) in STEPS.into_iter().enumerate() {
        lab.build("7.17.0", &format!("http.max_content_length: {}mb\n", 80 + round));
        let client = Client::start(&lab.nodes(), 1_000_000 * u64::try_from(round).unwrap());
        let controller = lab.spawn(&["promote", "--nodes", "n1"]);
        lab.until(&format!("{step} begins"), || {
            let said = lab.project.read("said");
            let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.into_iter().any(|one| one["event"] == "step-started" && one["step"] == step)
        });
        controller.kill();
        let begun = Instant::now();
        let resumed = lab.rolls(0, &["resume"]);
        println!("killed in {step}: resumed in {:.1} s", begun.elapsed().as_secs_f64());
        client.done(&lab.nodes(), &format!("killed in {step}"));
        assert_eq!(resumed["outcome"], "succeeded", "{step}");
        assert_eq!(lab.settings(), before, "{step}");
        let found = role(&lab, 0);
        assert_eq!(found["process"], "running", "{step}: {found}");
        assert_eq!(found["unconfirmed"], Value::Null, "{step}: {found}");
        let plan = lab.project.json(&["plan", "--nodes", "n1"]).ok().json();
        assert_eq!(plan["waves"], json!([]), "{step}: what was to be promoted is there");
    }
}
