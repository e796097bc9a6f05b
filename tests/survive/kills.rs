//! The agent killed at each system call that changes anything.
//!
//! After each kill: `current` leads to a complete release, `status` tells the truth, the same operation again ends
//! well and where an undisturbed one does, and nothing temporary is left.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::tracer::{CHANGES, Hit, Tracer};
use crate::long;

/// An operation of a node, and what is looked at besides.
struct Operation<'a> {
    name: &'a str,
    args: Vec<String>,
    stdin: Option<PathBuf>,
    /// Every how many calls one is tried in the short version.
    step: usize,
    /// Calls of the processes that it starts count as well.
    follow: bool,
    /// Runs it again, and to its end.
    again: &'a dyn Fn(&Bench, &str),
}

/// What a role's state comes down to: what an undisturbed run leads to and a disturbed one has to.
fn outcome(status: &Value) -> Value {
    let staged: Vec<&Value> = status["staged"].as_array().unwrap().iter().collect();
    json!({
        "release": status["release"], "prior": status["prior"], "staged": staged, "bad": status["bad"],
        "process": status["process"], "runs": status["runs"], "unconfirmed": status["unconfirmed"]["from"],
    })
}

/// Kills it at each call; how many calls there were, and how many of them were tried.
fn killed_everywhere(bench: &Bench, tracer: &mut Tracer, operation: &Operation<'_>, ready: &dyn Fn()) {
    let args: Vec<&str> = operation.args.iter().map(String::as_str).collect();
    let stdin = operation.stdin.as_deref();
    let hit = |at| Hit { at, what: "kill", counted: CHANGES, follow: operation.follow };
    let step = if long() { 1 } else { operation.step };
    bench.reset();
    ready();
    let whole = bench.hit(tracer, &args, stdin, hit(usize::MAX >> 1));
    assert_eq!(whole.code, Some(0), "{}: {}{}", operation.name, whole.stdout, whole.stderr);
    let wanted = outcome(&bench.at_rest(operation.name));
    // Not always the same ones in the short version.
    let first = 1 + usize::try_from(std::process::id()).unwrap() % step;
    let (mut kills, mut at) = (0, first);
    loop {
        bench.reset();
        ready();
        let ended = bench.hit(tracer, &args, stdin, hit(at));
        if ended.hits == 0 {
            assert_eq!(ended.code, Some(0), "{}: {}", operation.name, ended.stderr);
            break;
        }
        let what = format!("{} killed at call {at}, {}", operation.name, ended.what.unwrap_or_default());
        assert!(ended.signal == Some(9) || operation.follow, "{what}: {:?} {}", ended.code, ended.stderr);
        kills += 1;
        bench.whole(&what);
        bench.truthful(&what);
        (operation.again)(bench, &what);
        bench.whole(&what);
        let found = outcome(&bench.at_rest(&what));
        assert_eq!(found, wanted, "{what}");
        bench.clean(&what);
        at += step;
    }
    eprintln!("{}: {} calls, {kills} kills", operation.name, whole.count);
    assert!(kills > 0, "{} changes something", operation.name);
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The same command once more.
fn repeat(args: &str) -> impl Fn(&Bench, &str) + use<> {
    let args = words(args);
    move |bench: &Bench, what: &str| {
        bench.ok(&args.iter().map(String::as_str).collect::<Vec<_>>(), what);
    }
}

/// Kills a command that is repeated as it is.
fn command(bench: &Bench, tracer: &mut Tracer, name: &str, args: &str, step: usize, ready: &dyn Fn()) {
    let again = repeat(args);
    let operation =
        Operation { name, args: words(args), stdin: None, step, follow: false, again: &again };
    killed_everywhere(bench, tracer, &operation, ready);
}

fn file(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn activate_confirm_and_rollback_killed_at_each_call() {
    let bench = Bench::new();
    let Some(mut tracer) = Tracer::start(&bench.lab.dir) else { return };
    let start = || drop(bench.ok(&["service", "start", "web"], "the service"));
    let next = bench.name(7).to_owned();
    command(&bench, &mut tracer, "activate", &format!("activate web --to {next}"), 3, &|| {});
    let guarded = format!("activate web --to {next} --confirm-within 2m");
    command(&bench, &mut tracer, "activate with a guard", &guarded, 3, &start);
    let back = format!("rollback web --to {}", bench.name(3));
    command(&bench, &mut tracer, "rollback", &back, 3, &start);
    command(&bench, &mut tracer, "rollback, marked bad", &format!("{back} --bad --no-restart"), 3, &|| {});
    let activated = || {
        start();
        bench.ok(&words(&guarded).iter().map(String::as_str).collect::<Vec<_>>(), "activated");
    };
    command(&bench, &mut tracer, "confirm", &format!("confirm web {next}"), 2, &activated);
}
