//! The wall clock jumps back and forth while things happen.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::agent::guard::guards_of;
use crate::support::bench::{Bench, sleeps};
use crate::support::cluster::{Cluster, GOOD, text};
use crate::support::node::wait_until;

/// libfaketime, where it is installed.
fn library() -> Option<PathBuf> {
    let triple = std::env::consts::ARCH.to_owned() + "-linux-gnu";
    let path = Path::new("/usr/lib").join(triple).join("faketime/libfaketime.so.1");
    if !path.exists() {
        crate::support::tools::skip("jumping clocks: there is no libfaketime (package faketime)");
        return None;
    }
    Some(path)
}

/// The wall clock of a command; other clocks are left as they are.
fn fake(command: &mut Command, library: &Path, offset: &Path) {
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", offset);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

/// A clock that jumps until it is dropped.
struct Jumping(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Jumping {
    fn start(offset: &Path) -> Self {
        let (end, path) = (Arc::new(AtomicBool::new(false)), offset.to_owned());
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            for jump in ["-3600", "+86400", "+0", "-86400", "+400d", "-2"].iter().cycle() {
                // By renaming: whoever reads it sees one or the other.
                let new = path.with_extension("new");
                std::fs::write(&new, format!("{jump}\n")).unwrap();
                std::fs::rename(&new, &path).unwrap();
                std::thread::sleep(Duration::from_millis(40));
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        Self(end, Some(thread))
    }
}

impl Drop for Jumping {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().unwrap().join();
    }
}

fn set(offset: &Path, jump: &str) {
    std::fs::write(offset, format!("{jump}\n")).unwrap();
}

#[test]
fn rollouts_while_the_clock_jumps() {
    rollouts_while_it_jumps(2);
}

#[test]
#[ignore = "long: 90 rollouts while the wall clock jumps, about 3 minutes"]
fn long_rollouts_while_the_clock_jumps() {
    rollouts_while_it_jumps(30);
}

fn rollouts_while_it_jumps(rounds: usize) {
    let Some(library) = library() else { return };
    let cluster = Cluster::local(2, "");
    let offset = cluster.dir.join("offset");
    let run = |code: i32, args: &[&str]| {
        let mut command = cluster.command(args);
        fake(&mut command, &library, &offset);
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
        text(&out)
    };
    cluster.build("1", GOOD);
    cluster.expect(0, &["promote"]);
    cluster.build("2", GOOD);
    {
        let _jumping = Jumping::start(&offset);
        for _ in 0..rounds {
            run(0, &["promote"]);
            run(0, &["restart"]);
            run(0, &["rollback"]);
        }
        run(0, &["promote"]);
    }
    for node in &cluster.nodes {
        cluster.whole(node, "after jumps");
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command.args(["node", "journal", "web", "--root"]).arg(cluster.root(node));
        assert!(command.output().unwrap().status.success());
    }
    cluster.truthful("after jumps");
    // A clock that was a day late, and is right again: what was done last is still the last.
    set(&offset, "-86400");
    cluster.build("3", GOOD);
    run(0, &["promote", "--nodes", "n1"]);
    let ids = || -> Vec<String> {
        let out = cluster.command(&["history", "--format", "json"]).output().unwrap();
        let history: Value = serde_json::from_slice(&out.stdout).unwrap();
        let rows = history["rollouts"].as_array().unwrap();
        rows.iter().map(|row| row["rollout"].as_str().unwrap().to_owned()).collect()
    };
    let before = ids();
    set(&offset, "-172800");
    run(0, &["rollback", "--nodes", "n1"]);
    let after = ids();
    assert_eq!(after.len(), before.len() + 1);
    let new = after.iter().find(|id| !before.contains(id)).unwrap();
    assert!(before.iter().all(|id| id < new), "{new} is not after {before:?}");
    let distinct: std::collections::BTreeSet<&String> = after.iter().collect();
    assert_eq!(distinct.len(), after.len());
    // What resume goes on with is what was begun last.
    let said = run(0, &["resume"]);
    assert!(said.contains(new.as_str()), "{new}: {said}");
}

#[test]
fn a_guard_keeps_its_time_whatever_the_clock_says() {
    let Some(library) = library() else { return };
    let bench = Bench::new();
    let offset = bench.lab.dir.join("offset");
    for jump in ["+400d", "-400d", "jumping"] {
        bench.reset();
        set(&offset, "+0");
        let mut command =
            bench.lab.node(&["activate", "web", "--to", bench.name(7), "--confirm-within", "2h"]);
        fake(&mut command, &library, &offset);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let [guard] = *guards_of(&bench.lab) else { panic!("one guard: {:?}", guards_of(&bench.lab)) };
        let _jumping = if jump == "jumping" {
            Some(Jumping::start(&offset))
        } else {
            set(&offset, jump);
            None
        };
        // The guard sees several times that an hour is left.
        bench.lab.advance(Duration::from_hours(1));
        let before = sleeps(guard);
        wait_until("the guard has looked", || sleeps(guard) > before + 10);
        assert_eq!(bench.whole(jump), bench.name(7), "{jump}: not before its time");
        bench.lab.advance(Duration::from_hours(1));
        wait_until("the guard rolls back", || bench.whole(jump) == bench.name(4));
        bench.at_rest(jump);
    }
}
