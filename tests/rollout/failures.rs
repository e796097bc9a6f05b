//! Rollouts that do not go as they should.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::bench::processes;
use crate::support::clock::Clock;
use crate::support::rollout::{Lab, Mode};

fn states(finished: &Value) -> Vec<String> {
    let nodes = finished["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["state"].as_str().unwrap().to_owned()).collect()
}

/// Three nodes on version 1, and a broken version 2.
fn broken(mode: Mode, rollout: &str) -> Lab {
    let lab = Lab::new(3, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.cluster(rollout, "");
    lab.build("2", mode);
    lab
}

#[test]
fn the_canary_catches_what_dies_and_what_is_never_ready() {
    for mode in [Mode::Dies, Mode::Sick("1500ms")] {
        let lab = broken(mode, "");
        let lines = lab.lines(3, &["promote"]);
        let finished = lines.last().unwrap();
        assert_eq!(finished["outcome"], "rolled-back");
        assert_eq!(states(finished), ["rolled-back", "untouched", "untouched"]);
        assert_eq!(lab.answers(), ["1", "1", "1"]);
        let status = lab.json(0, &["status"]);
        assert_eq!(status["nodes"][0]["roles"][0]["bad"], serde_json::json!(["2-2"]));
        let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert!(events.contains(&"step-failed") && events.contains(&"step-undone"));
        // It is not chosen again by itself.
        let said = lab.expect(1, &["promote"]);
        assert!(said.contains("was marked bad") && said.contains("--force"), "{said}");
    }
}

#[test]
fn a_gate_that_does_not_hold_says_what_it_waits_for() {
    let lab = broken(Mode::Sick("60s"), "");
    let mut child = lab.spawn(&["promote", "--format", "json"]);
    let mut waits = Vec::new();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["event"] == "step-progress" && line["node"] == "n1" && line["step"] == "ready" {
            waits.push(line["waits_for"].as_str().unwrap().to_owned());
            if waits.last().unwrap().contains("answers 500, not 200") {
                interrupt(&child);
            }
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(130), "{waits:?}");
    assert!(waits.iter().any(|why| why.contains("answers 500, not 200")), "{waits:?}");
}

/// `check` would not let a service be promoted whose port is taken.
const ALLOWED: &str = "[lints]\nP211 = \"allow\"\n";

/// A listener where [`listens_where_taken`] has the service of a node listen.
fn taken_on(lab: &Lab, node: &str) -> TcpListener {
    TcpListener::bind((lab.at("web", node).ip(), lab.spare_port())).unwrap()
}

/// On this node the next service dies, as its port is taken.
fn listens_where_taken(lab: &Lab, node: &str) {
    let path = lab.dir.join("cluster.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let own = format!("web_port = {}", lab.at("web", node).port());
    assert_eq!(text.matches(&own).count(), 1);
    std::fs::write(&path, text.replace(&own, &format!("web_port = {}", lab.spare_port()))).unwrap();
}

#[test]
fn rollback_all_halt_and_max_failures_do_as_they_say() {
    let lab = Lab::new(3, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.build("2", Mode::Good);
    let _taken = taken_on(&lab, "n2");
    let sick = |lab: &Lab, more: &str| {
        lab.cluster(more, ALLOWED);
        listens_where_taken(lab, "n2");
    };
    sick(&lab, "on_failure = \"rollback-all\"");
    let finished = lab.finished(3, &["promote"]);
    assert_eq!(states(&finished), ["rolled-back", "rolled-back", "untouched"]);
    assert_eq!(lab.answers(), ["1", "1", "1"]);

    sick(&lab, "max_failures = 1");
    let finished = lab.finished(3, &["promote", "--force"]);
    assert_eq!(states(&finished), ["done", "rolled-back", "done"]);
    assert_eq!(lab.answers(), ["2", "1", "2"]);
    // They would go back to different versions.
    let said = lab.expect(1, &["rollback"]);
    assert!(said.contains("rollback --role web --to 1"), "{said}");
    lab.expect(0, &["rollback", "--to", "1"]);
    assert_eq!(lab.answers(), ["1", "1", "1"]);

    sick(&lab, "on_failure = \"halt\"");
    let said = lab.expect(4, &["promote", "--force", "--nodes", "n2"]);
    assert!(said.contains("needs a person") && said.contains("next: windlass"), "{said}");
    lab.expect(0, &["rollback", "--nodes", "n2"]);
    assert_eq!(lab.answers(), ["1", "1", "1"]);
}

#[test]
fn roles_of_a_node_go_back_together_and_only_the_one_that_failed_is_blamed() {
    let local = |_: &std::path::Path, _| "transport = \"local\"\n".to_owned();
    let lab = Lab::with(2, &["web", "api"], "", local);
    lab.build_role("api", "1", Mode::Good);
    lab.build_role("web", "1", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.cluster("by = \"node\"\norder = [\"web\", \"api\"]", "");
    lab.build_role("api", "2", Mode::Dies);
    lab.build_role("web", "2", Mode::Good);
    let finished = lab.finished(3, &["promote"]);
    assert_eq!(states(&finished), ["rolled-back", "rolled-back", "untouched", "untouched"]);
    assert_eq!((lab.answers(), lab.answers_of("api")), (vec!["1".to_owned(); 2], vec!["1".to_owned(); 2]));
    let status = lab.json(0, &["status", "--nodes", "n1"]);
    for role in status["nodes"][0]["roles"].as_array().unwrap() {
        let bad = usize::from(role["role"] == "api");
        assert_eq!(role["bad"].as_array().unwrap().len(), bad, "{role}");
    }
}

/// Replaces a file of a release on a node.
fn rewrite(lab: &Lab, node: &str, release: &str, file: &str, text: &str) {
    let file = lab.dir.join(node).join("roles/web/releases").join(release).join("web").join(file);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    // Its content is shared with the node's objects.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode | 0o200)).unwrap();
}

#[test]
fn an_interrupted_rollback_leaves_no_node_without_a_service() {
    let lab = Lab::new(2, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.build("2", Mode::Good);
    lab.expect(0, &["promote"]);
    // What it goes back to is not ready any more.
    for node in ["n1", "n2"] {
        rewrite(&lab, node, "1-1", "GREETING-KEY", "missing");
    }
    let mut child = lab.spawn(&["rollback", "--format", "json"]);
    let rest = wait_for(&mut child, "step-progress", "n1", "ready");
    interrupt(&child);
    let finished = rest.last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(states(&finished), ["rolled-back", "untouched"]);
    assert_eq!(lab.answers(), ["2", "2"]);
    // Without an interrupt, its gate does the same.
    for node in ["n1", "n2"] {
        rewrite(&lab, node, "1-1", "run.sh", "#!/bin/sh\nexit 3\n");
    }
    let finished = lab.finished(3, &["rollback"]);
    assert_eq!(states(&finished), ["rolled-back", "untouched"]);
    assert_eq!(lab.answers(), ["2", "2"]);
    // It counts as good still: the next rollback comes back to it.
    lab.build("3", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.expect(0, &["rollback"]);
    assert_eq!(lab.answers(), ["2", "2"]);
}

#[test]
fn a_lock_that_is_held_says_by_whom_and_stops_the_rollout() {
    let lab = broken(Mode::Good, "");
    let mut holder = std::process::Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["node", "lock", "--who", "ann", "--host", "pc", "--root"])
        .arg(lab.dir.join("n2"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said = lab.expect(5, &["promote"]);
    assert!(said.contains("ann on pc holds this node's lock"), "{said}");
    assert_eq!(lab.answers(), ["1", "1", "1"]);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["2", "2", "2"]);
}

/// Reads events until one is of this kind, on this node.
fn wait_for(child: &mut Child, event: &str, node: &str, step: &str) -> impl Iterator<Item = Value> + use<> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["event"] == event && line["node"] == node && line["step"] == step {
            break;
        }
    }
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

#[test]
fn one_interrupt_undoes_the_node_at_hand_and_resume_goes_on() {
    let lab = broken(Mode::Sick("60s"), "");
    let mut child = lab.spawn(&["promote", "--format", "json"]);
    let rest = wait_for(&mut child, "step-progress", "n1", "ready");
    interrupt(&child);
    let finished = rest.last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!((&finished["outcome"], states(&finished)[0].as_str()), (&"interrupted".into(), "rolled-back"));
    assert_eq!(lab.answers(), ["1", "1", "1"]);
    // It was not the release's fault.
    let status = lab.json(0, &["status"]);
    assert_eq!(status["nodes"][0]["roles"][0]["bad"], serde_json::json!([]));
    lab.build("3", Mode::Good);
    lab.expect(0, &["promote", "--nodes", "n1"]);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["3", "3", "3"]);
    assert!(lab.expect(0, &["resume"]).contains("nothing to do"));
}

#[test]
fn being_told_to_end_and_a_closed_terminal_undo_it_as_well() {
    for signal in [Signal::TERM, Signal::HUP] {
        let lab = broken(Mode::Sick("60s"), "");
        let mut child = lab.spawn(&["promote", "--format", "json"]);
        let rest = wait_for(&mut child, "step-progress", "n1", "ready");
        // With a terminal, whoever listened goes too.
        drop(rest);
        drop(child.stderr.take());
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal:?}");
        assert_eq!(lab.answers(), ["1", "1", "1"], "{signal:?}");
        let status = lab.json(0, &["status"]);
        assert_eq!(status["nodes"][0]["roles"][0]["version"], "1", "{signal:?}: {status}");
    }
}

/// The processes of windlass that answer requests for this node's root.
fn agents_of(lab: &Lab, node: &str) -> Vec<Pid> {
    let root = lab.dir.join(node);
    let answers = |pid: u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        words.contains(&"call") && words.contains(&root.to_str().unwrap())
    };
    processes(answers).into_iter().map(|pid| Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()).collect()
}

/// The release that is current on a node.
fn current(lab: &Lab, node: &str) -> String {
    let link = std::fs::read_link(lab.dir.join(node).join("roles/web/current")).unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn two_interrupts_leave_the_node_to_its_guard() {
    let mut lab = broken(Mode::Sick("60s"), "confirm_within = \"10m\"");
    lab.clock = Some(Clock::of(&lab.dir));
    let mut child = lab.spawn(&["promote", "--format", "json"]);
    let mut rest = wait_for(&mut child, "step-progress", "n1", "ready");
    // The node answers no more, so that the first interrupt's undo is still under way at the second.
    let agents = agents_of(&lab, "n1");
    assert!(!agents.is_empty());
    for pid in &agents {
        kill_process(*pid, Signal::STOP).unwrap();
    }
    interrupt(&child);
    assert!(rest.any(|line| line["event"] == "undo-started" && line["node"] == "n1"));
    interrupt(&child);
    let finished = rest.last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!((&finished["outcome"], states(&finished)[0].as_str()), (&"interrupted".into(), "guarded"));
    for pid in agents {
        kill_process(pid, Signal::KILL).unwrap();
    }
    assert_eq!(current(&lab, "n1"), "2-2");
    lab.clock.as_ref().unwrap().advance(Duration::from_mins(11));
    lab.until("the guard brings it back", || lab.answers() == ["1", "1", "1"]);
    assert_eq!(current(&lab, "n1"), "1-1");
}

#[test]
fn resume_goes_on_where_a_killed_controller_left() {
    let lab = broken(Mode::Good, "");
    let mut child = lab.spawn(&["promote", "--format", "json"]);
    let _rest = wait_for(&mut child, "step-done", "n2", "activate");
    child.kill().unwrap();
    child.wait().unwrap();
    lab.expect(0, &["resume"]);
    assert_eq!(lab.answers(), ["2", "2", "2"]);
    let history = lab.json(0, &["history"]);
    let outcomes: Vec<&Value> =
        history["rollouts"].as_array().unwrap().iter().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes, [&Value::from("succeeded"), &Value::Null, &Value::from("succeeded")]);
}

/// Three nodes on version 1; n1 runs version 2 and waits for ten minutes for a confirmation, and the controller was
/// killed. A service must run for `min_healthy` before a rollout confirms it.
fn unconfirmed(min_healthy: &str) -> Lab {
    let policy = format!("confirm_within = \"10m\"\nmin_healthy = \"{min_healthy}\"");
    let mut lab = broken(Mode::Good, &policy);
    lab.clock = Some(Clock::of(&lab.dir));
    let mut child = lab.spawn(&["promote", "--format", "json"]);
    let _rest = wait_for(&mut child, "step-started", "n1", "settle");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lab.answers(), ["2", "1", "1"]);
    assert!(!lab.json(0, &["status"])["nodes"][0]["roles"][0]["unconfirmed"].is_null());
    lab
}

/// A guard went back on n1, and then a promotion that is told to succeeds.
fn promotes_after(lab: &Lab) {
    assert_eq!((current(lab, "n1"), lab.answers()), ("1-1".to_owned(), vec!["1".to_owned(); 3]));
    lab.cluster("", "");
    lab.expect(0, &["promote", "--force"]);
    assert_eq!(lab.answers(), ["2", "2", "2"]);
}

#[test]
fn resume_before_a_guard_goes_back_gives_it_its_time_again() {
    let lab = unconfirmed("5s");
    let clock = lab.clock.as_ref().unwrap();
    clock.advance(Duration::from_mins(9));
    let mut child = lab.spawn(&["resume", "--format", "json"]);
    let rest = wait_for(&mut child, "step-started", "n1", "settle");
    // Both together are longer than the guard waits.
    clock.advance(Duration::from_mins(9));
    let finished = rest.last().unwrap();
    assert_eq!((child.wait().unwrap().code(), &finished["outcome"]), (Some(0), &"succeeded".into()));
    assert_eq!(lab.answers(), ["2", "2", "2"]);
}

#[test]
fn resume_after_a_guard_went_back_says_that_the_release_is_bad() {
    let lab = unconfirmed("50s");
    lab.clock.as_ref().unwrap().advance(Duration::from_mins(11));
    lab.until("the guard brings it back", || {
        current(&lab, "n1") == "1-1" && lab.answers() == ["1", "1", "1"]
    });
    let said = lab.expect(1, &["resume"]);
    assert!(said.contains("was marked bad: not confirmed within 10m"), "{said}");
    promotes_after(&lab);
}

#[test]
fn a_guard_that_goes_back_while_resume_waits_ends_it() {
    let lab = unconfirmed("50s");
    let mut child = lab.spawn(&["resume", "--format", "json"]);
    let rest = wait_for(&mut child, "step-started", "n1", "settle");
    lab.clock.as_ref().unwrap().advance(Duration::from_mins(11));
    let finished = rest.last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!((&finished["outcome"], states(&finished)[0].as_str()), (&"rolled-back".into(), "rolled-back"));
    promotes_after(&lab);
}

#[test]
fn a_guard_that_goes_back_after_resume_has_looked_is_noticed() {
    let lab = unconfirmed("50s");
    let rollouts = || std::fs::read_dir(lab.dir.join("out/rollouts")).unwrap().count();
    let before = rollouts();
    // Its first event, which comes before its first step, is held up by a pipe that has no room for it.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(b"\n").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut command = lab.command(&["resume", "--format", "json"]);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    lab.until("it has made its plan", || rollouts() > before);
    lab.clock.as_ref().unwrap().advance(Duration::from_mins(11));
    lab.until("the guard brings it back", || {
        current(&lab, "n1") == "1-1" && lab.answers() == ["1", "1", "1"]
    });
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("the node has moved since"), "{said}");
    promotes_after(&lab);
}

#[test]
fn what_another_rollout_activated_goes_back_to_what_was_before_it() {
    let lab = broken(Mode::Sick("60s"), "confirm_within = \"10m\"");
    let mut child = lab.spawn(&["promote", "--format", "json"]);
    let _rest = wait_for(&mut child, "step-done", "n1", "start");
    child.kill().unwrap();
    child.wait().unwrap();
    // From now on it dies, so that the gate need not wait for its time.
    rewrite(&lab, "n1", "2-2", "run.sh", "#!/bin/sh\nexit 3\n");
    let pid = lab.json(0, &["status"])["nodes"][0]["roles"][0]["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    let finished = lab.finished(3, &["resume"]);
    assert_eq!(states(&finished)[0], "rolled-back", "{finished}");
    assert_eq!(lab.answers(), ["1", "1", "1"]);
}

#[test]
fn another_machine_goes_on_from_what_the_nodes_know() {
    let lab = broken(Mode::Good, "");
    let mut child = lab.spawn(&["promote", "--format", "json"]);
    let _rest = wait_for(&mut child, "step-done", "n2", "activate");
    child.kill().unwrap();
    child.wait().unwrap();
    // Neither a store nor a journal: the nodes' journals and objects are enough.
    std::fs::rename(lab.dir.join("out"), lab.dir.join("elsewhere")).unwrap();
    let said = lab.expect(0, &["resume"]);
    assert!(said.contains("going on with promote") && said.contains("from what its nodes say"), "{said}");
    assert_eq!(lab.answers(), ["2", "2", "2"]);
    let said = lab.expect(0, &["resume"]);
    assert!(said.contains("nothing to do"), "{said}");
    std::fs::remove_dir_all(lab.dir.join("out")).unwrap();
    let said = lab.expect(0, &["resume"]);
    assert!(said.contains("ended as `succeeded`") && said.contains("nothing to do"), "{said}");
}

#[test]
fn what_was_on_its_way_back_goes_on_going_back() {
    let lab = Lab::new(3, "");
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    lab.build("2", Mode::Good);
    let _taken = taken_on(&lab, "n3");
    lab.cluster("on_failure = \"rollback-all\"", ALLOWED);
    listens_where_taken(&lab, "n3");
    let mut child = lab.spawn(&["promote", "--format", "json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let back = lines.any(|line| line.contains("\"wave-started\"") && line.contains("\"back\":true"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(back, "everything goes back");
    let finished = lab.finished(0, &["resume"]);
    assert_eq!(finished["outcome"], "succeeded", "{finished}");
    assert_eq!(lab.answers(), ["1", "1", "1"]);
}

#[test]
fn without_a_terminal_it_ends_after_the_canary_and_resume_goes_on() {
    let lab = broken(Mode::Good, "pause_after_canary = true");
    let said = lab.expect(130, &["promote"]);
    assert!(said.contains("windlass resume"), "{said}");
    assert_eq!(lab.answers(), ["2", "1", "1"]);
    lab.expect(0, &["resume"]);
    assert_eq!(lab.answers(), ["2", "2", "2"]);
}
