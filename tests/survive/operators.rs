//! Several operators at once, each with a folder of its own, on the same nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::bench::{SECRET, copy};
use crate::support::cluster::{Cluster, GOOD, text};
use crate::support::node::wait_until;

/// What one of them does.
const WISHES: [&[&str]; 5] = [
    &["promote", "web:2"],
    &["promote", "web:3"],
    &["rollback"],
    &["gc", "--on-nodes", "--keep", "1"],
    &["restart"],
];

fn windlass(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(args).arg("-C").arg(folder).env("LAB_PW", SECRET);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The records of a node's journal.
fn journal(cluster: &Cluster, node: &str) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(["node", "journal", "web", "--format", "json", "--root"]).arg(cluster.root(node));
    let out = command.output().unwrap();
    assert!(out.status.success(), "{node}: {}", text(&out));
    let journal: Value = serde_json::from_slice(&out.stdout).unwrap();
    journal["entries"].as_array().unwrap().clone()
}

/// No rollout moves a node while another one has it half moved.
fn one_at_a_time(cluster: &Cluster, node: &str) {
    let mut open: Option<Value> = None;
    for entry in journal(cluster, node) {
        match entry["record"].as_str().unwrap() {
            "activating" => {
                assert!(open.is_none(), "{node}: {entry} while {open:?}");
                open = Some(entry);
            }
            "confirmed" | "abandoned" | "rolling-back" => open = None,
            _ => {}
        }
    }
}

fn at_once(operators: usize, rounds: usize) {
    let cluster = Cluster::local(3, "");
    for version in ["1", "2", "3"] {
        cluster.build(version, GOOD);
        if version == "1" {
            cluster.expect(0, &["promote"]);
        }
    }
    let base = cluster.dir.parent().unwrap();
    let folders: Vec<PathBuf> = (0..operators).map(|n| base.join(format!("operator-{n}"))).collect();
    for folder in &folders {
        copy(&cluster.dir, folder);
    }
    let mut ends: BTreeMap<(String, i32), usize> = BTreeMap::new();
    for round in 0..rounds {
        let wish = |n: usize| WISHES[(n + round) % WISHES.len()];
        let children =
            folders.iter().enumerate().map(|(n, folder)| windlass(folder, wish(n)).spawn().unwrap());
        let children: Vec<_> = children.collect();
        let outs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        for (n, out) in outs.iter().enumerate() {
            let (said, code) = (text(out), out.status.code().unwrap_or(-1));
            assert!(!said.contains("panicked") && !said.contains(SECRET), "{said}");
            // 1: where the nodes were is not where they are any more; nothing was touched.
            assert!(matches!(code, 0 | 1 | 5), "{:?} ends with {code}: {said}", wish(n));
            if code == 5 {
                let told = said.contains("holds this node's lock") && said.contains(" since 20");
                assert!(told, "{:?}: {said}", wish(n));
            }
            *ends.entry((wish(n)[0].to_owned(), code)).or_default() += 1;
        }
        // gc takes each node by itself; of rollouts that met one got all nodes.
        let gc = (0..operators).any(|n| wish(n)[0] == "gc");
        let met = outs.iter().any(|out| out.status.code() == Some(5));
        let through = outs.iter().any(|out| out.status.success());
        assert!(gc || !met || through, "round {round}: nobody got through");
        // A lock is released a moment after its operator's process has ended.
        let mut status = Value::Null;
        wait_until("every lock is released", || {
            status = cluster.truthful("after a round");
            status["nodes"].as_array().unwrap().iter().all(|node| node["lock"] == Value::Null)
        });
        for (node, told) in cluster.nodes.iter().zip(status["nodes"].as_array().unwrap()) {
            cluster.whole(node, "after a round");
            one_at_a_time(&cluster, node);
            assert_eq!(told["roles"][0]["runs"], told["roles"][0]["release"], "{told}");
        }
    }
    let out = windlass(&folders[0], &["promote", "web:3", "--force"]).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert_eq!(cluster.debris(), Vec::<PathBuf>::new());
    eprintln!("{operators} operators, {rounds} rounds: {ends:?}");
}

#[test]
fn two_operators_at_once() {
    at_once(2, 5);
}

#[test]
#[ignore = "long: two operators, 40 rounds, about 4 minutes"]
fn long_two_operators_at_once() {
    at_once(2, 40);
}

#[test]
fn ten_operators_at_once() {
    at_once(10, 1);
}

#[test]
#[ignore = "long: ten operators, 20 rounds, about 6 minutes"]
fn long_ten_operators_at_once() {
    at_once(10, 20);
}
