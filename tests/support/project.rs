//! A small project in a folder of its own, and the windlass that is run in it.
//!
//! Two roles share a JDK, its archive and one layer; a third has conf only. Contents are made from seeds, so
//! every project is the same. One file is longer than a frame, and the rest are small, linked or executable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) use crate::support::tools::{have, skip};

/// The program under test.
pub(crate) const WINDLASS: &str = env!("CARGO_BIN_EXE_windlass");

/// The artifacts of the project.
pub(crate) const JDK: &str = "jdk-11.tar.gz";
pub(crate) const APP: &str = "app-1.0.zip";
pub(crate) const EXTRA: &str = "extra.tar.gz";

/// What one run of a program came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Standard output as one JSON value.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The bundles that it built, by role.
    pub(crate) fn bundles(&self) -> BTreeMap<String, Value> {
        let json = self.json();
        let rows = json["bundles"].as_array().unwrap_or_else(|| panic!("no bundles: {json}"));
        rows.iter().map(|row| (text(&row["role"]), row.clone())).collect()
    }

    /// The digest of each role's bundle.
    pub(crate) fn digests(&self) -> BTreeMap<String, String> {
        self.bundles().iter().map(|(role, row)| (role.clone(), text(&row["digest"]))).collect()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A JSON string's text.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A project in a temporary folder.
pub(crate) struct Project {
    _keep: tempfile::TempDir,
    pub(crate) dir: PathBuf,
}

impl Project {
    /// The small project, its JDK's largest file being of `megabytes`.
    pub(crate) fn sized(megabytes: usize) -> Self {
        let project = Self::empty();
        project.write("windlass.toml", WINDLASS_TOML);
        project.write("recipes/_jdk.toml", JDK_PART);
        for role in ["hot", "warm"] {
            project.write(&format!("recipes/{role}.toml"), ROLE);
        }
        project.write("recipes/plain.toml", PLAIN);
        project.write("conf/app/app.yml", "name: {{ node.name }}\nheap: {{ vars.heap }}\n");
        project.write("conf/app/start", "#!/bin/sh\nexec java\n");
        project.mode("conf/app/start", 0o755);
        project.write("conf/plain/plain.conf", "a = 1\nb = 2\nc = 3\n");
        project.artifact(JDK, &jdk(megabytes));
        project.zip(APP, &app("1.0"));
        project
    }

    /// The small project with files of two frames.
    pub(crate) fn new() -> Self {
        Self::sized(6)
    }

    /// A folder with nothing in it.
    pub(crate) fn empty() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let dir = keep.path().canonicalize().unwrap();
        for name in ["recipes", "install", "conf"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        Self { _keep: keep, dir }
    }

    /// A project with one role `one` of one artifact.
    pub(crate) fn of_one(artifact: &str, unpack: &str) -> Self {
        let project = Self::empty();
        project.write("windlass.toml", "schema = 1\nname = \"test\"\n");
        let recipe = format!(
            "schema = 1\nversion = \"{{{{ build }}}}\"\n\n[[unpack]]\nartifact = \"{artifact}\"\n{unpack}\n"
        );
        project.write("recipes/one.toml", &recipe);
        project
    }

    /// A command in the project's folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(WINDLASS);
        command.args(arguments).current_dir(&self.dir);
        clean(&mut command);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Runs it with `--format json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Run {
        self.run(&[arguments, &["--format", "json"]].concat())
    }

    /// Builds everything.
    pub(crate) fn build(&self) -> Run {
        self.json(&["build"]).ok()
    }

    /// `verify` finds nothing.
    pub(crate) fn assert_verified(&self) {
        let run = self.json(&["verify"]).ok();
        assert_eq!(run.json()["problems"], serde_json::json!([]));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Replaces text that must be there in a file.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let old = self.read(name);
        assert!(old.contains(from), "{name} has no {from:?}");
        self.write(name, &old.replace(from, to));
    }

    pub(crate) fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Writes a `.tar.gz` into install/.
    pub(crate) fn artifact(&self, name: &str, members: &[Member]) {
        fs::write(self.path("install").join(name), tar_gz(members)).unwrap();
    }

    /// Writes a `.zip` into install/.
    pub(crate) fn zip(&self, name: &str, members: &[Member]) {
        fs::write(self.path("install").join(name), zip(members)).unwrap();
    }

    /// A blob's file.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.path("out/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    /// Every file of out/ with its content's hash and size; `blobs/`, `index.json`, `oci-layout` only.
    pub(crate) fn store_files(&self) -> BTreeMap<String, Vec<u8>> {
        files_below(&self.path("out")).into_iter().filter(|(name, _)| !name.starts_with("cache/")).collect()
    }

    /// No file in out/ has a temporary name, and each blob has the name that its content gives it.
    pub(crate) fn assert_store_is_whole(&self) {
        for (name, bytes) in files_below(&self.path("out")) {
            let file = name.rsplit('/').next().unwrap();
            assert!(!file.starts_with('.'), "{name} was left behind");
            if name.starts_with("blobs/") {
                assert_eq!(file, sha256(&bytes), "a blob was published that is not what it says");
            }
        }
    }
}

/// Takes out of a command's environment what changes what windlass does.
pub(crate) fn clean(command: &mut Command) {
    command.env("NO_COLOR", "1").env_remove("WINDLASS_BUILD");
}

/// Regular files below a folder, by their path in it.
pub(crate) fn files_below(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Names of everything below a folder.
pub(crate) fn names_below(dir: &Path) -> BTreeSet<String> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.unwrap().path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    windlass::model::Digest::of(bytes).hex()
}

/// A member of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Dir,
    File(Vec<u8>),
    Symlink(String),
    HardLink(String),
}

pub(crate) fn file(path: &str, mode: u32, body: impl Into<Vec<u8>>) -> Member {
    Member { path: path.to_owned(), mode, body: Body::File(body.into()) }
}

pub(crate) fn symlink(path: &str, target: &str) -> Member {
    Member { path: path.to_owned(), mode: 0o777, body: Body::Symlink(target.to_owned()) }
}

pub(crate) fn hard_link(path: &str, target: &str) -> Member {
    Member { path: path.to_owned(), mode: 0o644, body: Body::HardLink(target.to_owned()) }
}

/// Bytes that compress to about a half, the same for the same seed.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&(state & 0x0F0F_FF0F_0F0F_FF0F).to_le_bytes());
    }
    out.truncate(size);
    out
}

/// A JDK as far as it matters here.
pub(crate) fn jdk(megabytes: usize) -> Vec<Member> {
    let mut members = vec![
        file("jdk-11/bin/java", 0o755, noise(1, 90_000)),
        symlink("jdk-11/bin/javac", "java"),
        file("jdk-11/lib/modules", 0o644, noise(2, (megabytes << 20) + 77)),
        file("jdk-11/lib/empty", 0o644, Vec::new()),
        hard_link("jdk-11/lib/same", "jdk-11/bin/java"),
        file("jdk-11/release", 0o600, "JAVA_VERSION=11\n"),
    ];
    members.extend((0..200).map(|n| {
        file(
            &format!("jdk-11/legal/module-{}/file {n}.txt", n % 7),
            0o644,
            noise(n, usize::try_from(37 * n).unwrap()),
        )
    }));
    members
}

/// An application of some version.
pub(crate) fn app(version: &str) -> Vec<Member> {
    let seed = u64::from(version.bytes().map(u32::from).sum::<u32>());
    vec![
        file("app/bin/app", 0o755, format!("#!/bin/sh\n# {version}\n")),
        file(&format!("app/lib/app-{version}.jar"), 0o644, noise(seed, 300_000)),
        file("app/lib/third-party.jar", 0o644, noise(99, 2_500_000)),
        file("app/README", 0o644, format!("app {version}\nline\nline\nline\n")),
    ]
}

pub(crate) fn tar_gz(members: &[Member]) -> Vec<u8> {
    let gz = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(gz);
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(member.mode);
        header.set_mtime(1_600_000_000);
        match &member.body {
            Body::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, &member.path, &b""[..]).unwrap();
            }
            Body::File(bytes) => {
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, &member.path, &bytes[..]).unwrap();
            }
            Body::Symlink(target) | Body::HardLink(target) => {
                let hard = matches!(member.body, Body::HardLink(_));
                header.set_entry_type(if hard { tar::EntryType::Link } else { tar::EntryType::Symlink });
                header.set_size(0);
                builder.append_link(&mut header, &member.path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap().finish().unwrap()
}

pub(crate) fn zip(members: &[Member]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for member in members {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(member.mode);
        match &member.body {
            Body::Dir => writer.add_directory(member.path.as_str(), options).unwrap(),
            Body::File(bytes) => {
                writer.start_file(member.path.as_str(), options).unwrap();
                writer.write_all(bytes).unwrap();
            }
            Body::Symlink(target) => {
                writer.add_symlink(member.path.as_str(), target.as_str(), options).unwrap();
            }
            Body::HardLink(_) => panic!("a zip has no hard links"),
        }
    }
    writer.finish().unwrap().into_inner()
}

const WINDLASS_TOML: &str = r#"# The project.
schema = 1
name = "test"

[versions]
app = "1.0" # raised often
jdk = "11"
"#;

const JDK_PART: &str = r#"schema = 1

[[unpack]]
artifact = "jdk-{{ versions.jdk }}.tar.gz"
into = "jdk"
"#;

const ROLE: &str = r#"schema = 1
extends = "_jdk"
version = "{{ versions.app }}-{{ build }}"

[[unpack]]
artifact = "app-{{ versions.app }}.zip"
into = "app"

[[conf]]
from = "app"
into = "app/conf"
render = ["app.yml"]

[vars]
heap = "1g"
"#;

const PLAIN: &str = r#"schema = 1
version = "1.0"

[[conf]]
from = "plain"
into = "etc"
"#;
