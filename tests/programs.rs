//! tests/programs lists every program that the tests start.
//!
//! `tests/run` gives tests a PATH with the listed programs alone, which finds those that a shell script starts. Here the
//! sources are read, which finds the rest also where `tests/run` is not used.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The programs named in `tests/programs`.
fn listed() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let programs: Vec<&str> =
        lines.map(|line| line.split_once(' ').expect("program and package").0).collect();
    let mut sorted = programs.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(programs, sorted, "sorted, each once");
    programs.into_iter().map(str::to_owned).collect()
}

/// What stands between `before` and the next quotation mark, wherever `before` stands.
fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn every_program_that_the_tests_start_is_listed() {
    let listed = listed();
    let mut missing = BTreeSet::new();
    for entry in walkdir::WalkDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")) {
        let path = entry.unwrap().into_path();
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("tests/programs.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for program in ["Command::new(\"", "have(\"", "StdCommand::new(\""]
            .iter()
            .flat_map(|before| quoted(&text, before))
        {
            let name = program.rsplit('/').next().unwrap();
            if !listed.contains(name) {
                missing.insert(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "not in tests/programs: {missing:#?}");
}

#[test]
fn tests_see_the_listed_programs_alone() {
    // Set by tests/run, not where a test is run by hand.
    let Ok(folder) = std::env::var("WINDLASS_TOOL_PATH") else { return };
    assert_eq!(std::env::var("PATH").unwrap(), folder);
    let listed = listed();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(listed.contains(&name), "{name}");
    }
}
