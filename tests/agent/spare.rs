//! What is made ahead for the next release, and that it is believed in nothing.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::support::node::{BACKSTOP, Built, Files, Lab, service};

/// A service with as many files as make a spare worth it; those of `kind` are of that version alone.
pub(crate) fn large(version: &str, kind: &str) -> Files {
    let mut files = service(version);
    for n in 0..2_100 {
        files.insert(format!("many/{}/{}/{n}.txt", n % 7, n % 61), (0o644, format!("{kind} {n}").into()));
    }
    files
}

pub(crate) fn conf(lab: &Lab, line: &str) {
    std::fs::write(lab.dir.join("conf/web/extra.conf"), line).unwrap();
}

/// Lets others than root change a tree.
pub(crate) fn open_up(tree: &Path) {
    for entry in walkdir::WalkDir::new(tree) {
        let entry = entry.unwrap();
        if entry.file_type().is_dir() {
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

pub(crate) fn inode(path: &Path) -> u64 {
    path.symlink_metadata().unwrap().ino()
}

fn assert_whole(lab: &Lab, release: &str) {
    let drift = lab.done(&json!({ "op": "drift", "role": "web", "release": release }));
    assert_eq!(drift["drift"], json!([]));
}

#[test]
fn the_next_release_is_made_of_the_spare_whatever_happened_to_that() {
    let lab = Lab::new();
    let (first, spare) = lab.stage_with_spare(&lab.build("1.0", &large("1.0", "a")));
    let web = spare.join("web");
    assert!(!web.join("conf/site.conf").exists() && !web.join("data").exists() && !web.join("tmp").exists());
    let many = web.join("many");
    open_up(&spare);
    assert_eq!(inode(&many.join("3/3/3.txt")), inode(&lab.release(&first).join("web/many/3/3/3.txt")));

    std::fs::remove_file(many.join("0/0/0.txt")).unwrap();
    std::fs::remove_file(many.join("1/1/1.txt")).unwrap();
    std::fs::write(many.join("1/1/1.txt"), "a 1").unwrap();
    std::fs::remove_file(many.join("2/2/2.txt")).unwrap();
    symlink("/etc/passwd", many.join("2/2/2.txt")).unwrap();
    std::fs::write(many.join("3/more.txt"), "").unwrap();
    std::fs::create_dir_all(many.join("3/more/below")).unwrap();
    std::fs::create_dir_all(web.join("data/below")).unwrap();
    std::fs::create_dir_all(web.join("tmp/below")).unwrap();
    std::fs::write(web.join("conf/site.conf"), "{}").unwrap();
    std::fs::rename(many.join("4/4"), lab.dir.join("elsewhere")).unwrap();
    symlink(lab.dir.join("elsewhere"), many.join("4/4")).unwrap();
    std::fs::rename(many.join("5"), many.join("6/moved")).unwrap();
    symlink("6/moved", many.join("5")).unwrap();
    std::fs::remove_dir_all(many.join("6/6")).unwrap();
    std::fs::write(many.join("6/6"), "").unwrap();
    std::fs::remove_file(web.join("VERSION")).unwrap();
    std::fs::create_dir(web.join("VERSION")).unwrap();
    std::fs::remove_file(web.join("run.sh")).unwrap();
    std::fs::hard_link(web.join("GREETING-KEY"), web.join("run.sh")).unwrap();
    std::fs::set_permissions(many.join("6/8"), std::fs::Permissions::from_mode(0o777)).unwrap();

    let taken = inode(&spare);
    conf(&lab, "1");
    let (second, next) = lab.stage_with_spare(&lab.build("1.0", &large("1.0", "a")));
    assert_eq!(inode(&lab.release(&second)), taken, "it was not taken");
    assert_whole(&lab, &second);
    assert_whole(&lab, &first);
    let elsewhere = std::fs::read_dir(lab.dir.join("elsewhere")).unwrap().count();
    assert!(elsewhere > 0, "a link was followed");
    let release = lab.release(&second).join("web");
    assert_eq!(std::fs::read_to_string(release.join("tmp/seed")).unwrap(), "seeded");
    assert!(!release.join("tmp/below").exists());
    // And so on, with the release that is the newest now.
    conf(&lab, "2");
    let taken = inode(&next);
    let third = lab.stage(&lab.build("1.0", &large("1.0", "a")));
    assert_eq!(inode(&lab.release(&third)), taken);
    assert_whole(&lab, &third);
    assert_eq!(lab.spares(), Vec::<String>::new(), "who does not stay makes none");
}

#[test]
fn a_spare_that_fits_badly_is_left_and_replaced() {
    let lab = Lab::new();
    let (_, spare) = lab.stage_with_spare(&lab.build("1.0", &large("1.0", "a")));
    let spare = inode(&spare);
    let (second, _) = lab.stage_with_spare(&lab.build("2.0", &large("2.0", "b")));
    assert_ne!(inode(&lab.release(&second)), spare);
    assert_whole(&lab, &second);
    // What is small is made at once.
    let third = lab.stage(&lab.build("3.0", &service("3.0")));
    assert_whole(&lab, &third);
    assert_eq!(lab.spares(), [format!(".spare-{second}")]);
}

#[test]
fn gc_takes_a_spare_with_its_release() {
    let lab = Lab::new();
    let built = lab.build("1.0", &large("1.0", "a"));
    let (first, _) = lab.stage_with_spare(&built);
    assert_eq!(lab.promote(&built), first);
    for version in ["2.0", "3.0"] {
        lab.promote(&lab.build(version, &service(version)));
    }
    assert_eq!(lab.spares(), [format!(".spare-{first}")]);
    let plan = lab.done(&json!({ "op": "gc", "keep": 0, "dry_run": true }));
    assert!(plan["objects"].as_u64().unwrap() >= 2_100, "{plan}");
    assert_eq!(lab.spares().len(), 1);
    let done = lab.done(&json!({ "op": "gc", "keep": 0 }));
    assert_eq!((&plan["objects"], &plan["bytes"]), (&done["objects"], &done["bytes"]));
    assert_eq!(lab.spares(), Vec::<String>::new());
}

#[test]
fn what_killed_ones_left_goes_and_nobody_waits_for_one() {
    let lab = Lab::new();
    let big = |line: &str| -> Built {
        conf(&lab, line);
        lab.build("1.0", &large("1.0", "a"))
    };
    lab.stage_with_spare(&big("first"));
    let releases = lab.root.join("roles/web/releases");
    for round in 0..8u64 {
        for spare in lab.spares() {
            open_up(&lab.release(&spare));
            std::fs::remove_dir_all(lab.release(&spare)).unwrap();
        }
        let mut agent = lab.node(&["call"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Told of its end before a second has passed it makes none; it is killed while it makes one.
        let request = format!("{}\n", lab.stage_request(&big("first")));
        agent.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
        let until = Instant::now() + BACKSTOP;
        while lab.spares().is_empty() {
            assert!(Instant::now() < until, "none is made");
        }
        std::thread::sleep(Duration::from_millis(round * 3));
        agent.kill().unwrap();
        agent.wait().unwrap();
        std::fs::create_dir_all(releases.join(".spare-99-gone/web")).unwrap();
        std::fs::create_dir_all(releases.join(".spare-of no release/web")).unwrap();
        let next = lab.stage(&big(&format!("round {round}")));
        assert_whole(&lab, &next);
        let left = lab.spares();
        assert!(
            left.iter().all(|name| name.starts_with(".spare-") && !name.contains(['g', ' '])),
            "{left:?}"
        );
    }
    // While somebody else makes or takes one, a release is made without, and what is being made stays.
    let (_, spare) = lab.stage_with_spare(&big("second"));
    let spare = inode(&spare);
    let lock = std::fs::File::open(&releases).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    std::fs::create_dir(releases.join(".linking")).unwrap();
    let last = lab.stage(&big("last"));
    assert_ne!(inode(&lab.release(&last)), spare);
    assert!(releases.join(".linking").exists());
}
