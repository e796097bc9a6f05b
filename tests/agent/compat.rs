//! What earlier versions wrote is read: the files in `tests/fixtures/node-1`, which are never edited.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use camino::Utf8Path;
use serde_json::{Value, json};
use windlass::agent::supervise::Unit;
use windlass::agent::{Entry, ReleaseRecord};

use crate::support::node::Lab;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/node-1")
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_journal_of_format_1_is_read() {
    let text = std::fs::read_to_string(fixtures().join("journal.jsonl")).unwrap();
    let mut kinds = BTreeSet::new();
    for line in text.lines() {
        let entry: Entry = serde_json::from_str(line).unwrap();
        // Nothing in it was passed over.
        let (read, written): (Value, Value) =
            (serde_json::to_value(&entry).unwrap(), serde_json::from_str(line).unwrap());
        assert_eq!(read, written);
        kinds.insert(written["record"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds.len(), 18, "every kind of format 1: {kinds:?}");

    let lab = Lab::new();
    let role = lab.root.join("roles/web");
    std::fs::create_dir_all(role.join("releases/3-3.0-1")).unwrap();
    for dir in ["", "roles", "roles/web"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(lab.root.join(dir), mode).unwrap();
    }
    for name in ["3-3.0-1.json", "3-3.0-1.service"] {
        std::fs::copy(fixtures().join(name), role.join("releases").join(name)).unwrap();
    }
    std::fs::copy(fixtures().join("journal.jsonl"), role.join("journal.jsonl")).unwrap();
    std::os::unix::fs::symlink("releases/3-3.0-1", role.join("current")).unwrap();
    let status = lab.status();
    let releases: Vec<&str> =
        status["staged"].as_array().unwrap().iter().map(|one| one["release"].as_str().unwrap()).collect();
    assert_eq!(releases, ["1-1.0-1", "3-3.0-1"]);
    assert_eq!(
        (&status["release"], &status["prior"], &status["kind"], &status["problem"]),
        (&json!("3-3.0-1"), &json!("1-1.0-1"), &json!("process"), &Value::Null),
        "{status}"
    );
    // It is gone on with.
    lab.done(&json!({ "op": "mark-bad", "role": "web", "release": "1-1.0-1", "why": "to see" }));
    assert_eq!(lab.status()["bad"][0]["release"], "1-1.0-1");
}

#[test]
fn release_records_and_services_of_format_1_are_read() {
    let path = |name: &str| Utf8Path::from_path(&fixtures().join(name)).unwrap().to_owned();
    let record = ReleaseRecord::read(&path("3-3.0-1.json")).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap(), json_of(&fixtures().join("3-3.0-1.json")));
    // Of before texts were kept masked.
    let older = ReleaseRecord::read(&path("1-1.0-1.json")).unwrap();
    assert_eq!((older.rendered.len(), older.masked.len()), (2, 0));
    let unit = Unit::read(&path("3-3.0-1.service")).unwrap().unwrap();
    assert_eq!(serde_json::to_value(&unit).unwrap(), json_of(&fixtures().join("3-3.0-1.service")));
}
