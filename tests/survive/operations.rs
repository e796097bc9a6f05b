//! What a node is asked to do, in forms that can be begun again and again from the same state.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bench::Bench;
use crate::support::node::wait_until;

/// Something that is done to a bench.
pub(crate) type Act = Box<dyn Fn(&Bench, &str)>;

/// An operation of a node, and what is looked at besides.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) stdin: Option<PathBuf>,
    /// Calls of the processes that it starts count as well.
    pub(crate) follow: bool,
    /// What comes before it.
    pub(crate) ready: Act,
    /// Runs it again, and to its end.
    pub(crate) again: Act,
    /// What comes after it, where only that tidies up.
    pub(crate) then: Option<Act>,
}

/// What a role's state comes down to: what an undisturbed run leads to and a disturbed one has to.
pub(crate) fn outcome(status: &Value) -> Value {
    json!({
        "release": status["release"], "prior": status["prior"], "staged": status["staged"], "bad": status["bad"],
        "process": status["process"], "runs": status["runs"], "unconfirmed": status["unconfirmed"]["from"],
    })
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A command that succeeds.
fn run(args: &str) -> Act {
    let args = words(args);
    Box::new(move |bench, what| {
        bench.ok(&args.iter().map(String::as_str).collect::<Vec<_>>(), what);
    })
}

fn nothing() -> Act {
    Box::new(|_, _| {})
}

/// A command that is repeated as it is.
fn command(name: &'static str, args: &str, ready: Act) -> Operation {
    Operation { name, args: words(args), stdin: None, follow: false, ready, again: run(args), then: None }
}

pub(crate) fn file(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// The release of the bundle that is not staged yet.
fn staged(bench: &Bench, what: &str) {
    let answer = bench.lab.call(&bench.lab.stage_request(&bench.last));
    assert_eq!(answer["done"]["release"], json!(bench.next()), "{what}: {answer}");
}

/// Activations, confirmations, going back.
pub(crate) fn moves(bench: &Bench) -> Vec<Operation> {
    let start = || run("service start web");
    let next = bench.name(7);
    let guarded = format!("activate web --to {next} --confirm-within 2m");
    let back = format!("rollback web --to {}", bench.name(3));
    let activate = run(&guarded);
    let activated: Act = Box::new(move |bench, what| {
        bench.ok(&["service", "start", "web"], what);
        activate(bench, what);
    });
    vec![
        command("activate", &format!("activate web --to {next}"), nothing()),
        command("activate with a guard", &guarded, start()),
        command("rollback with its service", &back, start()),
        command("rollback, marked bad", &format!("{back} --bad --no-restart"), nothing()),
        command("confirm", &format!("confirm web {next}"), activated),
    ]
}

/// Services and garbage.
pub(crate) fn services_and_gc() -> Vec<Operation> {
    let start = "service start web";
    let followed = Operation {
        follow: true,
        ..command("service start, with the process that becomes the service", start, nothing())
    };
    vec![
        command("service stop", "service stop web", run(start)),
        command("service start", start, nothing()),
        followed,
        command("gc", "gc --keep 1", nothing()),
    ]
}

pub(crate) fn receive(bench: &Bench) -> Operation {
    let stream = file(&bench.lab.dir, "stream", &bench.push_stream(&bench.last));
    Operation {
        name: "receive",
        args: words("receive"),
        stdin: Some(stream),
        follow: false,
        ready: nothing(),
        again: Box::new(|bench, what| {
            let pushed = bench.lab.push(&bench.last, None);
            assert!(pushed.is_ok(), "{what}: {pushed:?}");
        }),
        // The marker for what a power cut may tear goes with the sync that staging ends with.
        then: Some(Box::new(staged)),
    }
}

pub(crate) fn stage_request(bench: &Bench) -> PathBuf {
    let mut request = bench.lab.stage_request(&bench.last);
    request.as_object_mut().unwrap().remove("op");
    file(&bench.lab.dir, "request", request.to_string().as_bytes())
}

/// Staging; the bundle has to be there.
pub(crate) fn stage(bench: &Bench) -> Operation {
    Operation {
        name: "stage",
        args: words("stage"),
        stdin: Some(stage_request(bench)),
        follow: false,
        ready: nothing(),
        again: Box::new(staged),
        then: None,
    }
}

/// Staging of a spare that does not fit everywhere.
pub(crate) fn stage_with_spare(bench: &Bench) -> Operation {
    Operation { name: "stage with a spare", ..stage(bench) }
}

/// A guard whose time is over; it alone goes back.
pub(crate) fn guard(bench: &Bench) -> Operation {
    let (next, before) = (bench.name(7).to_owned(), bench.name(4).to_owned());
    let over = move |bench: &Bench, what: &str| {
        bench.ok(&["activate", "web", "--to", &next, "--confirm-within", "10m"], what);
        bench.ok(&["service", "start", "web"], what);
        bench.end_guards();
        bench.lab.advance(Duration::from_mins(10));
    };
    let looked_at = move |bench: &Bench, what: &str| {
        // Somebody looks, no more.
        wait_until(&format!("{what}: the guard rolls back"), || {
            bench.truthful(what)["release"] == json!(before)
        });
        wait_until(&format!("{what}: the service is back"), || bench.at_rest(what)["runs"] == json!(before));
    };
    Operation {
        name: "guard that goes back",
        args: words("guard web"),
        stdin: None,
        follow: false,
        ready: Box::new(over),
        again: Box::new(looked_at),
        then: None,
    }
}
