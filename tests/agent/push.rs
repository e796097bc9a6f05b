//! Pushes: resumed, patched, damaged, hostile, too large for the disk.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::node::{Lab, activation, noise, service};
use crate::support::tools::skip;

fn no_drift(lab: &Lab, release: &str) {
    assert_eq!(lab.done(&json!({ "op": "drift", "role": "web", "release": release }))["drift"], json!([]));
}

#[test]
fn broken_off_anywhere_it_goes_on_where_it_was() {
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    let mut cut = 1;
    let mut kept = 0;
    let received = loop {
        match lab.push(&built, Some(cut)) {
            Ok(received) => break received,
            Err(error) => assert_eq!(error["error"]["kind"], "wire", "{error}"),
        }
        // What arrived whole was kept, so that later cuts reach further.
        let objects = walkdir::WalkDir::new(lab.root.join("objects")).into_iter().map(Result::unwrap);
        let objects: Vec<_> = objects.filter(|entry| entry.file_type().is_file()).collect();
        assert!(objects.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".tmp-")));
        let complete =
            objects.iter().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count();
        assert!(complete >= kept, "{complete} of {kept}");
        kept = complete;
        cut = cut * 3 + 17;
    };
    assert!(kept > 20, "{kept}");
    assert!(received["received"]["reused"].as_u64().unwrap() > 20, "{received}");
    no_drift(&lab, &lab.stage(&built));
}

#[test]
fn a_push_that_lies_is_refused_and_harms_nothing() {
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    let mut refused = 0;
    for n in 0..24usize {
        let outcome = lab.push_changed(&built, None, None, |stream| {
            let at = n * n * 7919 % stream.len();
            // Headers early on, then anything.
            let at = if n < 17 { n } else { at };
            stream[at] ^= 0x41;
        });
        if let Err(error) = outcome {
            assert!(["wire", "digest"].contains(&error["error"]["kind"].as_str().unwrap()), "{error}");
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused}");
    no_drift(&lab, &lab.stage(&built));
}

#[test]
fn a_large_file_travels_as_what_changed() {
    let lab = Lab::new();
    let mut files = service("1.0");
    let one = lab.build("1.0", &files);
    let first = lab.promote(&one);
    let big = files.get_mut("lib/big.bin").unwrap();
    big.1.splice(4_000_000..4_000_003, *b"a small edit in the middle");
    let two = lab.build("2.0", &files);
    let pushed = lab.push_patched(&two, &one).unwrap();
    assert!(pushed["stream"].as_u64().unwrap() < 20_000, "{pushed}");
    let second = lab.stage(&two);
    no_drift(&lab, &first);
    no_drift(&lab, &second);
    // A patch against something that is not what it should be is refused by the digest of what comes out.
    let three = lab.build("3.0", &{
        files.get_mut("lib/big.bin").unwrap().1[77] ^= 1;
        files
    });
    let object = lab.release(&second).join("web/lib/big.bin");
    std::fs::set_permissions(&object, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&object).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"tampered", 100).unwrap();
    assert_eq!(lab.push_patched(&three, &two).unwrap_err()["error"]["kind"], "digest");
    lab.push(&three, None).unwrap();
    no_drift(&lab, &lab.stage(&three));
}

#[test]
fn an_object_that_was_written_to_is_not_used_again() {
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    let first = lab.promote(&built);
    // Through a release, as a careless `echo >>` does; the object is the same inode.
    let path = lab.release(&first).join("web/GREETING-KEY");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let size = path.metadata().unwrap().len();
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"#").unwrap();
    drop(file);
    assert_eq!(path.metadata().unwrap().len(), size);
    let found = lab.done(&json!({ "op": "drift", "role": "web" }));
    assert_eq!(found["drift"], json!([{ "path": "web/GREETING-KEY", "what": "changed" }]));
    let mut request = lab.stage_request(&built);
    request["context"]["vars"]["other"] = json!(1);
    request["context"]["node"]["name"] = json!("n2");
    assert_eq!(lab.call(&request)["error"]["kind"], "incomplete");
    assert_eq!(lab.push(&built, None).unwrap()["missing"], json!(1));
    let second = lab.done(&request)["release"].as_str().unwrap().to_owned();
    no_drift(&lab, &second);
}

#[test]
fn a_bundle_that_was_changed_on_the_disk_is_refused() {
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    lab.push(&built, None).unwrap();
    let dir = lab.root.join("bundles").join(built.digest.hex());
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let refused = lab.call(&lab.stage_request(&built));
        assert_eq!(refused["error"]["kind"], "bundle", "{}: {refused}", path.display());
        // The next push puts it right.
        lab.push(&built, None).unwrap();
        assert!(std::fs::read(&path).unwrap() == good);
    }
    let mut request = lab.stage_request(&built);
    request["role"] = json!("other");
    assert!(lab.call(&request)["error"]["message"].as_str().unwrap().contains("is of role web, not other"));
}

#[test]
fn names_that_shells_and_terminals_stumble_over() {
    let lab = Lab::new();
    let mut files = service("1.0");
    let long = "n".repeat(255);
    for name in [
        "-rf",
        "a b",
        "new\nline",
        "quote'\"",
        "$(touch x)",
        "back\\slash",
        "ünï/çø∂é",
        ".tmp-1-1",
        "a;b|c&d",
        "*",
        &*long,
    ] {
        files.insert(format!("names/{name}"), (0o644, noise(5, 100)));
    }
    let release = lab.promote(&lab.build("1.0", &files));
    no_drift(&lab, &release);
    for (name, _) in files.iter().filter(|(name, _)| !name.starts_with("tmp")) {
        assert!(lab.release(&release).join("web").join(name).is_file(), "{name:?}");
    }
    lab.done(&json!({ "op": "gc", "keep": 1 }));
    no_drift(&lab, &release);
}

/// A small file system of its own; `None` where we may not mount.
struct Small(PathBuf);

impl Small {
    fn new(dir: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(dir).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_changes_nothing_that_runs() {
    let temporary = tempfile::tempdir().unwrap();
    let Some(small) = Small::new(&temporary.path().join("small"), "16m") else {
        return skip("no file system can be mounted here");
    };
    let lab = Lab::with_root(small.0.join("node"));
    let built = lab.build("1.0", &service("1.0"));
    let filler = small.0.join("filler");
    let fill = |left: u64| {
        let free = rustix::fs::statvfs(&small.0).unwrap();
        let size = (free.f_bavail * free.f_frsize).saturating_sub(left);
        std::fs::write(&filler, vec![1; usize::try_from(size).unwrap()]).unwrap();
    };
    fill(5 << 20);
    let refused = lab.push(&built, None).unwrap_err();
    assert_eq!(refused["error"]["kind"], "no-space");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("has room for") && message.contains("this takes"), "{message}");
    std::fs::remove_file(&filler).unwrap();
    let first = lab.promote(&built);
    let two = lab.build("2.0", &service("2.0"));
    let second = lab.stage(&two);

    fill(0);
    let journal = std::fs::read(lab.root.join("roles/web/journal.jsonl")).unwrap();
    let mut kinds = Vec::new();
    let mut request = lab.stage_request(&two);
    request["context"]["node"]["name"] = json!("n2");
    for request in [request, activation(Some(&first), &second, None)] {
        kinds.push(lab.call(&request)["error"]["kind"].clone());
    }
    // A page may be left for a line of the journal; whatever was said is true, and the node is where it was
    // or where it was told to be.
    assert_eq!(kinds[0], "no-space");
    assert!(kinds[1] == "no-space" || kinds[1] == Value::Null, "{kinds:?}");
    let link = std::fs::read_link(lab.root.join("roles/web/current")).unwrap();
    let moved = kinds[1] == Value::Null;
    assert!(link.ends_with(if moved { &second } else { &first }));
    assert!(moved || std::fs::read(lab.root.join("roles/web/journal.jsonl")).unwrap() == journal);
    std::fs::remove_file(&filler).unwrap();
    let back = lab.current().unwrap();
    if back == first {
        lab.done(&activation(Some(&first), &second, None));
    }
    no_drift(&lab, &second);
}
