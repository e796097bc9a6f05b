//! What reaches the disk before what: a power cut at any moment finds a name only where its content is.
//!
//! A kill does not lose what the kernel has taken, so kills say nothing about a sync that is missing. The order of
//! the system calls does.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::bench::Bench;
use crate::support::node::{Lab, service};
use crate::support::project::{Project, WINDLASS, clean, have};
use crate::survive::operations;

const TRACED: &str = "trace=write,pwrite64,rename,renameat,renameat2,symlinkat,fsync,fdatasync,syncfs,linkat";

/// The system calls of a command, one a line, with the path of each descriptor.
struct Trace(Vec<String>);

impl Trace {
    /// Runs `command` below strace.
    fn of(folder: &Path, command: &Command, stdin: &[u8]) -> Self {
        let (output, input) = (folder.join("strace"), folder.join("strace-stdin"));
        std::fs::write(&input, stdin).unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-qqq", "-e", "signal=none", "-e", TRACED, "-s", "4096", "-o"]).arg(&output);
        strace.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => strace.env(name, value),
                None => strace.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            strace.current_dir(folder);
        }
        let out = strace.stdin(Stdio::from(std::fs::File::open(input).unwrap())).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Self(std::fs::read_to_string(output).unwrap().lines().map(str::to_owned).collect())
    }

    /// The position of the first call from `from` on that begins with one of `calls` and has all of `parts`.
    #[track_caller]
    fn after(&self, from: usize, calls: &[&str], parts: &[&str]) -> usize {
        let is = |line: &String| {
            let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
            calls.iter().any(|name| call.starts_with(&format!("{name}(")))
                && parts.iter().all(|part| line.contains(part))
        };
        let found = self.0.iter().skip(from).position(is);
        from + found.unwrap_or_else(|| {
            panic!("no {calls:?} with {parts:?} from call {from} on:\n{}", self.0.join("\n"))
        })
    }
}

const SYNC: &[&str] = &["fsync", "fdatasync"];

#[test]
fn an_activation_syncs_its_intent_before_the_swap_and_the_folder_after_it() {
    if !have("strace") {
        return;
    }
    let lab = Lab::new();
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    let second = lab.stage(&lab.build("2.0", &service("2.0")));
    for (command, to) in [
        (lab.node(&["activate", "web", "--from", &first, "--to", &second]), &second),
        (lab.node(&["rollback", "web", "--no-restart"]), &first),
    ] {
        let trace = Trace::of(&lab.dir, &command, b"");
        let intent = trace.after(0, &["write"], &["journal.jsonl>", to]);
        let synced = trace.after(intent, SYNC, &["journal.jsonl>"]);
        let link = trace.after(0, &["symlinkat"], &[to]);
        assert!(synced < link, "the intent is synced first:\n{}", trace.0.join("\n"));
        let swap = trace.after(link, &["renameat"], &["\"current\""]);
        let folder = trace.after(swap, SYNC, &["roles/web>)"]);
        // What it came to is written down once it is so.
        assert!(folder < trace.after(swap, &["write"], &["journal.jsonl>"]), "{}", trace.0.join("\n"));
    }
}

#[test]
fn a_release_is_on_the_disk_before_it_has_its_name_and_counts_after_that() {
    if !have("strace") {
        return;
    }
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    lab.push(&built, None).unwrap();
    let trace =
        Trace::of(&lab.dir, &lab.node(&["call"]), format!("{}\n", lab.stage_request(&built)).as_bytes());
    let last = trace.0.iter().rposition(|line| line.contains("linkat(")).expect("objects are linked");
    let named = trace.after(0, &["renameat2", "renameat"], &["releases/.staging-", "releases/1-1.0-1\""]);
    let synced = trace.after(last, &["syncfs"], &["releases/.staging-"]);
    assert!(last < synced && synced < named, "{}", trace.0.join("\n"));
    let folder = trace.after(named, SYNC, &["roles/web/releases>)"]);
    let counts = trace.after(folder, &["write"], &["journal.jsonl>", "1-1.0-1"]);
    trace.after(counts, SYNC, &["journal.jsonl>"]);
    assert_eq!(lab.done(&json!({ "op": "status" }))["roles"][0]["staged"][0]["release"], "1-1.0-1");
}

#[test]
fn a_push_says_that_objects_may_be_torn_before_it_writes_one() {
    if !have("strace") {
        return;
    }
    let bench = Bench::new();
    let receive = operations::receive(&bench);
    let stream = std::fs::read(receive.stdin.unwrap()).unwrap();
    let trace = Trace::of(&bench.lab.dir, &bench.lab.node(&["receive"]), &stream);
    let marker = trace.after(0, SYNC, &["objects/.unsynced-"]);
    let folder = trace.after(marker, SYNC, &["/objects>)"]);
    let object = |line: &String| {
        (line.contains("write(") || line.contains("pwrite64("))
            && line.contains("/objects/")
            && !line.contains("/.unsynced-")
    };
    let first = trace.0.iter().position(object).expect("objects are written");
    assert!(folder < first, "{}", trace.0.join("\n"));
}

#[test]
fn blobs_are_on_the_disk_before_they_have_names_and_the_index_comes_last() {
    if !have("strace") {
        return;
    }
    let project = Project::new();
    let mut command = Command::new(WINDLASS);
    command.args(["build", "--jobs", "2"]).current_dir(&project.dir);
    clean(&mut command);
    let trace = Trace::of(&project.dir, &command, b"");
    let index = trace.after(0, &["renameat", "linkat"], &["out/index.json\""]);
    let mut blobs = 0;
    for (at, line) in trace.0.iter().enumerate().filter(|(_, line)| line.contains(" linkat(")) {
        let Some(name) = line.split("\"./out/blobs/sha256/").nth(1) else { continue };
        assert!(at < index, "{name} is named after the index");
        let descriptor = line.split("/proc/self/fd/").nth(1).unwrap().split('"').next().unwrap();
        // The file behind that descriptor was written and synced, in whatever thread.
        let synced = trace.0[..at].iter().rposition(|line| {
            line.contains(&format!("sync({descriptor}<")) && line.contains("/out/blobs/sha256/#")
        });
        let written = trace.0[..at].iter().rposition(|line| {
            line.contains("write")
                && line.contains(&format!("({descriptor}<"))
                && line.contains("/out/blobs/sha256/#")
        });
        assert!(synced.is_some() && synced > written, "{line}\n{}", trace.0.join("\n"));
        blobs += 1;
    }
    assert!(blobs > 5, "{blobs} blobs");
    let last = trace.0.iter().rposition(|line| line.contains("\"./out/blobs/sha256/")).unwrap();
    assert!(trace.after(last, SYNC, &["/out/blobs/sha256>)"]) < index, "{}", trace.0.join("\n"));
    trace.after(index, SYNC, &["/out>)"]);
}
