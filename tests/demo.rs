//! `windlass demo`, as a new user runs it: what it shows is what happened, and nothing is left behind.

use crate::support::project;

use std::fs;
use std::path::Path;
use std::process::Command;

use project::{Run, WINDLASS, clean, skip, text};
use serde_json::Value;

/// Runs the demo with a temporary folder of its own; gives what it wrote and what is left in that folder.
fn demo(arguments: &[&str]) -> (Run, Vec<String>) {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(WINDLASS);
    command.arg("demo").args(arguments).env("TMPDIR", temporary.path()).current_dir(temporary.path());
    clean(&mut command);
    let run = Run::of(&mut command);
    let left = fs::read_dir(temporary.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    if arguments.contains(&"--keep") {
        let folder = fs::read_dir(temporary.path()).unwrap().next().unwrap().unwrap().path();
        let mut stop = Command::new(WINDLASS);
        stop.args(["service", "stop"]).current_dir(&folder);
        clean(&mut stop);
        Run::of(&mut stop).ok();
        assert_eq!(processes_below(&folder), [""; 0]);
    }
    (run, left)
}

/// Programs that run from a folder.
fn processes_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // A process may end meanwhile.
        if let Ok(program) = fs::read_link(entry.path().join("exe"))
            && program.starts_with(folder)
        {
            found.push(program.display().to_string());
        }
    }
    found
}

/// What each step of the demo must have come to.
fn check(shown: &Value) {
    let steps = shown["steps"].as_array().unwrap();
    let of = |command: &str| -> Vec<&Value> {
        steps.iter().filter(|step| text(&step["command"]) == format!("windlass {command}")).collect()
    };
    let exits: Vec<i64> = of("promote").iter().map(|step| step["exit"].as_i64().unwrap()).collect();
    assert_eq!(exits, [0, 0, 3], "the third release is broken");
    for step in of("promote")[1..].iter().chain(&of("rollback")) {
        assert_eq!(step["client"]["failed"], 0, "{step}");
        assert!(step["client"]["requests"].as_u64().unwrap() > 0, "{step}");
        assert_eq!(step["nodes"].as_array().unwrap().len(), 3, "{step}");
    }
    // The runtime is there already: little is sent for the second version.
    let sent = |step: &Value| -> u64 {
        step["nodes"].as_array().unwrap().iter().map(|node| node["bytes_sent"].as_u64().unwrap()).sum()
    };
    assert!(sent(of("promote")[1]) * 20 < sent(of("promote")[0]), "{shown}");
    assert_eq!(sent(of("rollback")[0]), 0);
    assert!(of("promote")[1]["nodes"][0]["downtime_ms"].as_u64().unwrap() > 0);
    // The canary alone was touched.
    let touched: Vec<bool> = of("promote")[2]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["downtime_ms"].as_u64().unwrap() > 0)
        .collect();
    assert_eq!(touched, [true, false, false]);
    let bundles: Vec<String> =
        shown["bundles"].as_array().unwrap().iter().map(|one| text(&one["ref"])).collect();
    assert_eq!(bundles, ["hello:1.0.0-1", "hello:2.0.0-1", "hello:3.0.0-1"]);
}

#[test]
fn three_nodes_of_this_machine_go_there_and_back() {
    let (run, left) = demo(&["--format", "json"]);
    check(&run.ok().json());
    assert_eq!(left, [""; 0], "nothing stays behind");
}

#[test]
fn over_an_sshd_of_its_own() {
    if !Path::new("/usr/sbin/sshd").is_file() {
        skip("sshd is not installed");
        return;
    }
    let (run, left) = demo(&["--format", "json", "--ssh"]);
    check(&run.ok().json());
    assert_eq!(left, [""; 0], "nothing stays behind");
}

#[test]
fn its_folder_can_be_kept_to_play_with() {
    let (run, left) = demo(&["--keep"]);
    let run = run.ok();
    assert_eq!(left.len(), 1);
    for shown in
        ["$ windlass promote", "answers 500, not 200", "rolled back", "The folder is kept", "COMMAND"]
    {
        assert!(run.stdout.contains(shown), "{shown} is missing in {}", run.stdout);
    }
}
