//! How long the node's part of a change takes: activation, staging and receiving, beside what the disk alone takes.
//!
//! Each activation is followed by a swap of the floor's (records, symlink, rename, each waited for), so that both
//! meet the same disk and the same neighbours.
//!
//! `cargo bench --bench node [-- activate|stage|status]...`; without words, all. `WINDLASS_BENCH_FILES` sets the
//! files of the staged bundle (13,500). `$TMPDIR` says on which disk. Where strace is installed, the calls that
//! wait for the disk are counted in runs of their own, which are not timed.
//!
//! Figures go to docs/performance.md.

#![allow(clippy::unwrap_used, reason = "whatever is not as expected ends the run")]

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What of the tests' support makes a node.
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/support"]
mod support {
    pub(crate) mod clock;
    pub(crate) mod fixture;
    pub(crate) mod net;
    pub(crate) mod node;
}

use support::node::{Lab, Session, activation, noise, service, until};

/// Swaps in each series.
const SWAPS: usize = 200;

fn main() {
    // `cargo bench` passes --bench to every bench program.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("machine: {cores} cores; files below {}", std::env::temp_dir().display());
    if wanted("activate") {
        activate();
    }
    if wanted("stage") {
        stage();
    }
    if wanted("status") {
        status();
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Prints p50, p99 and max of a series; gives its p50.
fn show(name: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    let (p50, p99, max) = (ms(at(50)), ms(at(99)), ms(times[times.len() - 1]));
    println!("{name:<58} p50 {p50:>7.2}  p99 {p99:>7.2}  max {max:>7.2} ms  ({} times)", times.len());
    at(50)
}

/// A node with two releases, the second one current and both confirmed.
fn two_releases() -> (Lab, [String; 2]) {
    let lab = Lab::new();
    let names = ["1.0", "2.0"].map(|version| lab.promote(&lab.build(version, &service(version))));
    (lab, names)
}

/// What a series took, and what the disk alone took meanwhile.
#[derive(Default)]
struct Series {
    times: Vec<Duration>,
    floor: Vec<Duration>,
    waits: Vec<Duration>,
}

impl Series {
    fn show(self, name: &str) {
        let own = show(name, self.times);
        let floor = show("  the disk alone meanwhile", self.floor);
        let waits = show("    of it in fsync", self.waits);
        println!(
            "  {:.2} of the disk's; {:.2} ms that are no fsync",
            own.div_duration_f64(floor),
            ms(own) - ms(waits)
        );
    }
}

/// Swaps back and forth through one `node call`; `between` is done after each, unmeasured.
fn swaps(
    session: &mut Session,
    names: &[String; 2],
    count: usize,
    within: Option<&str>,
    mut between: impl FnMut(&mut Session, &str),
) -> Series {
    let (mut series, floor) = (Series::default(), Floor::new());
    for n in 0..count {
        let (from, to) = (&names[(n + 1) % 2], &names[n % 2]);
        let request = activation(Some(from), to, within);
        let begun = Instant::now();
        let answer = session.ask(&request);
        series.times.push(begun.elapsed());
        assert_eq!(answer["done"]["already"], json!(false), "{answer}");
        between(session, to);
        let (time, waited) = floor.swap(n);
        series.floor.push(time);
        series.waits.push(waited);
    }
    series
}

fn confirm(session: &mut Session, release: &str) {
    let answer = session.ask(&json!({ "op": "confirm", "role": "web", "release": release }));
    assert!(answer.get("done").is_some(), "{answer}");
}

fn activate() {
    println!("\n## Activate, through one `node call`");
    let (lab, names) = two_releases();
    let nothing = |_: &mut Session, _: &str| {};
    swaps(&mut lab.session(), &names, SWAPS, None, nothing).show("activate");
    swaps(&mut lab.session(), &names, SWAPS, Some("10m"), nothing).show("activate, confirm_within");
    swaps(&mut lab.session(), &names, SWAPS, Some("10m"), confirm)
        .show("activate, confirm_within, confirmed in between");
    let gone = |session: &mut Session, to: &str| {
        confirm(session, to);
        await_no_guard(&lab);
    };
    swaps(&mut lab.session(), &names, 40, Some("10m"), gone)
        .show("activate, confirm_within, no guard there yet");
    let from = names[1].clone();
    let mut session = lab.session();
    let mut back = Vec::new();
    for n in 0..40 {
        session.ask(&activation(Some(&from), &names[0], None));
        let begun = Instant::now();
        let answer = session.ask(&json!({ "op": "rollback", "role": "web", "to": from, "why": "bench" }));
        back.push(begun.elapsed());
        assert_eq!(answer["done"]["to"], json!(from), "{n}: {answer}");
    }
    show("rollback, nothing to restart", back);
    drop(session);
    waits(&lab, &names);

    let records = lengthen(&lab, &names, 10_000);
    let begun = Instant::now();
    let mut session = lab.session();
    session.ask(&activation(Some(&names[1]), &names[0], None));
    println!(
        "journal of {records} records: a new `node call` and its first activation {:.1} ms",
        ms(begun.elapsed())
    );
    session.ask(&activation(Some(&names[0]), &names[1], None));
    swaps(&mut session, &names, SWAPS, None, nothing).show("activate, long journal");
    swaps(&mut session, &names, SWAPS, Some("10m"), nothing).show("activate, long journal, confirm_within");
}

/// What the disk alone takes: a record that is waited for, a swap that is, a record.
struct Floor {
    dir: tempfile::TempDir,
    folder: File,
    log: File,
}

impl Floor {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
        Self { folder: File::open(dir.path()).unwrap(), log, dir }
    }

    /// One swap: all of it, and of it the time in fsync.
    fn swap(&self, n: usize) -> (Duration, Duration) {
        let (line, dir) = ([b"x".repeat(160), b"\n".to_vec()].concat(), self.dir.path());
        let begun = Instant::now();
        let mut waited = Duration::ZERO;
        let mut timed = |sync: &dyn Fn() -> std::io::Result<()>| {
            let begun = Instant::now();
            sync().unwrap();
            waited += begun.elapsed();
        };
        (&self.log).write_all(&line).unwrap();
        timed(&|| self.log.sync_data());
        symlink(format!("releases/{n}"), dir.join("new")).unwrap();
        std::fs::rename(dir.join("new"), dir.join("current")).unwrap();
        timed(&|| self.folder.sync_all());
        (&self.log).write_all(&line).unwrap();
        (begun.elapsed(), waited)
    }
}

fn await_no_guard(lab: &Lab) {
    let path = lab.root.join("roles/web/guard");
    let free = || {
        let file = File::open(&path).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok()
    };
    until("the guard goes", 10, free);
}

/// Calls of one kind: how many an activation makes, and how long one waits.
fn waits(lab: &Lab, names: &[String; 2]) {
    const COUNT: u8 = 20;
    let Some(calls) = traced(lab, |session| {
        swaps(session, names, COUNT.into(), None, |_, _| {});
    }) else {
        return println!("  left out: strace is not installed");
    };
    let per_swap = |count: usize| f64::from(u32::try_from(count).unwrap()) / f64::from(COUNT);
    let shown: Vec<String> = calls
        .iter()
        .map(|(name, count, seconds)| {
            let each = per_swap(*count);
            format!("{name} {each:.1} x {:.2} ms", seconds * 1000.0 / (each * f64::from(COUNT)))
        })
        .collect();
    println!("  each waits for the disk in: {}", shown.join(", "));
}

/// Which calls that wait for the disk `work` makes, how often, and their seconds; `None` without strace.
fn traced(lab: &Lab, work: impl FnOnce(&mut Session)) -> Option<Vec<(String, usize, f64)>> {
    let out = lab.dir.join("trace");
    let mut probe = Command::new("strace");
    probe.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        return None;
    }
    let plain = lab.node(&["call"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-T", "-e", "trace=fsync,fdatasync,syncfs,sync_file_range", "-o"]).arg(&out);
    strace.arg(plain.get_program()).args(plain.get_args());
    let mut session = Session::of(&mut strace);
    work(&mut session);
    drop(session);
    let mut calls: Vec<(String, usize, f64)> = Vec::new();
    for line in std::fs::read_to_string(&out).unwrap().lines() {
        let name = line.split_whitespace().nth(1).and_then(|call| call.split('(').next());
        let seconds = line.rsplit_once('<').and_then(|(_, rest)| rest.trim_end_matches('>').parse().ok());
        let (Some(name), Some(seconds)) = (name, seconds) else { continue };
        match calls.iter_mut().find(|(known, ..)| known == name) {
            Some((_, count, sum)) => (*count, *sum) = (*count + 1, *sum + seconds),
            None => calls.push((name.to_owned(), 1, seconds)),
        }
    }
    Some(calls)
}

/// Makes the journal as long as years of swaps would; gives its records.
fn lengthen(lab: &Lab, names: &[String; 2], records: usize) -> usize {
    let path = lab.root.join("roles/web/journal.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let (mut seq, mut more) = (last["seq"].as_u64().unwrap(), String::new());
    let mut add = |mut record: Value| {
        seq += 1;
        record["seq"] = json!(seq);
        record["time"] = last["time"].clone();
        more.extend([record.to_string().as_str(), "\n"]);
    };
    for n in 0..records / 4 * 2 {
        let (from, to) = (&names[(n + 1) % 2], &names[n % 2]);
        add(json!({ "record": "activating", "from": from, "to": to, "rollout": "2026-01-01-0001" }));
        add(json!({ "record": "activated", "to": to }));
    }
    File::options().append(true).open(&path).unwrap().write_all(more.as_bytes()).unwrap();
    std::fs::read_to_string(&path).unwrap().lines().count()
}

fn stage() {
    let count: usize =
        std::env::var("WINDLASS_BENCH_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(13_500);
    println!("\n## Receive and stage {count} files");
    let lab = Lab::new();
    let mut files = service("1.0");
    for n in 0..count {
        // Sizes as in a tree of sources: most are small.
        let size = 200 + (n * 7919 % 97) * 61 + if n % 50 == 0 { 60_000 } else { 0 };
        files.insert(
            format!("tree/{:02}/{:02}/file-{n}", n % 83, n / 83 % 11),
            (0o644, noise(n as u64, size)),
        );
    }
    let built = lab.build("1.0", &files);
    let begun = Instant::now();
    let received = lab.push(&built, None).unwrap();
    println!("receive: {:.0} ms (with the sender's reading and packing), {received}", ms(begun.elapsed()));
    let mut session = lab.session();
    let mut times = Vec::new();
    let request = |n: usize| {
        let mut request = lab.stage_request(&built);
        request["context"]["node"]["name"] = json!(format!("n{n}"));
        request
    };
    for n in 0..8 {
        let begun = Instant::now();
        let answer = session.ask(&request(n));
        times.push(begun.elapsed());
        assert_eq!(answer["done"]["existing"], json!(false), "{answer}");
    }
    println!("first stage: {:.0} ms", ms(times[0]));
    show("stage, objects there", times.split_off(1));
    let begun = Instant::now();
    session.ask(&request(3));
    println!("stage, the release is there: {:.0} ms", ms(begun.elapsed()));
    drop(session);
    if let Some(calls) = traced(&lab, |session| drop(session.ask(&request(99)))) {
        println!("  it waits for the disk in: {calls:?}");
    }
    copies(&lab);
}

/// What the same tree takes by other means.
fn copies(lab: &Lab) {
    let release = lab.root.join("roles/web/current-release");
    symlink(lab.release("2-1.0-1"), &release).unwrap();
    for (name, script) in
        [("cp -al (hard links, one thread)", "cp -al \"$0/\" \"$1\""), ("cp -a", "cp -a \"$0/\" \"$1\"")]
    {
        let target = lab.dir.join("copy");
        let begun = Instant::now();
        let status = Command::new("sh").args(["-ec", script]).arg(&release).arg(&target).status().unwrap();
        assert!(status.success());
        println!("  beside it, {name}: {:.0} ms", ms(begun.elapsed()));
        Command::new("sh").args(["-ec", "chmod -R u+w \"$0\"; rm -rf \"$0\""]).arg(&target).status().unwrap();
    }
    std::fs::remove_file(release).unwrap();
}

fn status() {
    println!("\n## Status");
    let (lab, names) = two_releases();
    let ask = |session: &mut Session| {
        let begun = Instant::now();
        let answer = session.ask(&json!({ "op": "status" }));
        assert!(answer["done"]["roles"][0]["release"].is_string(), "{answer}");
        begun.elapsed()
    };
    let mut session = lab.session();
    show("status, one role", (0..50).map(|_| ask(&mut session)).collect());
    lengthen(&lab, &names, 10_000);
    let mut session = lab.session();
    println!("status, journal of 10,000 records, a new `node call`: {:.1} ms", ms(ask(&mut session)));
    show("status, the same, asked again", (0..50).map(|_| ask(&mut session)).collect());
}
