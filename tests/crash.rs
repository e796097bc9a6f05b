//! A build that is broken off, by whatever and wherever, leaves `out/` as it was and the next one works.
//!
//! Kills at random moments and at each system call that gives something a name; each such call failing; Ctrl-C
//! once and twice; a full disk; a limit on the size of files; builds beside builds and beside gc.
//!
//! After each: every blob has the name that its content gives it, the index is the old or the new one, `verify`
//! finds nothing, and building again gives the digests that an undisturbed build gives.

use crate::support::bench::sleeps;
use crate::support::node::wait_until;
use crate::support::project;
use crate::support::seed::{Random, seed};

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use camino::Utf8PathBuf;
use project::{
    Project, Run, WINDLASS, clean, copy_tree, file, files_below, have, names_below, noise, skip, text,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use windlass::fs::{DirLock, LockKind};

/// A project with a store that holds something already, and one change away from the next bundles.
struct Bench {
    project: Project,
    /// out/ as it is before each try.
    before: BTreeMap<String, Vec<u8>>,
    /// What an undisturbed build gives.
    digests: BTreeMap<String, String>,
    index: Vec<u8>,
}

impl Bench {
    fn new(megabytes: usize) -> Self {
        let project = Project::sized(megabytes);
        project.run(&["lock"]).ok();
        project.json(&["build", "plain"]).ok();
        project.edit("recipes/plain.toml", "1.0", "1.1");
        project.edit("conf/plain/plain.conf", "a = 1", "a = 7");
        copy_tree(&project.path("out"), &project.path("saved"));
        let digests = project.build().digests();
        project.assert_verified();
        let index = fs::read(project.path("out/index.json")).unwrap();
        let before = files_below(&project.path("saved"));
        let bench = Self { project, before, digests, index };
        bench.reset();
        bench
    }

    fn reset(&self) {
        fs::remove_dir_all(self.project.path("out")).unwrap();
        copy_tree(&self.project.path("saved"), &self.project.path("out"));
    }

    /// What must hold at once, however the build ended.
    #[track_caller]
    fn check(&self, what: &str) {
        let now = files_below(&self.project.path("out"));
        for (name, bytes) in &now {
            let file = name.rsplit('/').next().unwrap();
            if name.starts_with("blobs/") && !file.starts_with(".tmp-") {
                assert_eq!(file, project::sha256(bytes), "{what}: a blob is not what its name says");
            }
        }
        for (name, bytes) in self.before.iter().filter(|(name, _)| name.starts_with("blobs/")) {
            assert!(now.get(name) == Some(bytes), "{what}: {name} was touched");
        }
        let index = &now["index.json"];
        assert!(*index == self.before["index.json"] || *index == self.index, "{what}: {index:?}");
        self.project.assert_verified();
    }

    /// And what the next build does.
    #[track_caller]
    fn check_again(&self, what: &str) {
        self.check(what);
        assert_eq!(self.project.build().digests(), self.digests, "{what}");
        assert!(fs::read(self.project.path("out/index.json")).unwrap() == self.index, "{what}");
        self.project.assert_store_is_whole();
        self.project.assert_verified();
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.project.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A build under strace that injects something; `None` when strace cannot.
    fn injected(&self, inject: &str) -> (Option<i32>, Option<i32>, String) {
        let mut command = Command::new("strace");
        command.args(["-f", "-qqq", "-o", "/dev/null", "-e", "signal=none"]);
        let call = inject.split(':').next().unwrap();
        command.args(["-e", &format!("trace={call}"), "-e", &format!("inject={inject}")]);
        command.args([WINDLASS, "build", "--locked", "--jobs", "2"]).current_dir(&self.project.dir);
        clean(&mut command);
        let output = command.output().unwrap();
        let run = Run::from(output.clone());
        assert!(!run.stderr.contains("panicked"), "{inject}: {}", run.stderr);
        (output.status.code(), output.status.signal(), run.stderr)
    }
}

fn interrupt(child: &Child) {
    // It may have ended meanwhile.
    let _ = kill_process(Pid::from_child(child), Signal::INT);
}

/// What the threads of a process have used of processors.
fn processor_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let used = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.filter_map(used).sum())
}

/// Waits until a build has used so much processor time, or has ended; what it has used.
fn progress(child: &mut Child, wanted: Duration) -> Duration {
    let mut used = Duration::ZERO;
    while used < wanted && child.try_wait().unwrap().is_none() {
        used = used.max(processor_time(child.id()));
        std::thread::sleep(Duration::from_micros(100));
    }
    used
}

/// Kills builds at moments of their progress that a seed chooses, until so many were killed before their end.
fn killed_at_moments(wanted: usize) {
    let bench = Bench::new(12);
    let mut child = bench.spawn(&["build", "--locked"]);
    let whole = progress(&mut child, Duration::MAX);
    assert!(child.wait().unwrap().success());
    let mut random = Random::new(seed(1));
    let (mut killed, mut rounds) = (0, 0);
    while killed < wanted {
        rounds += 1;
        assert!(rounds < wanted * 10, "{killed} of {rounds} builds were killed before their end");
        bench.reset();
        // Progress rather than time: it does not depend on what else the machine does.
        let part = u32::try_from(random.below(1000)).unwrap();
        let mut child = bench.spawn(&["build", "--locked"]);
        let used = progress(&mut child, whole * part / 1000);
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().signal() == Some(9));
        bench.check_again(&format!("round {rounds}, killed after {used:?} of {whole:?}"));
    }
    eprintln!("{killed} of {rounds} builds were killed before their end");
}

#[test]
fn killed_at_any_moment() {
    killed_at_moments(20);
}

#[test]
#[ignore = "long: kills 300 builds, about 10 minutes"]
fn long_killed_at_any_moment() {
    killed_at_moments(300);
}

/// Calls that a build makes to give something a name, to make it last, or to make room.
const CALLS: [&str; 5] = ["linkat", "renameat", "fsync", "mkdir", "write"];

#[test]
fn killed_at_each_call_that_names_or_keeps_something() {
    if !have("strace") {
        return;
    }
    let bench = Bench::new(3);
    for call in &CALLS[..3] {
        let mut kills = 0;
        for when in 1..200 {
            bench.reset();
            let (code, signal, stderr) = bench.injected(&format!("{call}:signal=KILL:when={when}"));
            if code == Some(0) {
                break;
            }
            assert_eq!(signal, Some(9), "{call} {when}: {code:?} {stderr}");
            kills += 1;
            bench.check_again(&format!("killed at {call} number {when}"));
        }
        assert!(kills > 0, "a build makes calls of {call}");
    }
}

#[test]
fn each_call_that_names_or_keeps_something_fails() {
    if !have("strace") {
        return;
    }
    let bench = Bench::new(3);
    for (call, error) in
        [("linkat", "ENOSPC"), ("linkat", "EIO"), ("renameat", "EIO"), ("fsync", "EIO"), ("fsync", "ENOSPC")]
    {
        let mut failures = 0;
        for when in 1..200 {
            bench.reset();
            let (code, signal, stderr) = bench.injected(&format!("{call}:error={error}:when={when}"));
            if code == Some(0) {
                break;
            }
            assert_eq!((code, signal), (Some(1), None), "{call} {when} {error}: {stderr}");
            assert!(stderr.contains("could not ") && stderr.contains("out"), "{call} {when}: {stderr}");
            failures += 1;
            bench.check(&format!("{call} number {when} fails with {error}"));
            // A failure tidies up behind itself.
            let left = names_below(&bench.project.path("out"));
            assert!(!left.iter().any(|name| name.contains(".tmp-")), "{call} {when} {error}: {left:?}");
            bench.check_again(&format!("{call} number {when} fails with {error}"));
        }
        assert!(failures > 0, "a build makes calls of {call}");
    }
}

#[test]
fn each_write_fails() {
    if !have("strace") {
        return;
    }
    let bench = Bench::new(3);
    // Progress and remarks go to stderr by write too, and may fail; the counting is per thread.
    for call in ["write", "pwrite64"] {
        for when in 1..40 {
            bench.reset();
            let (code, signal, stderr) = bench.injected(&format!("{call}:error=ENOSPC:when={when}+"));
            assert!(matches!((code, signal), (Some(0 | 1), None)), "{call} {when}: {code:?} {stderr}");
            bench.check(&format!("{call} from number {when} on fails"));
        }
        bench.check_again(call);
    }
}

#[test]
fn interrupted_once_and_twice() {
    // At this level the compressor takes its time, so that the build is still at it.
    let bench = Bench::new(40);
    bench.reset();
    let listing = names_below(&bench.project.path("out"));
    for jobs in ["1", "2", "4"] {
        let mut child = bench.spawn(&["build", "--level", "19", "--jobs", jobs]);
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("reading") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it began");
        }
        interrupt(&child);
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
        assert!(rest.contains("interrupted") && rest.contains("nothing was changed"), "{rest}");
        assert_eq!(names_below(&bench.project.path("out")), listing);
        let now = bench.project.store_files();
        assert!(now.iter().all(|(name, bytes)| bench.before[name] == *bytes), "nothing was changed");
    }
    bench.check_again("interrupted");

    // One who waits for the store's lock cannot look at the first; the second ends it where it is.
    let out = Utf8PathBuf::from_path_buf(bench.project.path("out")).unwrap();
    let held = DirLock::wait(&out, LockKind::Exclusive, &windlass::model::Cancel::new()).unwrap();
    let mut child = bench.spawn(&["build"]);
    let before = sleeps(child.id());
    wait_until("it waits for the lock", || sleeps(child.id()) > before + 20);
    wait_until("it has ended", || {
        interrupt(&child);
        child.try_wait().unwrap().is_some()
    });
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{status}");
    drop(held);
    bench.check_again("interrupted twice");
}

#[test]
fn gc_killed_at_each_removal() {
    if !have("strace") {
        return;
    }
    let bench = Bench::new(1);
    // What is left is what the newest bundles need, whichever removal was the last.
    bench.project.edit("recipes/hot.toml", "[vars]", "[vars]\nmore = 1");
    let newest = bench.project.build().digests();
    fs::remove_dir_all(bench.project.path("saved")).unwrap();
    copy_tree(&bench.project.path("out"), &bench.project.path("saved"));
    for call in ["unlinkat", "renameat", "fsync"] {
        for when in 1..200 {
            bench.reset();
            let mut command = Command::new("strace");
            command.args(["-f", "-qqq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:signal=KILL:when={when}")]);
            command.args([WINDLASS, "gc", "--keep", "1"]).current_dir(&bench.project.dir);
            clean(&mut command);
            let status = command.output().unwrap().status;
            bench.project.assert_verified();
            let again = bench.project.build();
            assert_eq!(again.digests(), newest, "{call} {when}");
            assert_eq!(again.json()["artifacts_read"], 0, "{call} {when}");
            bench.project.run(&["gc", "--keep", "1"]).ok();
            bench.project.assert_store_is_whole();
            bench.project.assert_verified();
            if status.success() {
                assert!(when > 1, "gc makes calls of {call}");
                break;
            }
            assert_eq!(status.signal(), Some(9), "{call} {when}");
        }
    }
}

/// A small file system of its own at out/; gone when dropped.
struct SmallDisk<'a>(&'a Project);

impl<'a> SmallDisk<'a> {
    fn new(project: &'a Project, size: &str) -> Option<Self> {
        let run = Run::of(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "windlass-test"])
                .arg(project.path("out")),
        );
        if run.code != Some(0) {
            skip(&format!("no file system can be mounted here: {}", run.stderr.trim()));
            return None;
        }
        Some(Self(project))
    }

    fn resize(&self, size: &str) {
        let option = format!("remount,size={size}");
        Run::of(Command::new("mount").args(["-o", &option]).arg(self.0.path("out"))).ok();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // A failure leaves a mount behind, which the next run does not meet.
        let _ = Command::new("umount").arg(self.0.path("out")).status();
    }
}

#[test]
fn a_full_disk() {
    if !have("mount") {
        return;
    }
    let project = Project::sized(24);
    let expected = project.build().digests();
    for (name, _) in files_below(&project.path("out")) {
        fs::remove_file(project.path("out").join(name)).unwrap();
    }
    let Some(disk) = SmallDisk::new(&project, "8m") else { return };
    project.json(&["build", "plain"]).ok();
    let before = project.store_files();
    for arguments in [&["build"][..], &["build", "--memory", "64MiB"], &["build", "--jobs", "1"]] {
        let run = project.json(arguments).exits(1);
        let error = &run.json()["error"];
        let said = error.to_string();
        assert!(said.contains("/out/") && said.contains("No space left on device"), "{said}");
        assert!(said.contains("free some space"), "{said}");
        assert!(project.store_files() == before, "out/ is as it was");
        project.assert_store_is_whole();
    }
    project.assert_verified();
    // Each size: some leave room for one layer and not for the next.
    for kilobytes in [9_000, 12_000, 14_000, 16_000, 17_000, 18_000, 19_000, 20_000] {
        disk.resize(&format!("{kilobytes}k"));
        let run = project.json(&["build"]);
        assert!(matches!(run.code, Some(0 | 1)), "{run:?}");
        project.assert_store_is_whole();
        project.assert_verified();
    }
    disk.resize("64m");
    assert_eq!(project.build().digests(), expected);
    project.assert_verified();
}

#[test]
fn files_may_not_grow_beyond_a_limit() {
    let bench = Bench::new(3);
    let mut codes = BTreeMap::new();
    for blocks in (0..24).chain([50, 100, 500, 1000, 2000, 3000, 4000, 6000, 20_000]) {
        bench.reset();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" build --locked"),
            WINDLASS,
        ]);
        clean(command.current_dir(&bench.project.dir));
        let run = Run::of(&mut command);
        assert!(matches!(run.code, Some(0 | 1)), "{blocks}: {run:?}");
        assert!(run.code == Some(0) || run.stderr.contains("File too large"), "{blocks}: {}", run.stderr);
        *codes.entry(run.code).or_insert(0) += 1;
        bench.check(&format!("files of at most {blocks} blocks"));
        bench.project.assert_store_is_whole();
    }
    bench.check_again("files of limited size");
    assert_eq!(codes.len(), 2, "some fail and some do not: {codes:?}");
}

/// Ten roles, each with an artifact of its own and one that all share.
fn ten() -> Project {
    let project = Project::empty();
    project.write("windlass.toml", "schema = 1\nname = \"ten\"\n");
    project.artifact("shared.tar.gz", &project::jdk(4));
    for n in 0..10 {
        let name = format!("own-{n}.tar.gz");
        project.artifact(
            &name,
            &[file("top/a", 0o644, noise(n, 400_000)), file("top/b", 0o755, format!("{n}"))],
        );
        project.write(
            &format!("recipes/role-{n}.toml"),
            &format!(
                "schema = 1\nversion = \"1-{{{{ build }}}}\"\n\n[[unpack]]\nartifact = \"shared.tar.gz\"\ninto = \"shared\"\n\n\
                 [[unpack]]\nartifact = \"{name}\"\ninto = \"own\"\n"
            ),
        );
    }
    project
}

fn all_of(children: Vec<Child>) -> Vec<Run> {
    let wait = |child: Child| Run::from(child.wait_with_output().unwrap());
    children.into_iter().map(wait).map(Run::ok).collect()
}

fn start(project: &Project, arguments: &[&str]) -> Child {
    project.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn ten_builds_at_once_lose_nothing_of_each_other() {
    let expected = {
        let project = ten();
        project.build().digests()
    };
    for _ in 0..3 {
        let project = ten();
        let roles: Vec<String> = (0..10).map(|n| format!("role-{n}")).collect();
        let children = roles.iter().map(|role| start(&project, &["build", role, "--jobs", "2"])).collect();
        all_of(children);
        assert_eq!(project.json(&["ls"]).ok().digests(), expected);
        let lock = project.read("windlass.lock");
        assert_eq!(lock.matches("[[artifact]]").count(), 11, "{lock}");
        let again = project.json(&["build", "--locked"]).ok();
        assert_eq!(again.json()["artifacts_read"], 0, "what each learnt is remembered");
        assert!(again.bundles().values().all(|bundle| bundle["unchanged"] == true));
        project.assert_store_is_whole();
        project.assert_verified();
    }
}

#[test]
fn the_same_role_twice_at_once_is_one_bundle() {
    let project = ten();
    let children = (0..4).map(|_| start(&project, &["build", "role-3", "--format", "json"])).collect();
    let runs = all_of(children);
    assert!(runs.iter().all(|run| run.bundles()["role-3"]["ref"] == "role-3:1-1"));
    let index: Value = serde_json::from_str(&project.read("out/index.json")).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    project.assert_verified();
}

#[test]
fn builds_and_gc_at_once() {
    let project = ten();
    let expected = project.build().digests();
    for round in 0..5 {
        // Something for gc to take, and something for builds to need again.
        for role in 0..10 {
            let recipe = format!("recipes/role-{role}.toml");
            let old = project.read(&recipe);
            project.write(&recipe, &format!("{old}\n[vars]\nround = {round}\n"));
        }
        let builds =
            (0..5).map(|n| start(&project, &["build", &format!("role-{n}"), &format!("role-{}", n + 5)]));
        let gcs = (0..3).map(|_| start(&project, &["gc", "--keep", "1"]));
        all_of(builds.chain(gcs).collect());
        project.assert_verified();
        for role in 0..10 {
            let recipe = format!("recipes/role-{role}.toml");
            let old = project.read(&recipe);
            project.write(&recipe, old.split("\n[vars]").next().unwrap());
        }
    }
    assert_eq!(project.build().digests(), expected);
    project.run(&["gc", "--keep", "1"]).ok();
    assert_eq!(project.json(&["ls"]).ok().digests(), expected);
    project.assert_verified();
    project.assert_store_is_whole();
    let rows = project.json(&["ls"]).ok().json();
    assert!(rows["bundles"].as_array().unwrap().iter().all(|row| text(&row["ref"]).starts_with("role-")));
}
