//! Bundles are ordinary OCI images: tools that know nothing of windlass read, copy, store and mount them.
//!
//! The tools are real (skopeo, buildah, a registry, umoci, zstd, tar) and the digests must survive them. One
//! that is not installed is skipped with a word on standard error.

use crate::support::project;
use crate::support::tools::shell;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use project::{Project, Run, hard_link, have, sha256, skip, symlink, text};
use serde_json::Value;

/// A project whose bundles hold every kind of entry, with names that strain a tar.
fn built() -> (Project, BTreeMap<String, String>) {
    let project = Project::new();
    let long = "a-rather-long-folder-name-of-some-sixty-characters-in-all-x/".repeat(4);
    let wide = format!("{}/deep", "ünï".repeat(40));
    let mut members = project::jdk(5);
    members.extend([
        project::file(&format!("jdk-11/{long}file"), 0o755, "long"),
        project::file(&format!("jdk-11/{wide}"), 0o644, "wide"),
        symlink("jdk-11/link-to-long", &format!("{long}file")),
        hard_link("jdk-11/another-java", "jdk-11/bin/java"),
        project::file("jdk-11/with space\tand tab", 0o644, "x"),
        project::Member { path: "jdk-11/hollow".to_owned(), mode: 0o700, body: project::Body::Dir },
    ]);
    project.artifact(project::JDK, &members);
    let digests = project.build().digests();
    (project, digests)
}

/// What stands at a path of a bundle: `directory`, `0755 <digest>`, `-> <target>`.
type Tree = BTreeMap<String, String>;

/// As `inspect` tells it.
fn tree_of(project: &Project, reference: &str) -> Tree {
    let inspect = project.json(&["inspect", reference]).ok().json();
    let entries = inspect["entries"].as_array().unwrap();
    let file = |entry: &Value| format!("{} {}", text(&entry["mode"]), text(&entry["digest"]));
    entries
        .iter()
        .map(|entry| {
            let shown = match entry["type"].as_str().unwrap() {
                "directory" => "directory".to_owned(),
                "file" => file(entry),
                "symlink" => format!("-> {}", text(&entry["target"])),
                "hardlink" => file(entries.iter().find(|other| other["path"] == entry["target"]).unwrap()),
                other => panic!("{other}"),
            };
            (text(&entry["path"]), shown)
        })
        .collect()
}

/// As it stands in a folder.
fn tree_in(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path();
        let meta = path.symlink_metadata().unwrap();
        let shown = if meta.is_dir() {
            assert_eq!(meta.mode() & 0o7777, 0o755, "{}", path.display());
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", fs::read_link(path).unwrap().display())
        } else {
            assert_eq!(meta.mtime(), 1, "{}", path.display());
            format!("{:04o} sha256:{}", meta.mode() & 0o7777, sha256(&fs::read(path).unwrap()))
        };
        tree.insert(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), shown);
    }
    tree
}

#[track_caller]
fn assert_same(found: &Tree, expected: &Tree) {
    for (path, shown) in expected {
        assert_eq!(found.get(path), Some(shown), "{path}");
    }
    assert_eq!(found.len(), expected.len());
}

fn skopeo(project: &Project, arguments: &[&str]) -> Run {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").args(arguments).current_dir(&project.dir);
    Run::of(&mut command).ok()
}

/// The digest of the one manifest in an OCI layout.
fn digest_in(layout: &Path) -> String {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    text(&index["manifests"][0]["digest"])
}

#[test]
fn skopeo_reads_and_copies_with_the_digest_kept() {
    if !have("skopeo") {
        return;
    }
    let (project, digests) = built();
    for (role, version) in [("hot", "1.0-1"), ("warm", "1.0-1"), ("plain", "1.0")] {
        let from = format!("oci:out:{role}:{version}");
        let seen: Value = serde_json::from_str(&skopeo(&project, &["inspect", &from]).stdout).unwrap();
        assert_eq!(text(&seen["Digest"]), digests[role]);
        let layers = project.json(&["inspect", role]).ok().json()["layers"].as_array().unwrap().len();
        assert_eq!(seen["Layers"].as_array().unwrap().len(), layers);
        let config: Value =
            serde_json::from_str(&skopeo(&project, &["inspect", "--config", &from]).stdout).unwrap();
        assert_eq!(config["rootfs"]["type"], "layers");

        skopeo(&project, &["copy", &from, &format!("oci:copy-{role}:x")]);
        assert_eq!(digest_in(&project.path(&format!("copy-{role}"))), digests[role]);
        skopeo(&project, &["copy", &from, &format!("dir:dir-{role}")]);
        let manifest = fs::read(project.path(&format!("dir-{role}/manifest.json"))).unwrap();
        assert_eq!(format!("sha256:{}", sha256(&manifest)), digests[role]);
    }
    // What skopeo puts beside ours in out/ stays, through builds and gc.
    skopeo(&project, &["copy", "oci:copy-plain:x", "oci:out:someone/elses"]);
    project.edit("conf/app/app.yml", "name:", "nome:");
    project.build();
    project.run(&["gc", "--keep", "1"]).ok();
    skopeo(&project, &["inspect", "oci:out:someone/elses"]);
    assert_eq!(project.build().digests()["plain"], digests["plain"]);
    project.assert_verified();
}

#[test]
fn zstd_and_tar_unpack_every_layer_and_diff_ids_are_right() {
    if !have("zstd") || !have("tar") {
        return;
    }
    let (project, digests) = built();
    for role in ["hot", "plain"] {
        let manifest: Value =
            serde_json::from_slice(&fs::read(project.blob(&digests[role])).unwrap()).unwrap();
        let config = fs::read(project.blob(&text(&manifest["config"]["digest"]))).unwrap();
        assert_eq!(manifest["config"]["size"], config.len());
        let config: Value = serde_json::from_slice(&config).unwrap();
        let root = project.path(&format!("root-{role}"));
        fs::create_dir(&root).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(layers.len(), diff_ids.len());
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
            let blob = project.blob(&text(&layer["digest"]));
            assert_eq!(layer["size"], fs::metadata(&blob).unwrap().len());
            let unpacked = Command::new("zstd").arg("-dc").arg(&blob).output().unwrap();
            assert!(unpacked.status.success());
            assert_eq!(text(diff_id), format!("sha256:{}", sha256(&unpacked.stdout)));
            // As a person would type it; tar says nothing where nothing is odd.
            let line = "zstd -dc \"$0\" | tar -xf - --same-permissions";
            let run = Run::of(shell(line).arg(&blob).current_dir(&root)).ok();
            assert_eq!(run.stderr, "");
        }
        assert_same(&tree_in(&root), &tree_of(&project, role));
        let linked = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
        if role == "hot" {
            assert_eq!(linked("jdk/lib/same"), linked("jdk/bin/java"), "hard links stay such");
        }
    }
}

#[test]
fn buildah_mounts_what_was_built() {
    if !have("buildah") {
        return;
    }
    let (project, digests) = built();
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(project.path("containers")).arg("--runroot").arg(project.path("run"));
        command.args(["--storage-driver", "vfs"]).args(arguments).current_dir(&project.dir);
        Run::of(&mut command)
    };
    fs::write(project.path("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    for role in ["hot", "plain"] {
        let from = format!("oci:out:{role}:{}", if role == "hot" { "1.0-1" } else { "1.0" });
        let run = buildah(&["from", "--signature-policy", "policy.json", "--name", role, &from]);
        if run.code != Some(0) && !is_root() {
            return skip(&format!("buildah wants root here: {}", run.stderr));
        }
        run.ok();
        let inspect = buildah(&["inspect", role]).ok();
        assert!(inspect.stdout.contains(&digests[role]), "buildah knows it by its digest");
        let mounted = buildah(&["mount", role]).ok();
        assert_same(&tree_in(Path::new(mounted.stdout.trim())), &tree_of(&project, role));
        buildah(&["umount", role]).ok();
        buildah(&["rm", role]).ok();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn umoci_lists_and_where_it_knows_zstd_unpacks() {
    if !have("umoci") {
        return;
    }
    let (project, _) = built();
    let umoci = |arguments: &[&str]| {
        let mut command = Command::new("umoci");
        Run::of(command.args(arguments).current_dir(&project.dir))
    };
    let listed = umoci(&["ls", "--layout", "out"]).ok();
    for name in ["hot:1.0-1", "plain:1.0", "warm:1.0-1"] {
        assert!(listed.stdout.lines().any(|line| line == name), "{}", listed.stdout);
    }
    let stat = umoci(&["stat", "--image", "out:plain:1.0", "--json"]);
    assert_eq!(stat.code, Some(0), "{}", stat.stderr);
    let unpacked = umoci(&["unpack", "--image", "out:plain:1.0", "unpacked"]);
    if unpacked.stderr.contains("blob is not correct mediatype") {
        return skip("this umoci does not unpack zstd layers");
    }
    unpacked.ok();
    let mut tree = tree_in(&project.path("unpacked/rootfs"));
    tree.retain(|path, _| !path.is_empty());
    assert_same(&tree, &tree_of(&project, "plain"));
}

/// A registry on this machine; gone when dropped.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let config = dir.join("registry.yml");
        // Port 0: the system picks a free one, and the registry's log says which.
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:0}}\n",
            dir.join("registry").display()
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the registry ended before it listened");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
            }
        };
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Self { child, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It is gone already where this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_registry_takes_bundles_and_gives_them_back() {
    if !have("docker-registry") || !have("skopeo") {
        return;
    }
    let (project, digests) = built();
    let registry = Registry::start(&project.dir);
    for (role, version) in [("hot", "1.0-1"), ("warm", "1.0-1"), ("plain", "1.0")] {
        let remote = format!("docker://{}/windlass/{role}:{version}", registry.address);
        let local = format!("oci:out:{role}:{version}");
        skopeo(&project, &["copy", "--dest-tls-verify=false", &local, &remote]);
        let seen = skopeo(&project, &["inspect", "--tls-verify=false", &remote]);
        let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
        assert_eq!(text(&seen["Digest"]), digests[role]);
        skopeo(&project, &["copy", "--src-tls-verify=false", &remote, &format!("oci:back:{role}:{version}")]);
    }
    // windlass reads what came back as if it had built it.
    fs::remove_dir_all(project.path("out")).unwrap();
    fs::rename(project.path("back"), project.path("out")).unwrap();
    fs::set_permissions(project.path("out"), fs::Permissions::from_mode(0o755)).unwrap();
    let ls = project.json(&["ls"]).ok();
    assert_eq!(ls.digests(), digests);
    project.assert_verified();
    assert_eq!(project.build().digests(), digests);
}
