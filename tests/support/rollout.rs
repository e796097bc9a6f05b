//! A project with a small HTTP service, and a cluster of folders on this machine that runs it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::clock::Clock;
use crate::support::net::Net;

pub(crate) const SECRET: &str = "correct-horse-battery-staple";

/// How long a gate may take that has to hold.
const LIMIT: &str = "60s";
/// How long anything may take that has to happen.
const BACKSTOP: Duration = Duration::from_mins(2);

/// The service is the demo's: windlass itself.
const RUN: &str = "#!/bin/sh\nexec \"$PROGRAM\" demo-service web/conf/site.conf web\n";

/// The same service as a foreign program, for supervisors: they tell a service from windlass itself, which starts it,
/// and may hide the folder that windlass is in.
const PYTHON: &str = r#"#!/usr/bin/python3
import http.server, json
lines = (line.partition("=") for line in open("web/conf/site.conf"))
conf = {key.strip(): value.strip() for key, _, value in lines}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"version": open("web/VERSION").read(), "conf": conf}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.HTTPServer.allow_reuse_address = True
address, port = conf["listen"].rsplit(":", 1)
http.server.HTTPServer((address, int(port)), Handler).serve_forever()
"#;

/// Conf that the demo's service reads, all of which it answers with.
pub(crate) fn site(role: &str) -> String {
    format!(
        "listen = {{{{ node.address }}}}:{{{{ vars.{role}_port }}}}\nformat = json\nnode = {{{{ node.name }}}}\n\
         greeting = {{{{ vars.greeting }}}}\npassword = {{{{ secret('pw') }}}}\n"
    )
}

/// The recipe of a role whose gate may take that long.
fn recipe(role: &str, within: &str) -> String {
    let program = env!("CARGO_BIN_EXE_windlass");
    format!(
        r#"
schema = 1
version = "{{{{ versions.{role} }}}}"
[[unpack]]
artifact = "{role}-{{{{ versions.{role} }}}}.tar.gz"
into = "web"
strip = "auto"
[[conf]]
from = "{role}"
into = "web/conf"
render = ["site.conf"]
[vars]
greeting = "hello"
[service]
kind = "process"
start = ["web/run.sh"]
env = {{ PROGRAM = "{program}", PW = "{{{{ secret('pw') }}}}" }}
stop = {{ signal = "TERM", timeout = "5s" }}
[service.ready]
http = {{ port = "{{{{ vars.{role}_port }}}}", path = "/" }}
within = "{within}"
"#
    )
}

/// How a version of the service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It answers.
    Good,
    /// It answers 500; its gate is given up after this time.
    Sick(&'static str),
    /// It ends at once.
    Dies,
}

pub(crate) struct Lab {
    _temporary: tempfile::TempDir,
    pub(crate) dir: PathBuf,
    net: Net,
    /// Ports, by role and node. No two are the same, nor are those of two labs at the same time: `check` looks for
    /// listeners on a port, whatever their address.
    pub(crate) ports: BTreeMap<(String, String), u16>,
    /// The address of each node.
    addresses: BTreeMap<String, IpAddr>,
    roles: Vec<String>,
    versions: std::cell::RefCell<BTreeMap<String, String>>,
    /// Lines of each node's table in cluster.toml.
    nodes: BTreeMap<String, String>,
    /// The script that starts a service that is not to die.
    run: &'static str,
    /// The boot clock of the nodes, for tests that move it.
    pub(crate) clock: Option<Clock>,
    /// What commands are run through: a program and its first arguments; nothing as a rule.
    pub(crate) through: Vec<String>,
}

impl Lab {
    /// Nodes `n1` to `n<count>`, local, all with role `web`.
    pub(crate) fn new(count: usize, rollout: &str) -> Self {
        Self::with(count, &["web"], rollout, |_, _| "transport = \"local\"\n".to_owned())
    }

    /// The same, with a service that is a foreign program.
    pub(crate) fn foreign(count: usize) -> Self {
        let mut lab = Self::new(count, "");
        lab.run = PYTHON;
        lab
    }

    /// With these roles on every node, and each node's way to be reached.
    pub(crate) fn with(
        count: usize,
        roles: &[&str],
        rollout: &str,
        reach: impl Fn(&std::path::Path, usize) -> String,
    ) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        for name in ["install", "recipes"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        for role in roles {
            std::fs::write(dir.join(format!("recipes/{role}.toml")), recipe(role, LIMIT)).unwrap();
            std::fs::create_dir_all(dir.join("conf").join(role)).unwrap();
            std::fs::write(dir.join("conf").join(role).join("site.conf"), site(role)).unwrap();
        }
        let net = Net::claim();
        let mut slots = 0..80;
        let (mut ports, mut addresses, mut nodes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for n in 1..=count {
            let node = format!("n{n}");
            for role in roles {
                ports.insert(((*role).to_owned(), node.clone()), port(&net, slots.next().unwrap()));
            }
            let mut reach = reach(&dir, n);
            if !reach.contains("address = ") {
                reach = format!("address = \"{}\"\n{reach}", net.ip(u8::try_from(n).unwrap()));
            }
            let (_, address) = reach.split_once("address = \"").unwrap();
            let (address, _) = address.split_once('"').unwrap();
            addresses.insert(node.clone(), address.parse().unwrap());
            nodes.insert(node, reach);
        }
        let lab = Self {
            _temporary: temporary,
            dir,
            net,
            ports,
            addresses,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            versions: std::cell::RefCell::default(),
            nodes,
            run: RUN,
            clock: None,
            through: Vec::new(),
        };
        lab.cluster(rollout, "");
        lab
    }

    /// Writes cluster.toml; `more` is put before the nodes.
    pub(crate) fn cluster(&self, rollout: &str, more: &str) {
        let mut text = format!(
            "schema = 1\nname = \"lab\"\n{more}\n[secrets]\npw = {{ env = \"LAB_PW\" }}\n\n[rollout]\n{rollout}\n"
        );
        if !rollout.contains("min_healthy") {
            text.push_str("min_healthy = \"200ms\"\n");
        }
        if !rollout.contains("gate_timeout") {
            text.extend(["gate_timeout = \"", LIMIT, "\"\n"]);
        }
        for (node, reach) in &self.nodes {
            let root = self.dir.join(node);
            let roles: Vec<String> = self.roles.iter().map(|role| format!("{role:?}")).collect();
            let vars: Vec<String> = self
                .roles
                .iter()
                .map(|role| format!("{role}_port = {}", self.ports[&(role.clone(), node.clone())]))
                .collect();
            text.extend([
                format!("\n[nodes.{node}]\nroot = \"{}\"\n", root.display()),
                format!("roles = [{}]\nvars = {{ {} }}\n{reach}", roles.join(", "), vars.join(", ")),
            ]);
        }
        std::fs::write(self.dir.join("cluster.toml"), text).unwrap();
    }

    /// Builds a version of `web`.
    pub(crate) fn build(&self, version: &str, mode: Mode) {
        self.build_role("web", version, mode);
    }

    /// Builds a version of a role; the other roles stay at the newest that they have.
    pub(crate) fn build_role(&self, role: &str, version: &str, mode: Mode) {
        let path = self.dir.join(format!("install/{role}-{version}.tar.gz"));
        let gzip =
            flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        let (run, key) = match mode {
            Mode::Good => (self.run, "greeting"),
            Mode::Sick(_) => (self.run, "missing"),
            Mode::Dies => ("#!/bin/sh\nexit 3\n", "greeting"),
        };
        let library = "x".repeat(100_000);
        for (name, bits, text) in [
            ("VERSION", 0o644, version),
            ("GREETING-KEY", 0o644, key),
            ("run.sh", 0o755, run),
            ("library", 0o644, &library),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(bits);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, format!("{role}-{version}/{name}"), text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        self.versions.borrow_mut().insert(role.to_owned(), version.to_owned());
        let versions: Vec<String> =
            self.versions.borrow().iter().map(|(role, version)| format!("{role} = {version:?}")).collect();
        let project = format!("schema = 1\nname = \"lab\"\n[versions]\n{}\n", versions.join("\n"));
        std::fs::write(self.dir.join("windlass.toml"), project).unwrap();
        // Roles that have no version yet would not read.
        for role in &self.roles {
            let (path, aside) = (format!("recipes/{role}.toml"), format!("recipes/_{role}.toml"));
            let (path, aside) = (self.dir.join(path), self.dir.join(aside));
            let known = self.versions.borrow().contains_key(role);
            if known && aside.exists() {
                std::fs::rename(aside, path).unwrap();
            } else if !known && path.exists() {
                std::fs::rename(path, aside).unwrap();
            }
        }
        self.limit(role, if let Mode::Sick(within) = mode { within } else { LIMIT });
        let out = self.run(&["build"]);
        assert!(out.status.success(), "{}", text(&out));
    }

    /// Changes how long the gate of a role's next build may take.
    fn limit(&self, role: &str, within: &str) {
        let path = self.dir.join(format!("recipes/{role}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        let line = |line: &str| {
            if line.starts_with("within = ") {
                format!("within = \"{within}\"\n")
            } else {
                format!("{line}\n")
            }
        };
        std::fs::write(path, text.lines().map(line).collect::<String>()).unwrap();
    }

    /// The program, run through whatever it has to be.
    pub(crate) fn windlass(&self) -> Command {
        let built = env!("CARGO_BIN_EXE_windlass");
        let Some((program, first)) = self.through.split_first() else { return Command::new(built) };
        // Another user may not reach the folder that it was built in.
        let own = self.dir.join("windlass-program");
        if !own.exists() {
            std::fs::hard_link(built, &own).or_else(|_| std::fs::copy(built, &own).map(drop)).unwrap();
        }
        let mut command = Command::new(program);
        command.args(first).arg(own);
        command
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.windlass();
        command.args(args).arg("-C").arg(&self.dir).env("LAB_PW", SECRET);
        for name in ["WINDLASS_BUILD", "WINDLASS_CLUSTER", "WINDLASS_AGENT", "WINDLASS_ROOT"] {
            command.env_remove(name);
        }
        if let Some(clock) = &self.clock {
            clock.show(&mut command);
        }
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that has to end with this code; what it said, both streams.
    pub(crate) fn expect(&self, code: i32, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(code), "{args:?}\n{}", text(&out));
        assert!(!text(&out).contains(SECRET), "{args:?} shows a secret");
        text(&out)
    }

    /// The JSON lines of a command that has to end with this code.
    pub(crate) fn lines(&self, code: i32, args: &[&str]) -> Vec<Value> {
        let out = self.command(args).args(["--format", "json"]).output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{args:?}\n{}", text(&out));
        assert!(!text(&out).contains(SECRET), "{args:?} shows a secret");
        let stdout = String::from_utf8(out.stdout).unwrap();
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The JSON of a command that has to end with this code.
    pub(crate) fn json(&self, code: i32, args: &[&str]) -> Value {
        let mut lines = self.lines(code, args);
        assert_eq!(lines.len(), 1, "{args:?} {lines:?}");
        lines.remove(0)
    }

    /// What a rollout ended with.
    pub(crate) fn finished(&self, code: i32, args: &[&str]) -> Value {
        let last = self.lines(code, args).pop().unwrap();
        assert_eq!(last["event"], "rollout-finished", "{last}");
        last
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Where the service of a role on a node listens.
    pub(crate) fn at(&self, role: &str, node: &str) -> SocketAddr {
        (self.addresses[node], self.ports[&(role.to_owned(), node.to_owned())]).into()
    }

    /// A port of the lab that no service of it has.
    pub(crate) fn spare_port(&self) -> u16 {
        port(&self.net, 79)
    }

    /// What the service of a role on a node answers.
    pub(crate) fn ask(&self, role: &str, node: &str) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.at(role, node), BACKSTOP).ok()?;
        stream.set_read_timeout(Some(BACKSTOP)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// The versions of `web` that answer, by node.
    pub(crate) fn answers(&self) -> Vec<String> {
        self.answers_of("web")
    }

    pub(crate) fn answers_of(&self, role: &str) -> Vec<String> {
        let ask = |node: &String| {
            let answer = self.ask(role, node);
            answer.map_or_else(|| "-".to_owned(), |answer| answer["version"].as_str().unwrap().to_owned())
        };
        self.nodes.keys().map(ask).collect()
    }

    /// Waits until `holds`; whatever was last seen if it never does.
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + BACKSTOP;
        while !holds() {
            assert!(Instant::now() < until, "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Whatever a test left running, by the pids that the nodes know.
        for node in self.nodes.keys() {
            for role in &self.roles {
                let mut stop = self.windlass();
                stop.args(["node", "service", "stop", role, "--root"]).arg(self.dir.join(node));
                let _ = stop.output();
            }
        }
    }
}

/// Port `slot` of 80 that no other claimed network has, below those that the kernel gives to clients.
fn port(net: &Net, slot: u16) -> u16 {
    let [_, high, low, _] = net.ip(0).octets();
    let number = u16::from_be_bytes([high - 64, low]);
    12_000 + number % 250 * 80 + slot
}

pub(crate) fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}
