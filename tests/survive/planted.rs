//! What another user of the node may plant, and that it is refused or not followed.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use crate::support::bench::Bench;
use crate::support::cluster::text;

/// Does something as `nobody`.
fn as_nobody(script: &str) {
    let out = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-eo", "pipefail", "-c", script])
        .output()
        .unwrap();
    assert!(out.status.success(), "{script}: {}", text(&out));
}

fn can_be_nobody() -> bool {
    let can = rustix::process::geteuid().is_root()
        && Command::new("setpriv").arg("--version").output().is_ok_and(|out| out.status.success());
    if !can {
        crate::support::tools::skip("what others plant: only root can be nobody (setpriv)");
    }
    can
}

fn mode(path: &Path, bits: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
}

/// `windlass node status`, with a root.
fn status(root: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(["node", "status", "--root"]).arg(root).output().unwrap()
}

fn refused(out: &Output, word: &str) {
    let said = text(out);
    assert!(!out.status.success() && said.contains(word), "{:?} {said}", out.status.code());
}

#[test]
fn a_root_below_what_others_can_change_is_refused() {
    if !can_be_nobody() {
        return;
    }
    let bench = Bench::new();
    let root = bench.lab.root.clone();
    let open = bench.lab.dir.join("open");
    std::fs::create_dir(&open).unwrap();
    for dir in [&bench.lab.dir, &open] {
        mode(dir, 0o755);
    }
    assert_eq!(root.metadata().unwrap().mode() & 0o777, 0o700);
    assert!(status(&root).status.success());

    // A link of somebody else's, as the root and above it.
    mode(&open, 0o1777);
    as_nobody(&format!(
        "ln -s {} {}/root; ln -s {} {}/above",
        root.display(),
        open.display(),
        bench.lab.dir.display(),
        open.display()
    ));
    refused(&status(&open.join("root")), "nobody");
    refused(&status(&open.join("above/node")), "nobody");
    // The same, of ours.
    symlink(&bench.lab.dir, open.join("ours")).unwrap();
    assert!(status(&open.join("ours/node")).status.success());
    // A root that is not there yet is not made by way of such a link.
    let mut stage = bench.lab.node(&["lock"]);
    stage = {
        let mut command = Command::new(stage.get_program());
        command.args(["node", "lock", "--root"]).arg(open.join("above/new"));
        command
    };
    refused(&stage.stdin(std::process::Stdio::null()).output().unwrap(), "nobody");
    assert!(!bench.lab.dir.join("new").exists());

    // A folder above it in which others can rename what is ours.
    let inner = open.join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::rename(&root, inner.join("node")).unwrap();
    mode(&inner, 0o777);
    refused(&status(&inner.join("node")), "can be written to by others");
    // With the sticky bit, as /tmp has it, they cannot.
    mode(&inner, 0o1777);
    assert!(status(&inner.join("node")).status.success());
    mode(&inner, 0o755);
    for (bits, good) in
        [(0o777, false), (0o770, false), (0o707, false), (0o750, true), (0o711, true), (0o700, true)]
    {
        mode(&inner.join("node"), bits);
        assert_eq!(status(&inner.join("node")).status.success(), good, "{bits:o}");
    }
    std::fs::rename(inner.join("node"), &root).unwrap();
}

#[test]
fn what_a_service_plants_where_it_may_write_is_not_followed() {
    if !can_be_nobody() {
        return;
    }
    let bench = Bench::new();
    let outside = bench.lab.dir.join("precious");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "as it was").unwrap();
    let role = bench.lab.root.join("roles/web");
    let places: Vec<PathBuf> = vec![
        role.join("shared/data"),
        role.join("shared/logs"),
        bench.lab.release(bench.name(1)).join("web/tmp"),
        bench.lab.release(bench.name(5)).join("web/tmp"),
    ];
    // As if they were a service's that runs as nobody: it can come there, and write.
    for dir in [&bench.lab.dir, &bench.lab.root, &bench.lab.root.join("roles"), &role, &role.join("releases")]
    {
        mode(dir, 0o711);
    }
    mode(&role.join("shared"), 0o711);
    for place in &places {
        std::os::unix::fs::chown(place, Some(65534), Some(65534)).unwrap();
        mode(place, 0o750);
        let at = place.display();
        as_nobody(&format!(
            "cd {at}; rm -rf ./*; ln -s {o} dir; ln -s {o}/file file; ln -s {o}/file web.log; ln -s {o}/file .tmp-1-1; \
             mkdir deep; ln -s {o} deep/dir; chmod 0 deep",
            o = outside.display()
        ));
    }
    // Where it may not write, it cannot.
    for closed in ["", "releases", "shared"] {
        let path = role.join(closed);
        let out = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ln", "-s", "/etc"])
            .arg(path.join("current-2"))
            .output()
            .unwrap();
        assert!(!out.status.success(), "{}", path.display());
    }
    // Its log is a link: the service is not started to write through it.
    let out = bench.lab.run(&["service", "start", "web"]);
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "as it was", "{}", text(&out));
    bench.lab.run(&["service", "stop", "web"]);
    // Staging, healing and collecting meet what was planted.
    bench.lab.push(&bench.last, None).unwrap();
    bench.lab.done(&bench.lab.stage_request(&bench.last));
    bench.lab.run(&["drift", "web", "--heal"]);
    bench.ok(&["gc", "--keep", "0"], "gc");
    assert!(!bench.lab.release(bench.name(1)).exists() && !bench.lab.release(bench.name(5)).exists());
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "as it was");
    assert_eq!(outside.metadata().unwrap().uid(), 0);
    assert_eq!(outside.join("file").metadata().unwrap().uid(), 0);
}

#[test]
fn links_in_the_place_of_what_is_windlass_own_are_not_followed() {
    let bench = Bench::new();
    let outside = bench.lab.dir.join("precious");
    let root = bench.lab.root.clone();
    let victim = outside.join("file");
    for place in ["lock", "roles/web/journal.jsonl", "roles/web/pid", "roles/web/guard", "key"] {
        bench.reset();
        let _ = std::fs::remove_dir_all(&outside);
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(&victim, "as it was").unwrap();
        let path = root.join(place);
        let _ = std::fs::remove_file(&path);
        symlink(&victim, &path).unwrap();
        bench.lab.push(&bench.last, None).map_or_else(drop, drop);
        bench.lab.call(&bench.lab.stage_request(&bench.last));
        let next = bench.name(7);
        bench.lab.call(&crate::support::node::activation(Some(bench.name(4)), next, Some("1m")));
        bench.lab.call(&json!({ "op": "service-start", "role": "web" }));
        bench.lab.call(&json!({ "op": "service-stop", "role": "web" }));
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was", "{place}");
        bench.end_processes();
    }
    // Folders that are links: nothing is made below them.
    for place in ["objects", "bundles", "roles", "roles/web", "roles/web/releases"] {
        bench.reset();
        let _ = std::fs::remove_dir_all(&outside);
        std::fs::create_dir(&outside).unwrap();
        let path = root.join(place);
        std::fs::rename(&path, bench.lab.dir.join("aside")).unwrap();
        symlink(&outside, &path).unwrap();
        bench.lab.push(&bench.last, None).map_or_else(drop, drop);
        bench.lab.call(&bench.lab.stage_request(&bench.last));
        let made: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
        assert!(made.is_empty(), "{place}: {made:?}");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(bench.lab.dir.join("aside"), &path).unwrap();
    }
}
