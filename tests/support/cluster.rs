//! A project with a service that does nothing, and nodes in folders that run it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::bench::{SECRET, copy, end_all, end_keepers, print, processes};
use crate::support::clock::Clock;

const RECIPE: &str = r#"
schema = 1
version = "{{ versions.web }}"
[[unpack]]
artifact = "web-{{ versions.web }}.tar.gz"
into = "web"
strip = "auto"
[[conf]]
from = "web"
into = "web/conf"
render = ["site.conf"]
[service]
kind = "process"
start = ["web/run.sh"]
env = { PW = "{{ secret('pw') }}" }
stop = { signal = "TERM", timeout = "2s" }
"#;

/// Runs, and is told apart from others by where it stands.
pub(crate) const GOOD: &str = "#!/bin/sh\nexec sleep 1000\n";
/// Ends while its gate is waited for.
pub(crate) const DIES: &str = "#!/bin/sh\nexit 3\n";

pub(crate) struct Cluster {
    _temporary: tempfile::TempDir,
    pub(crate) dir: PathBuf,
    pub(crate) nodes: Vec<String>,
}

impl Cluster {
    /// Nodes `n1` to `n<count>`, reached as `reach` says.
    pub(crate) fn new(count: usize, rollout: &str, reach: impl Fn(usize) -> String) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap().join("project");
        for name in ["install", "recipes", "conf/web"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        std::fs::write(dir.join("recipes/web.toml"), RECIPE).unwrap();
        let site = "node = {{ node.name }}\npassword = {{ secret('pw') }}\n";
        std::fs::write(dir.join("conf/web/site.conf"), site).unwrap();
        let nodes = (1..=count).map(|n| format!("n{n}")).collect();
        let cluster = Self { _temporary: temporary, dir, nodes };
        cluster.write(rollout, "", reach);
        cluster
    }

    pub(crate) fn local(count: usize, rollout: &str) -> Self {
        Self::new(count, rollout, |_| "transport = \"local\"\n".to_owned())
    }

    /// Writes cluster.toml; `more` is put before the nodes.
    pub(crate) fn write(&self, rollout: &str, more: &str, reach: impl Fn(usize) -> String) {
        let mut text = format!(
            "schema = 1\nname = \"lab\"\n{more}\n[secrets]\npw = {{ env = \"LAB_PW\" }}\n\n[rollout]\n\
             min_healthy = \"50ms\"\n{rollout}\n"
        );
        for (number, node) in self.nodes.iter().enumerate() {
            let root = self.root(node);
            let reach = reach(number + 1);
            let root = root.display();
            text.extend([format!("\n[nodes.{node}]\nroot = \"{root}\"\nroles = [\"web\"]\n"), reach]);
        }
        std::fs::write(self.dir.join("cluster.toml"), text).unwrap();
    }

    /// A node's folder.
    pub(crate) fn root(&self, node: &str) -> PathBuf {
        self.dir.parent().unwrap().join("nodes").join(node)
    }

    /// Builds a version of the service.
    pub(crate) fn build(&self, version: &str, run: &str) {
        let path = self.dir.join(format!("install/web-{version}.tar.gz"));
        let gzip =
            flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        let big = crate::support::node::noise(version.len() as u64 + 7, 300_000);
        for (name, bits, content) in
            [("VERSION", 0o644, version.as_bytes()), ("run.sh", 0o755, run.as_bytes()), ("big", 0o644, &big)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_mode(bits);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, format!("web-{version}/{name}"), content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        let project = format!("schema = 1\nname = \"lab\"\n[versions]\nweb = {version:?}\n");
        std::fs::write(self.dir.join("windlass.toml"), project).unwrap();
        self.expect(0, &["build"]);
    }

    pub(crate) fn words(&self, args: &[&str]) -> Vec<String> {
        let dir = self.dir.to_str().unwrap();
        let words = [env!("CARGO_BIN_EXE_windlass")].into_iter().chain(args.iter().copied());
        words.chain(["-C", dir]).map(str::to_owned).collect()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let words = self.words(args);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("LAB_PW", SECRET).stdin(Stdio::null());
        for name in ["WINDLASS_BUILD", "WINDLASS_CLUSTER", "WINDLASS_AGENT", "WINDLASS_ROOT"] {
            command.env_remove(name);
        }
        self.clock().show(&mut command);
        command
    }

    fn clock(&self) -> Clock {
        Clock::of(self.dir.parent().unwrap())
    }

    /// Moves the nodes' boot clock forward, past deadlines that tests do not wait for.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock().advance(by);
    }

    /// Runs a command that has to end with this code; what it said, both streams.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, args: &[&str]) -> String {
        let out = self.command(args).output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{args:?}\n{}", text(&out));
        text(&out)
    }

    /// What `status` says, which must be so.
    #[track_caller]
    pub(crate) fn truthful(&self, what: &str) -> Value {
        let out = self.command(&["status", "--format", "json"]).output().unwrap();
        assert!(out.status.success(), "{what}: {}", text(&out));
        let status: Value = serde_json::from_slice(&out.stdout).unwrap();
        for node in status["nodes"].as_array().unwrap() {
            let name = node["node"].as_str().unwrap();
            let Some(role) = node["roles"].get(0) else { continue };
            assert_eq!(role["problem"], Value::Null, "{what}: {node}");
            if role["interrupted"] == Value::Null {
                assert_eq!(role["release"].as_str(), self.current(name).as_deref(), "{what}: {node}");
            }
            if role["process"] == "running" {
                assert_eq!(self.runs(name), [role["runs"].as_str().unwrap()], "{what}: {node}");
            } else {
                let pids = std::fs::read_to_string(self.root(name).join("roles/web/pid")).unwrap_or_default();
                let log = std::fs::read_to_string(self.root(name).join("roles/web/shared/logs/web.log"));
                assert_eq!(
                    self.runs(name),
                    [""; 0],
                    "{what}: {node}; pid file: {}; log: {log:?}",
                    pids.trim()
                );
            }
        }
        status
    }

    /// The release that a node's link names.
    pub(crate) fn current(&self, node: &str) -> Option<String> {
        let link = std::fs::read_link(self.root(node).join("roles/web/current")).ok()?;
        Some(link.file_name()?.to_str()?.to_owned())
    }

    /// The releases that processes of the node's service stand in.
    pub(crate) fn runs(&self, node: &str) -> Vec<String> {
        let releases = self.root(node).join("roles/web/releases");
        let at = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let ours = |pid: u32| at(pid).starts_with(&releases) && !program(pid).ends_with("windlass");
        let below =
            |pid: u32| at(pid).strip_prefix(&releases).ok()?.iter().next()?.to_str().map(str::to_owned);
        processes(ours).into_iter().filter_map(below).collect()
    }

    /// `current` leads to a complete release: what it holds is what the bundle of its version holds.
    #[track_caller]
    pub(crate) fn whole(&self, node: &str, what: &str) {
        let release = self.current(node).unwrap_or_else(|| panic!("{what}: {node} has no release"));
        let version = release.split_once('-').unwrap().1;
        let tree = self.root(node).join("roles/web/releases").join(&release);
        let mut found = print(&tree);
        let site = found.remove(Path::new("web/conf/site.conf")).unwrap_or_else(|| panic!("{what}: no conf"));
        assert_eq!(site.1, 0o600, "{what}");
        let said = std::fs::read_to_string(tree.join("web/conf/site.conf")).unwrap();
        assert_eq!(said, format!("node = {node}\npassword = {SECRET}\n"), "{what}");
        assert_eq!(std::fs::read_to_string(tree.join("web/VERSION")).unwrap(), version, "{what}");
        let files = found.values().filter(|(kind, ..)| *kind == 'f').count();
        assert_eq!(files, 4, "{what}: {:?}", found.keys());
        let big = std::fs::read(tree.join("web/big")).unwrap();
        assert!(big == crate::support::node::noise(version.len() as u64 + 7, 300_000), "{what}: big");
    }

    /// Kills whatever runs of its nodes, by its ids.
    pub(crate) fn end_processes(&self) {
        for node in &self.nodes {
            end_keepers(&self.root(node));
        }
        let nodes = self.dir.parent().unwrap().join("nodes");
        let nodes = nodes.to_str().unwrap();
        end_all(|pid| {
            let at = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            at.starts_with(nodes) || (line.contains("\0node\0") && line.contains(nodes))
        });
    }

    /// What is there now is what later tries begin with.
    pub(crate) fn save(&self) {
        self.end_processes();
        let base = self.dir.parent().unwrap();
        let _ = std::fs::remove_dir_all(base.join("saved"));
        std::fs::create_dir(base.join("saved")).unwrap();
        copy(&base.join("nodes"), &base.join("saved/nodes"));
        copy(&self.dir.join("out"), &base.join("saved/out"));
    }

    /// As it was when it was saved; nothing of it runs but the services, begun anew.
    pub(crate) fn reset(&self) {
        self.end_processes();
        let base = self.dir.parent().unwrap();
        std::fs::remove_dir_all(base.join("nodes")).unwrap();
        std::fs::remove_dir_all(self.dir.join("out")).unwrap();
        copy(&base.join("saved/nodes"), &base.join("nodes"));
        copy(&base.join("saved/out"), &self.dir.join("out"));
        for node in &self.nodes {
            let mut start = Command::new(env!("CARGO_BIN_EXE_windlass"));
            start.args(["node", "service", "start", "web", "--root"]).arg(self.root(node));
            let out = self.clock().show(&mut start).output().unwrap();
            assert!(out.status.success(), "{}", text(&out));
        }
    }

    /// Temporary names below the nodes and the project.
    pub(crate) fn debris(&self) -> Vec<PathBuf> {
        let temporary = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            [".tmp-", ".staging-", ".new-"].iter().any(|prefix| name.starts_with(prefix))
        };
        let below = |dir: PathBuf| {
            walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.unwrap().into_path()).filter(temporary)
        };
        below(self.dir.parent().unwrap().join("nodes")).chain(below(self.dir.join("out"))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end_processes();
        // Folders that are read-only would stay for whoever is not root.
        let _ = std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o755));
    }
}

pub(crate) fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}
