//! Artifacts that people really use, fetched by name with the package managers' own clients and kept in
//! target/real-artifacts between runs. A test that cannot get one is reported as skipped, with the client's words.
//!
//! Tests of several processes may want the same artifact at once: one of them fetches it under a lock, into a folder
//! of its own, and renames the result. What has an artifact's name is therefore complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::project::{Run, have, skip};

/// Where artifacts are kept.
fn cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("real-artifacts");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The artifact in a folder whose name starts with `start` and ends with `end`.
fn find(folder: &Path, start: &str, end: &str) -> Option<PathBuf> {
    let fits = |name: &str| name.starts_with(start) && name.ends_with(end);
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| fits(path.file_name().unwrap().to_str().unwrap())).max()
}

/// Takes a lock of the cache, which is held until the file is dropped.
fn lock(name: &str) -> File {
    let path = cache().join(format!(".{name}.lock"));
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    file.lock().unwrap();
    file
}

/// Whether an artifact is in the cache.
pub(crate) fn has(start: &str, end: &str) -> bool {
    find(&cache(), start, end).is_some()
}

/// Returns the artifact whose name starts with `start` and ends with `end`.
///
/// If the cache lacks it, `command` runs in an empty folder and has to leave it there.
pub(crate) fn fetch(start: &str, end: &str, command: &[&str]) -> Option<PathBuf> {
    // A client that hangs without a network must not hang the tests.
    fetch_within(180, start, end, command)
}

/// As [`fetch`], with a limit of so many seconds.
pub(crate) fn fetch_within(seconds: u32, start: &str, end: &str, command: &[&str]) -> Option<PathBuf> {
    let cache = cache();
    if let Some(path) = find(&cache, start, end) {
        return Some(path);
    }
    if !have(command[0]) {
        return None;
    }
    let _artifact = lock(&format!("{start}{end}"));
    // Several Mavens would write to one local repository, which it does not lock.
    let _maven = command.iter().any(|word| *word == "mvn" || word.contains("mvn ")).then(|| lock("mvn"));
    if let Some(path) = find(&cache, start, end) {
        return Some(path);
    }
    let folder = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&cache).unwrap();
    let run =
        Run::of(Command::new("timeout").arg(seconds.to_string()).args(command).current_dir(folder.path()));
    let Some(found) = find(folder.path(), start, end).filter(|_| run.code == Some(0)) else {
        skip(&format!("{start}*{end} could not be fetched: {}", last_words(&run, seconds, command[0])));
        return None;
    };
    let path = cache.join(found.file_name().unwrap());
    fs::rename(found, &path).unwrap();
    Some(path)
}

/// What a client that failed said: Maven's and pip's first error, or the last two lines of others.
fn last_words(run: &Run, seconds: u32, client: &str) -> String {
    let said = format!("{}\n{}", run.stdout, run.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let error = lines.iter().position(|line| line.starts_with("[ERROR] ") || line.starts_with("ERROR: "));
    let words = match error {
        Some(at) => lines[at].to_owned(),
        None => lines[lines.len().saturating_sub(2)..].join(" / "),
    };
    match run.code {
        // `timeout` ends so.
        Some(124) => format!("{client} did not end within {seconds} s: {words}"),
        Some(code) => format!("{client} exited with {code}: {words}"),
        None => format!("{client} was killed: {words}"),
    }
}

/// Fetches from the Java registry: `group:name:version:extension[:classifier]`.
pub(crate) fn maven(coordinates: &str) -> Option<PathBuf> {
    let parts: Vec<&str> = coordinates.split(':').collect();
    let classifier = parts.get(4).map_or(String::new(), |classifier| format!("-{classifier}"));
    let name = format!("{}-{}{classifier}.{}", parts[1], parts[2], parts[3]);
    let artifact = format!("-Dartifact={coordinates}");
    let goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";
    fetch(
        &name,
        "",
        &["mvn", "-q", "-B", goal, &artifact, "-DoutputDirectory=.", "-Dmdep.useBaseVersion=true"],
    )
}

#[test]
fn an_artifact_is_fetched_once_and_a_failure_is_named() {
    let start = format!("test-{}-", std::process::id());
    let script = format!("echo once >>../{start}runs.log; sleep 0.2; echo content >{start}1.txt");
    let fetchers = [(); 3].map(|()| {
        let (start, script) = (start.clone(), script.clone());
        std::thread::spawn(move || fetch(&start, ".txt", &["sh", "-c", &script]).unwrap())
    });
    let found = fetchers.map(|fetcher| fetcher.join().unwrap());
    let log = cache().join(format!("{start}runs.log"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "once\n");
    assert!(found.iter().all(|path| fs::read_to_string(path).unwrap() == "content\n"));

    let fails = Run::of(
        Command::new("sh")
            .args(["-c", "echo said; echo 'ERROR: no such thing' >&2; echo 'a hint' >&2; exit 7"]),
    );
    assert_eq!(last_words(&fails, 9, "pip"), "pip exited with 7: ERROR: no such thing");
    for path in [&found[0], &log, &cache().join(format!(".{start}.txt.lock"))] {
        fs::remove_file(path).unwrap();
    }
}
