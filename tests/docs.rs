//! What the documents point at is there: files, and the tests that README.md names for its promises.

use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in ["", "docs", "install"] {
        for entry in fs::read_dir(repository().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The anchor that a heading gets: lower case, dashes for spaces, no other punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars();
    kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let found = fs::read_to_string(&target).is_ok_and(|text| {
                heading.is_empty()
                    || text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
            });
            if !found {
                problems.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_promise_names_tests_that_exist() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let rows = readme.lines().skip_while(|line| *line != "| promise | test |").skip(2);
    let mut named = 0;
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cell = row.trim_matches('|').split('|').nth(1).unwrap();
        let mut text = None;
        for name in cell.split('`').skip(1).step_by(2) {
            if name.contains('.') {
                text = fs::read_to_string(repository().join(name)).ok();
                if text.is_none() {
                    crate::support::tools::skip(&format!(
                        "the promises that {name} proves: there is no such file"
                    ));
                }
            } else if text.is_some() {
                let found = text.as_deref().is_some_and(|text| text.contains(&format!("fn {name}(")));
                assert!(found, "{row}\nthere is no test {name}");
                named += 1;
            }
        }
    }
    assert!(named > 10, "only {named} tests are named");
}

#[test]
fn what_goes_wrong_elsewhere_names_tests_that_exist() {
    let mut code = String::new();
    for dir in ["src", "tests"] {
        for entry in walkdir::WalkDir::new(repository().join(dir)) {
            let path = entry.unwrap().into_path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                code += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let text = fs::read_to_string(repository().join("docs/reliability.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| what went wrong elsewhere")).skip(2);
    let mut named = 0;
    for row in rows.take_while(|line| line.starts_with('|')) {
        for name in row.split('`').skip(1).step_by(2) {
            let is_test = name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_test && name != "max_unavailable" {
                assert!(code.contains(&format!("fn {name}(")), "{row}\nthere is no test {name}");
                named += 1;
            } else if Path::new(name).extension().is_some_and(|extension| extension == "rs") {
                assert!(repository().join(name).exists(), "{row}\nthere is no {name}");
            }
        }
    }
    assert!(named > 20, "only {named} tests are named");
}
