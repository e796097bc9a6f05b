//! Artifacts that people really use, fetched by name with the package managers' own clients and kept in
//! target/real-artifacts between runs. One that cannot be had is skipped with its reason on standard error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::project::{Run, have, skip};

/// Where artifacts are kept.
fn cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("real-artifacts");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The artifact whose name starts and ends so, if it was fetched before.
fn find(start: &str, end: &str) -> Option<PathBuf> {
    let fits = |name: &str| name.starts_with(start) && name.ends_with(end);
    let names = fs::read_dir(cache()).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| fits(path.file_name().unwrap().to_str().unwrap())).max()
}

/// Whether it was fetched before.
pub(crate) fn has(start: &str, end: &str) -> bool {
    find(start, end).is_some()
}

/// The artifact whose name starts and ends so, fetched by `command` in the cache's folder if it is not there.
pub(crate) fn fetch(start: &str, end: &str, command: &[&str]) -> Option<PathBuf> {
    // A client that hangs on a network that is not there must not hang the tests.
    fetch_within(180, start, end, command)
}

/// The same, within so many seconds.
pub(crate) fn fetch_within(seconds: u32, start: &str, end: &str, command: &[&str]) -> Option<PathBuf> {
    if let Some(path) = find(start, end) {
        return Some(path);
    }
    if !have(command[0]) {
        return None;
    }
    let run = Run::of(Command::new("timeout").arg(seconds.to_string()).args(command).current_dir(cache()));
    let found = find(start, end);
    if found.is_none() {
        let said = format!("{}{}", run.stdout, run.stderr);
        skip(&format!(
            "{start}*{end} could not be fetched: {}",
            said.lines().last().unwrap_or("no word why")
        ));
    }
    found
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
