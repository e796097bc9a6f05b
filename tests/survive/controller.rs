//! The controller killed, or told of an error, at each system call of a promotion.
//!
//! Only the controller's own process is killed and counted, not the agents on the nodes.

use std::time::Duration;

use serde_json::Value;

use crate::support::bench::SECRET;
use crate::support::cluster::{Cluster, GOOD};
use crate::support::node::wait_until;
use crate::support::seed::seed;
use crate::support::tracer::{CHANGES, Hit, Tracer};
use crate::survive::kills::first;

/// What counts: calls that change a disk or a process. Its pipes to the agents are what it speaks by.
fn hit<'a>(at: usize, what: &'a str, counted: &'a [&'a str]) -> Hit<'a> {
    Hit { at, what, counted, follow: false }
}

/// Two nodes on version 1, and version 2 to come.
fn ready() -> Cluster {
    // `resume` must not race with the guards: the test moves the clock past this deadline afterwards.
    let cluster = Cluster::local(2, "confirm_within = \"10m\"");
    cluster.build("1", GOOD);
    cluster.expect(0, &["promote"]);
    cluster.build("2", GOOD);
    cluster.save();
    cluster
}

/// Every node has a complete release that runs, as soon as its guard has seen to it; then `resume` ends well, and
/// with what is left to do everything is where it should be.
#[track_caller]
fn recovers(cluster: &Cluster, what: &str) {
    for node in &cluster.nodes {
        cluster.whole(node, what);
    }
    cluster.truthful(what);
    let out = cluster.command(&["resume"]).output().unwrap();
    let said = crate::support::cluster::text(&out);
    assert!(!said.contains("panicked") && !said.contains(SECRET), "{what}: {said}");
    assert!(matches!(out.status.code(), Some(0 | 3)), "{what}: resume ends with {:?}\n{said}", out.status);
    // Guards now roll back what is still unconfirmed.
    cluster.advance(Duration::from_mins(10));
    settled(cluster, what);
    // Where the rollout was not written down yet, there was nothing to go on with.
    let out = cluster.command(&["promote"]).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{what}: {}", crate::support::cluster::text(&out));
    let status = settled(cluster, what);
    for node in status["nodes"].as_array().unwrap() {
        assert_eq!(node["roles"][0]["version"], "2", "{what}: {status}");
    }
    assert_eq!(cluster.debris(), [""; 0].map(std::path::PathBuf::from), "{what}");
    cluster.expect(0, &["history"]);
}

/// Every node's current release is complete and runs.
#[track_caller]
fn settled(cluster: &Cluster, what: &str) -> Value {
    let mut last = Value::Null;
    wait_until(&format!("{what}: every service runs from its current release"), || {
        last = cluster.truthful(what);
        let nodes = last["nodes"].as_array().unwrap();
        nodes.iter().all(|node| node["roles"][0]["runs"] == node["roles"][0]["release"])
    });
    for node in &cluster.nodes {
        cluster.whole(node, what);
    }
    last
}

#[test]
fn promote_killed_at_each_call() {
    promote_killed(Some(6));
}

#[test]
#[ignore = "long: kills the controller at every call of a promotion, about 20 minutes"]
fn long_promote_killed_at_each_call() {
    promote_killed(None);
}

/// Kills it at about so many of its calls, or at all of them.
fn promote_killed(tries: Option<usize>) {
    let cluster = ready();
    let Some(mut tracer) = Tracer::start(cluster.dir.parent().unwrap()) else { return };
    let words = cluster.words(&["promote"]);
    cluster.reset();
    let whole = tracer.run(&words, None, hit(usize::MAX >> 1, "kill", CHANGES));
    assert_eq!(whole.code, Some(0), "{}{}", whole.stdout, whole.stderr);
    let step = tries.map_or(1, |tries| whole.count / tries);
    let mut kills = 0;
    for at in (first(step)..).step_by(step) {
        cluster.reset();
        let ended = tracer.run(&words, None, hit(at, "kill", CHANGES));
        if ended.hits == 0 {
            assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
            break;
        }
        assert_eq!(ended.signal, Some(9));
        kills += 1;
        recovers(&cluster, &format!("promote killed at call {at}, {}", ended.what.unwrap_or_default()));
    }
    eprintln!("promote: {} calls, {kills} kills", whole.count);
    assert!(kills > 0);
}

/// What a controller may be told by its own disk, and by which calls.
const ERRORS: &[(&str, &[&str])] = &[
    (
        "ENOSPC",
        &["creat", "write", "fsync", "fdatasync", "rename", "renameat", "link", "linkat", "mkdir", "mkdirat"],
    ),
    (
        "EIO",
        &["write", "fsync", "fdatasync", "rename", "renameat", "link", "linkat", "unlinkat", "ftruncate"],
    ),
    (
        "EINTR",
        &[
            "write",
            "fsync",
            "fdatasync",
            "rename",
            "renameat",
            "link",
            "linkat",
            "unlinkat",
            "mkdir",
            "flock",
        ],
    ),
    ("EROFS", &["creat", "rename", "renameat", "link", "linkat", "mkdir", "mkdirat"]),
    ("EDQUOT", &["creat", "write"]),
    ("ENOSPC+", &["creat", "write", "fsync", "fdatasync", "rename", "link", "linkat", "mkdir"]),
    ("EMFILE", &["open"]),
    ("EMFILE+", &["open"]),
];

#[test]
fn promote_with_errors_at_each_call() {
    promote_with_errors(false);
}

#[test]
#[ignore = "long: every call of a promotion fails in every way, about an hour"]
fn long_promote_with_errors_at_each_call() {
    promote_with_errors(true);
}

/// Has each call fail in each way, or one of the first calls in each way.
fn promote_with_errors(all: bool) {
    let cluster = ready();
    let Some(mut tracer) = Tracer::start(cluster.dir.parent().unwrap()) else { return };
    let words = cluster.words(&["promote"]);
    let (mut tries, mut codes) = (0, std::collections::BTreeMap::new());
    let chosen = usize::try_from(seed(0)).unwrap();
    for (number, (error, counted)) in ERRORS.iter().enumerate() {
        let first = if all { 1 } else { 1 + (chosen + number * 5) % 11 };
        for at in first.. {
            cluster.reset();
            let ended = tracer.run(&words, None, hit(at, error, counted));
            let said = format!("{}{}", ended.stdout, ended.stderr);
            if ended.hits == 0 {
                assert_eq!(ended.code, Some(0), "{said}");
                break;
            }
            let call = ended.what.clone().unwrap_or_default();
            let what = format!("promote with {error} at call {at}, {call}");
            tries += 1;
            *codes.entry((*error, ended.code)).or_insert(0) += 1;
            assert!(!said.contains("panicked") && !said.contains(SECRET), "{what}: {said}");
            assert!(matches!(ended.code, Some(0..=4)), "{what}: {:?} {said}", ended.code);
            if ended.code != Some(0) {
                assert_ne!(*error, "EINTR", "{what}: {said}");
                assert!(said.contains("could not "), "{what}: {said}");
            }
            recovers(&cluster, &what);
            if !all {
                break;
            }
        }
    }
    eprintln!("promote: {tries} errors: {codes:?}");
}
