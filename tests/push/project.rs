//! A project with bundles, and `windlass push` of it to nodes that are folders behind one sshd.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::push::lab::{Lab, program};

pub(crate) const SECRET: &str = "correct-horse-battery-staple";

const RECIPE: &str = r#"
schema = 1
version = "{{ versions.web }}-{{ build }}"
[[unpack]]
artifact = "web-{{ versions.web }}.tar.gz"
into = "web"
strip = "auto"
[[conf]]
from = "web"
into = "web/conf"
render = ["site.json", "secret.conf"]
[service]
kind = "process"
start = ["web/run.sh"]
[service.ready]
tcp = 1
within = "10s"
"#;

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) struct Project {
    pub(crate) lab: Lab,
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    })
    .take(size)
    .collect()
}

/// The service's files at a version: small ones, and large ones with the version in their names.
pub(crate) fn files(version: &str) -> Files {
    let mut files = Files::new();
    files.insert("run.sh".into(), b"#!/bin/sh\nexec sleep 1000\n".to_vec());
    for n in 0..300u64 {
        let mut bytes = noise(n, 2000 + 37 * usize::try_from(n).unwrap());
        if n % 20 == 0 {
            bytes.extend_from_slice(version.as_bytes());
        }
        files.insert(format!("share/{}/part-{n}.txt", n % 7), bytes);
    }
    for n in 0..3u64 {
        let mut bytes = noise(1000 + n, 5 << 20);
        bytes.splice(1_000_000..1_000_000, version.bytes());
        files.insert(format!("lib/engine-{n}-{version}.jar"), bytes);
    }
    files
}

impl Project {
    /// With nodes called n1, n2 ... that run `web`.
    pub(crate) fn new(nodes: usize) -> Self {
        let project = Self { lab: Lab::new() };
        for name in ["install", "recipes", "conf/web"] {
            std::fs::create_dir_all(project.lab.dir.join(name)).unwrap();
        }
        project.write("recipes/web.toml", RECIPE);
        project.write(
            "conf/web/site.json",
            r#"{"node": "{{ node.name }}", "heap": "{{ vars.heap }}", "forming": "{{ cluster.forming }}", "peers": {{ nodes_with("web") | length }}}"#,
        );
        project.write("conf/web/secret.conf", "password = {{ secret('pw') }}\n");
        let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
        project.cluster(&names.iter().map(|name| (name.as_str(), "")).collect::<Vec<_>>());
        project
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        std::fs::write(self.lab.dir.join(path), text).unwrap();
    }

    /// Writes cluster.toml: nodes, and what else stands below each.
    pub(crate) fn cluster(&self, nodes: &[(&str, &str)]) {
        let (dir, port) = (self.lab.dir.display(), self.lab.sshd.port);
        let key = self.lab.sshd.client_key();
        let mut text = format!(
            "schema = 1\nname = \"lab\"\nvars = {{ heap = \"1g\" }}\nagent = \"{}\"\n[ssh]\nport = {port}\n\
             identity = \"{}\"\nknown_hosts = \"{dir}/known_hosts\"\n[secrets]\npw = {{ env = \"WEB_PW\" }}\n\
             unused = {{ command = [\"false\"] }}\n",
            program(),
            key.display()
        );
        for (name, more) in nodes {
            let (address, root) = (self.lab.sshd.address(), format!("{dir}/{name}"));
            let given =
                if more.contains("address") { String::new() } else { format!("address = \"{address}\"\n") };
            let rooted = if more.contains("root") { String::new() } else { format!("root = \"{root}\"\n") };
            writeln!(text, "[nodes.{name}]\n{given}{rooted}roles = [\"web\"]\n{more}").unwrap();
        }
        self.write("cluster.toml", &text);
    }

    /// Builds a bundle of these files.
    pub(crate) fn build(&self, version: &str, files: &Files) {
        let path = self.lab.dir.join(format!("install/web-{version}.tar.gz"));
        let gzip =
            flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(if name == "run.sh" { 0o755 } else { 0o644 });
            header.set_size(bytes.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            tar.append_data(&mut header, format!("web-{version}/{name}"), bytes.as_slice()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        self.write(
            "windlass.toml",
            &format!("schema = 1\nname = \"lab\"\n[versions]\nweb = \"{version}\"\n"),
        );
        self.rebuild();
    }

    /// Builds again, for instance after a change of conf.
    pub(crate) fn rebuild(&self) {
        let out = self.windlass(&["build"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    pub(crate) fn windlass(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).args(["--format", "json", "-C"]).arg(&self.lab.dir);
        for name in ["WINDLASS_ROOT", "WINDLASS_AGENT", "WINDLASS_CLUSTER", "SSH_AUTH_SOCK"] {
            command.env_remove(name);
        }
        command.env("WEB_PW", SECRET).env("HOME", &self.lab.dir).stdin(Stdio::null());
        command
    }

    pub(crate) fn push(&self, args: &[&str]) -> Output {
        let out = self.windlass(&[&["push"], args].concat()).output().unwrap();
        for text in [&out.stdout, &out.stderr] {
            assert!(!String::from_utf8_lossy(text).contains(SECRET), "the secret was printed");
        }
        out
    }

    /// Pushes; all must go well.
    pub(crate) fn pushed(&self, args: &[&str]) -> Vec<Value> {
        let out = self.push(args);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let result: Value = serde_json::from_slice(&out.stdout).unwrap();
        result["nodes"].as_array().unwrap().clone()
    }

    /// Removes what was pushed to a node.
    pub(crate) fn forget(&self, node: &str) {
        let root = self.lab.dir.join(node);
        for entry in walkdir::WalkDir::new(&root).into_iter().filter_map(Result::ok) {
            // Folders of releases are read-only.
            if entry.file_type().is_dir() {
                std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        for name in ["objects", "bundles", "roles"] {
            std::fs::remove_dir_all(root.join(name)).unwrap();
        }
    }

    /// The folder of a release on a node.
    pub(crate) fn release(&self, node: &str, release: &Value) -> PathBuf {
        self.lab.dir.join(node).join("roles/web/releases").join(release.as_str().unwrap())
    }

    /// Every file of the artifact is in the release, as it should be.
    pub(crate) fn check(&self, node: &str, release: &Value, files: &Files) {
        let dir = self.release(node, release).join("web");
        for (name, bytes) in files {
            assert!(std::fs::read(dir.join(name)).unwrap() == *bytes, "{node}: {name} differs");
        }
    }
}

/// Both outputs as one text.
pub(crate) fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
