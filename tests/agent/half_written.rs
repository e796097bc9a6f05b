//! Objects that a killed push left half written are never taken for objects.
//!
//! Small objects get their final name before their content, and count only once their time of change is set, which
//! comes last. Each test plants every object of the next bundle in each state that a kill may leave, and runs a
//! reader of objects over it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use windlass::agent::ObjectId;
use windlass::bundle::Node;
use windlass::model::Digest;

use crate::agent::spare::{conf, inode, large, open_up};
use crate::support::node::{Built, Files, Lab, files_below, noise, service, wait_until};

/// What a kill may leave under an object's name: nothing of it, a part, or all of it but its time.
const STATES: [&str; 3] = ["empty", "part", "whole without its time"];

/// A service of which nothing but its program is the same in two versions; one file is worth a patch.
fn own(version: &str) -> Files {
    let seed = version.bytes().map(u64::from).sum::<u64>();
    let mut files = service(version);
    files.retain(|name, _| !name.starts_with("lib/"));
    for n in 0..12 {
        files.insert(format!("lib/part-{n}"), (0o644, noise(seed * 100 + n, 300)));
    }
    files.insert("lib/tool".to_owned(), (0o755, noise(seed * 100 + 50, 700)));
    files.insert("lib/empty".to_owned(), (0o644, Vec::new()));
    // Common to all versions but for a few bytes.
    let mut big = noise(7, 1_500_000);
    big.splice(700_000..700_000, version.bytes());
    files.insert("lib/big".to_owned(), (0o644, big));
    files
}

/// The contents of a bundle's objects.
fn objects_of(lab: &Lab, built: &Built) -> BTreeMap<ObjectId, Vec<u8>> {
    let mut objects = BTreeMap::new();
    for layer in lab.layers(built.digest) {
        for (at, entry) in layer.toc.entries.iter().enumerate() {
            if let Node::File { mode, digest, .. } = &entry.node {
                let id = ObjectId { digest: *digest, executable: mode & 0o111 != 0 };
                objects.insert(id, layer.read_file(at).unwrap());
            }
        }
    }
    objects
}

fn path_of(lab: &Lab, id: ObjectId) -> PathBuf {
    lab.root.join("objects").join(id.path())
}

fn is_there(lab: &Lab, id: ObjectId) -> bool {
    path_of(lab, id).metadata().is_ok_and(|meta| meta.mtime() == 1)
}

/// Puts a half-written file in an object's place, whatever is there.
fn plant_one(lab: &Lab, id: ObjectId, content: &[u8], state: &str) {
    let path = path_of(lab, id);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&path);
    let written = match state {
        "empty" => &content[..0],
        "part" => &content[..content.len() / 2],
        _ => content,
    };
    fs::write(&path, written).unwrap();
    let mode = if id.executable { 0o555 } else { 0o444 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Plants every object that the node lacks, the states in turn, beginning with `round`; how many.
fn plant(lab: &Lab, built: &Built, round: usize) -> usize {
    let objects = objects_of(lab, built);
    let lacking = objects.iter().filter(|(id, _)| !is_there(lab, **id));
    let lacking = lacking.enumerate();
    lacking.map(|(n, (id, content))| plant_one(lab, *id, content, STATES[(n + round) % STATES.len()])).count()
}

/// Each object is what its name says, and counts as one.
#[track_caller]
fn objects_are_whole(lab: &Lab, what: &str) {
    let dir = lab.root.join("objects");
    for (path, bytes) in files_below(&dir) {
        let name = path.strip_prefix(&dir).unwrap().to_str().unwrap().replace('/', "");
        if name.starts_with('.') {
            continue;
        }
        assert_eq!(Digest::of(&bytes).hex(), name.trim_end_matches(".x"), "{what}");
        assert_eq!(path.metadata().unwrap().mtime(), 1, "{what}: {name}");
    }
}

/// A release holds what its bundle says, by digest.
#[track_caller]
fn complete(lab: &Lab, built: &Built, release: &str, what: &str) {
    let drift = lab.done(&json!({ "op": "drift", "role": "web", "release": release }));
    assert_eq!(drift["drift"], json!([]), "{what}");
    let mut files = 0;
    for layer in lab.layers(built.digest) {
        for entry in &layer.toc.entries {
            let path = entry.path.as_str();
            let Node::File { digest, .. } = &entry.node else { continue };
            if path.starts_with("web/lib/") || path.starts_with("web/many/") {
                let found = fs::read(lab.release(release).join(path)).unwrap();
                assert_eq!(Digest::of(&found), *digest, "{what}: {path}");
                files += 1;
            }
        }
    }
    assert!(files > 10, "{what}: {files}");
}

/// The object of one of a bundle's files.
fn object_at(lab: &Lab, built: &Built, path: &str) -> (ObjectId, Vec<u8>) {
    let content = lab.layers(built.digest).iter().find_map(|layer| {
        let at = layer.toc.entries.iter().position(|entry| entry.path.as_str() == path)?;
        Some(layer.read_file(at).unwrap())
    });
    let content = content.unwrap();
    (ObjectId { digest: Digest::of(&content), executable: false }, content)
}

#[test]
fn a_push_sends_them_again_and_staging_waits_for_that() {
    let lab = Lab::new();
    lab.promote(&lab.build("1.0", &own("1.0")));
    for (round, state) in STATES.iter().enumerate() {
        let version = format!("{}.0", round + 2);
        let built = lab.build(&version, &own(&version));
        // The bundle is known, its objects are not there: the push was killed.
        lab.push(&built, Some(1)).unwrap_err();
        let planted = plant(&lab, &built, round);
        assert!(planted > 14, "{planted}");
        let refused = lab.call(&lab.stage_request(&built));
        assert_eq!(refused["error"]["kind"], "incomplete", "{state}: {refused}");
        let pushed = lab.push(&built, None).unwrap();
        // Empty contents are not asked for.
        let empty = objects_of(&lab, &built).values().filter(|content| content.is_empty()).count();
        assert!(pushed["missing"].as_u64().unwrap() + empty as u64 >= planted as u64, "{pushed}");
        objects_are_whole(&lab, state);
        let release = lab.stage(&built);
        complete(&lab, &built, &release, state);
    }
}

#[test]
fn a_spare_does_not_bring_them_into_a_release() {
    let lab = Lab::new();
    let first = lab.build("1.0", &large("1.0", "a"));
    let (name, _) = lab.stage_with_spare(&first);
    for (round, state) in STATES.iter().enumerate() {
        // An object of the release that the spare was made of is half written, and the spare has that very file.
        let path = format!("web/many/{round}/{round}/{round}.txt");
        let (id, content) = object_at(&lab, &first, &path);
        plant_one(&lab, id, &content, state);
        let spare = lab.release(&lab.spares()[0]);
        open_up(&spare);
        fs::remove_file(spare.join(&path)).unwrap();
        fs::hard_link(path_of(&lab, id), spare.join(&path)).unwrap();
        // And so are all of the next bundle that are new.
        conf(&lab, state);
        let mut files = large("1.0", "a");
        for n in 0..30 {
            files.insert(format!("lib/new-{n}"), (0o644, noise(500 + n + 100 * round as u64, 200)));
        }
        let next = lab.build(&format!("{}.0", round + 2), &files);
        assert!(plant(&lab, &next, round) > 30);
        let taken = inode(&spare);
        let (release, _) = lab.stage_with_spare(&next);
        assert_eq!(inode(&lab.release(&release)), taken, "{state}: the spare was not taken");
        complete(&lab, &next, &release, state);
        objects_are_whole(&lab, state);
    }
    // The first release never had them: it has the files that were there before.
    complete(&lab, &first, &name, "the first release");
}

#[test]
fn a_spare_that_was_made_of_them_is_mended() {
    let lab = Lab::new();
    let first = lab.build("1.0", &large("1.0", "a"));
    let (id, content) = object_at(&lab, &first, "web/many/3/3/3.txt");
    // The spare is made a second after staging, of whatever has the objects' names then: unless this machine takes
    // longer for planting one.
    let spare = (0..20).find_map(|_| {
        lab.push(&first, None).unwrap();
        let mut session = lab.session();
        let staged = session.ask(&lab.stage_request(&first));
        plant_one(&lab, id, &content, "part");
        let name = format!(".spare-{}", staged["done"]["release"].as_str().unwrap());
        wait_until("the spare is made", || lab.spares() == [name.clone()]);
        let spare = lab.release(&name);
        let linked = inode(&spare.join("web/many/3/3/3.txt")) == inode(&path_of(&lab, id));
        if !linked {
            open_up(&spare);
            fs::remove_dir_all(&spare).unwrap();
        }
        linked.then_some(spare)
    });
    let taken = inode(&spare.expect("a spare of a half-written object"));
    conf(&lab, "next");
    let next = lab.build("1.0", &large("1.0", "a"));
    let (release, _) = lab.stage_with_spare(&next);
    assert_eq!(inode(&lab.release(&release)), taken);
    complete(&lab, &next, &release, "after it");
    objects_are_whole(&lab, "after it");
}

#[test]
fn a_patch_is_not_made_of_them() {
    let lab = Lab::new();
    let first = lab.build("1.0", &own("1.0"));
    let release = lab.promote(&first);
    let (id, content) = object_at(&lab, &first, "web/lib/big");
    for (round, state) in STATES.iter().enumerate() {
        plant_one(&lab, id, &content, state);
        // What controllers ask before they send a patch.
        let asked = json!({ "op": "have", "objects": [{ "digest": id.digest, "size": content.len() }] });
        assert_eq!(lab.done(&asked)["missing"], json!([0]), "{state}");
        let version = format!("{}.0", round + 2);
        let next = lab.build(&version, &own(&version));
        plant(&lab, &next, round);
        // A controller that sends one all the same is refused, unless the content is right.
        match lab.push_patched(&next, &first) {
            Ok(_) => assert_eq!(*state, "whole without its time"),
            Err(refused) => {
                assert_ne!(*state, "whole without its time", "{refused}");
                assert_eq!(refused["error"]["kind"], "digest", "{refused}");
                lab.push(&next, None).unwrap();
            }
        }
        complete(&lab, &next, &lab.stage(&next), state);
        complete(&lab, &first, &release, state);
    }
    lab.push(&first, None).unwrap();
    objects_are_whole(&lab, "after it");
}

#[test]
fn nothing_is_healed_from_them() {
    let lab = Lab::new();
    let built = lab.build("1.0", &own("1.0"));
    let release = lab.promote(&built);
    let tree = lab.release(&release).join("web/lib");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
    for state in STATES {
        for name in ["part-1", "big"] {
            let (id, content) = object_at(&lab, &built, &format!("web/lib/{name}"));
            plant_one(&lab, id, &content, state);
            let _ = fs::remove_file(tree.join(name));
        }
        let healed = lab.done(&json!({ "op": "heal", "role": "web" }));
        let left: Vec<&str> =
            healed["left"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
        if state == "whole without its time" {
            assert_eq!(left, [""; 0], "{healed}");
        } else {
            assert_eq!(left, ["web/lib/big", "web/lib/part-1"], "{state}: {healed}");
            assert!(!tree.join("big").exists() && !tree.join("part-1").exists(), "{state}");
            assert!(healed["left"][0]["why"].as_str().unwrap().contains("push the bundle again"), "{healed}");
        }
        assert_eq!(lab.push(&built, None).unwrap()["missing"], json!(2), "{state}");
        lab.done(&json!({ "op": "heal", "role": "web" }));
        complete(&lab, &built, &release, state);
        objects_are_whole(&lab, state);
    }
}

/// Leaves the marker of a process that added objects.
fn marker(lab: &Lab, boot: &str, ended: bool) -> PathBuf {
    let path = lab.root.join("objects/.unsynced-1-0");
    fs::write(&path, boot).unwrap();
    let mode = if ended { 0o700 } else { 0o600 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn set_time(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn after_a_crash_of_the_machine_or_the_process_they_are_sent_again() {
    let lab = Lab::new();
    lab.promote(&lab.build("1.0", &own("1.0")));
    let this_boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    for (round, (boot, ended)) in
        [("another boot", true), ("another boot", false), (&*this_boot, false)].into_iter().enumerate()
    {
        let what = format!("{boot}, its process ended in order: {ended}");
        let version = format!("{}.0", round + 2);
        let built = lab.build(&version, &own(&version));
        let marker = marker(&lab, boot, ended);
        // The objects are younger than the marker.
        set_time(&marker, SystemTime::now() - Duration::from_mins(1));
        let planted = plant(&lab, &built, round);
        // Of one, a power cut left the size and the time, but not the content.
        let torn = (boot != this_boot).then(|| {
            let (id, content) = object_at(&lab, &built, "web/lib/part-3");
            plant_one(&lab, id, &vec![0; content.len()], "whole without its time");
            set_time(&path_of(&lab, id), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
            id
        });
        assert!(torn.is_none_or(|id| is_there(&lab, id)));
        let pushed = lab.push(&built, None).unwrap();
        let empty = objects_of(&lab, &built).values().filter(|content| content.is_empty()).count();
        assert!(pushed["missing"].as_u64().unwrap() + empty as u64 >= planted as u64, "{what}: {pushed}");
        objects_are_whole(&lab, &what);
        complete(&lab, &built, &lab.stage(&built), &what);
        // Staging syncs: nothing is in doubt any more.
        let markers = fs::read_dir(lab.root.join("objects")).unwrap();
        let markers =
            markers.filter(|one| one.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(markers.count(), 0, "{what}");
    }
}

#[test]
fn gc_removes_them() {
    let lab = Lab::new();
    let first = lab.build("1.0", &own("1.0"));
    let release = lab.promote(&first);
    let next = lab.build("2.0", &own("2.0"));
    // What only staging needed goes first.
    lab.done(&json!({ "op": "gc", "keep": 0 }));
    let planted = plant(&lab, &next, 0);
    let collected = lab.done(&json!({ "op": "gc", "keep": 0 }));
    assert_eq!(collected["objects"], json!(planted), "{collected}");
    objects_are_whole(&lab, "after gc");
    complete(&lab, &first, &release, "after gc");
    assert_eq!(lab.status()["problem"], Value::Null);
}
