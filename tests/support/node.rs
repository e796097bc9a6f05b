//! A project with a small HTTP service, the bundles built from it, and a node in a folder to drive.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use serde_json::{Value, json};
use windlass::agent::ObjectId;
use windlass::agent::wire::{self, Choice, Item, Missing, PushLine, ReceiveHeader};
use windlass::model::Digest;
use windlass::store::{LayerReader, Store};

use crate::support::clock::Clock;
use crate::support::fixture;
use crate::support::net::Net;

pub(crate) const SECRET: &str = "correct-horse-battery-staple";

/// The service's conf: an address to listen on, and lines that its answer repeats.
pub(crate) const SITE: &str = "\
format = json
listen = {{ node.address }}:{{ vars.port }}
node = {{ node.name }}
peers = {{ nodes_with(\"web\") | length }}
port = {{ vars.port }}
";

/// The port of the service, on an address of the test's own.
const PORT: u16 = 8080;

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
render = ["site.conf", "secret.conf"]
[[persist]]
name = "data"
at = "web/data"
[[scratch]]
at = "web/tmp"
[vars]
port = 1
[service]
kind = "process"
start = ["web/run.sh"]
env = { PORT = "{{ vars.port }}", RELEASE = "{{ release }}", PW = "{{ secret('pw') }}" }
stop = { signal = "TERM", timeout = "{{ vars.stop | default('5s') }}" }
limits = { nofile = 512 }
[service.ready]
http = { port = "{{ vars.port }}", path = "/" }
within = "10s"
"#;

pub(crate) struct Lab {
    _temporary: tempfile::TempDir,
    net: Net,
    clock: Clock,
    pub(crate) dir: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) vars: Value,
}

/// A bundle in the lab's store.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) version: String,
    pub(crate) digest: Digest,
}

/// A file of two pieces.
static BIG: LazyLock<Vec<u8>> = LazyLock::new(|| noise(99, 5 << 20));

/// One path of an artifact.
pub(crate) type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// The service's files at a version, with some ballast that is the same in all.
pub(crate) fn service(version: &str) -> Files {
    let mut files = Files::new();
    files.insert("VERSION".to_owned(), (0o644, version.into()));
    // The conf's line that the service cannot do without.
    files.insert("GREETING-KEY".to_owned(), (0o644, "node\n".into()));
    files.insert("run.sh".to_owned(), (0o755, run_script(Path::new(env!("CARGO_BIN_EXE_windlass"))).into()));
    files.insert("tmp/seed".to_owned(), (0o644, "seeded".into()));
    for n in 0..60u32 {
        files.insert(format!("lib/{}/part-{n}.txt", n % 5), (0o644, noise(n.into(), 700 + 90 * n as usize)));
    }
    files.insert("lib/big.bin".to_owned(), (0o644, BIG.clone()));
    files
}

/// What starts the service, a small HTTP server in the windlass program.
pub(crate) fn run_script(program: &Path) -> String {
    format!("#!/bin/sh\nexec '{}' demo-service web/conf/site.conf web\n", program.display())
}

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

/// What tells an archive of these files from others.
fn digest_of(version: &str, files: &Files) -> Digest {
    let mut all = format!("tar.gz of web-{version}\n").into_bytes();
    for (name, (mode, bytes)) in files {
        all.extend_from_slice(format!("{mode:o} {} {name}\n", Digest::of(bytes)).as_bytes());
    }
    Digest::of(&all)
}

/// Writes the archive of a version.
fn archive(path: &Path, version: &str, files: &Files) {
    let gzip =
        flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, (mode, bytes)) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(bytes.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, format!("web-{version}/{name}"), bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

impl Lab {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        let root = dir.join("node");
        Self::at(temporary, dir, root)
    }

    /// With the node's root somewhere else.
    pub(crate) fn with_root(root: PathBuf) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        Self::at(temporary, dir, root)
    }

    fn at(temporary: tempfile::TempDir, dir: PathBuf, root: PathBuf) -> Self {
        for name in ["install", "recipes", "conf/web"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        std::fs::write(dir.join("recipes/web.toml"), RECIPE).unwrap();
        std::fs::write(dir.join("conf/web/site.conf"), SITE).unwrap();
        std::fs::write(dir.join("conf/web/secret.conf"), "password = {{ secret('pw') }}\n").unwrap();
        let clock = Clock::of(&dir);
        Self { _temporary: temporary, net: Net::claim(), clock, dir, root, vars: json!({}) }
    }

    /// Where the service listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.net.at(1, PORT)
    }

    /// What the service's conf is rendered to, as it answers.
    pub(crate) fn site(&self) -> Value {
        let listen = self.address().to_string();
        json!({ "format": "json", "listen": listen, "node": "n1", "peers": "1", "port": PORT.to_string() })
    }

    /// Moves the node's boot clock forward, past deadlines that tests do not wait for.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Builds a bundle of these files.
    pub(crate) fn build(&self, version: &str, files: &Files) -> Built {
        let path = self.dir.join(format!("install/web-{version}.tar.gz"));
        fixture::place(digest_of(version, files), &path, |path| archive(path, version, files));
        let recipe = std::fs::read_to_string(self.dir.join("recipes/web.toml")).unwrap();
        let product = if recipe.contains("versions.elasticsearch") { "elasticsearch" } else { "web" };
        let project = format!("schema = 1\nname = \"lab\"\n[versions]\n{product} = \"{version}\"\n");
        std::fs::write(self.dir.join("windlass.toml"), project).unwrap();
        let out = windlass().args(["build", "--format", "json", "-C"]).arg(&self.dir).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let built: Value = serde_json::from_slice(&out.stdout).unwrap();
        let bundle = &built["bundles"][0];
        let text = |key: &str| bundle[key].as_str().unwrap().to_owned();
        Built { version: text("version"), digest: text("digest").parse().unwrap() }
    }

    pub(crate) fn node(&self, args: &[&str]) -> Command {
        let mut command = windlass();
        command.arg("node").args(args).arg("--root").arg(&self.root);
        self.clock.show(&mut command);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.node(args).output().unwrap()
    }

    /// One request, answered.
    pub(crate) fn call(&self, request: &Value) -> Value {
        self.session().ask(request)
    }

    /// One request that is done.
    pub(crate) fn done(&self, request: &Value) -> Value {
        let answer = self.call(request);
        assert!(answer.get("done").is_some(), "{request} -> {answer}");
        answer["done"].clone()
    }

    pub(crate) fn session(&self) -> Session {
        Session::of(&mut self.node(&["call"]))
    }

    pub(crate) fn status(&self) -> Value {
        self.done(&json!({ "op": "status" }))["roles"][0].clone()
    }

    pub(crate) fn current(&self) -> Option<String> {
        self.status()["release"].as_str().map(str::to_owned)
    }

    pub(crate) fn stage_request(&self, built: &Built) -> Value {
        let node = json!({ "name": "n1", "address": self.net.ip(1) });
        let mut vars = json!({ "port": PORT });
        vars.as_object_mut().unwrap().extend(self.vars.as_object().unwrap().clone());
        json!({
            "op": "stage", "role": "web", "version": built.version, "bundle": built.digest, "who": "tester",
            "secrets": { "pw": SECRET },
            "context": { "vars": vars, "node": node, "cluster": { "name": "lab" }, "nodes": { "web": [node] } },
        })
    }

    /// What staging a bundle would make, the bundle's record and templates read from the store.
    pub(crate) fn preview_request(&self, built: &Built) -> Value {
        let layers = self.layers(built.digest);
        let read = |path: &str| {
            let found = layers.iter().find_map(|layer| {
                let at = layer.toc.entries.iter().position(|entry| entry.path.as_str() == path)?;
                Some(layer.read_file(at).unwrap())
            });
            String::from_utf8(found.unwrap()).unwrap()
        };
        let record: Value = serde_json::from_str(&read(windlass::bundle::RECORD_PATH)).unwrap();
        let names = record["templates"].as_array().unwrap();
        let templates: BTreeMap<&str, String> =
            names.iter().map(|name| (name.as_str().unwrap(), read(name.as_str().unwrap()))).collect();
        let mut request = self.stage_request(built);
        request["op"] = json!("preview");
        request.as_object_mut().unwrap().remove("who");
        request["templates"] = json!(templates);
        request["record"] = record;
        request
    }

    /// Pushes and stages; the release's name.
    pub(crate) fn stage(&self, built: &Built) -> String {
        self.push(built, None).unwrap();
        self.done(&self.stage_request(built))["release"].as_str().unwrap().to_owned()
    }

    /// What is made ahead for the role's next release, and what of that is not finished.
    pub(crate) fn spares(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.root.join("roles/web/releases")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect()
    }

    /// Stages as a rollout does, which goes on asking, until there is a spare of the release and nothing else.
    pub(crate) fn stage_with_spare(&self, built: &Built) -> (String, PathBuf) {
        self.push(built, None).unwrap();
        let mut session = self.session();
        let staged = session.ask(&self.stage_request(built));
        let release = staged["done"]["release"].as_str().unwrap().to_owned();
        let name = format!(".spare-{release}");
        wait_until(&format!("{name} is made"), || self.spares() == [name.clone()]);
        let spare = self.release(&name);
        (release, spare)
    }

    pub(crate) fn activate(&self, from: Option<&str>, to: &str, within: Option<&str>) -> Value {
        self.call(&activation(from, to, within))
    }

    /// Stages, activates and confirms.
    pub(crate) fn promote(&self, built: &Built) -> String {
        let release = self.stage(built);
        let from = self.current();
        let answer = self.activate(from.as_deref(), &release, None);
        assert!(answer.get("done").is_some(), "{answer}");
        self.done(&json!({ "op": "confirm", "role": "web", "release": release }));
        release
    }

    pub(crate) fn release(&self, name: &str) -> PathBuf {
        self.root.join("roles/web/releases").join(name)
    }

    /// What the service answers, waiting for it to listen.
    pub(crate) fn http(&self) -> Value {
        let until = Instant::now() + BACKSTOP;
        loop {
            if let Some(answer) = ask(self.address()) {
                return answer;
            }
            let log =
                std::fs::read_to_string(self.root.join("roles/web/shared/logs/web.log")).unwrap_or_default();
            assert!(Instant::now() < until, "the service does not answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the service answers, and as this version.
    pub(crate) fn answers(&self, version: &str) -> bool {
        ask(self.address()).is_some_and(|answer| answer["version"] == version)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(Utf8Path::from_path(&self.dir.join("out")).unwrap(), &windlass::model::Cancel::default())
            .unwrap()
    }

    /// Pushes a bundle; broken off after `limit` bytes, it gives the agent's last line as an error.
    pub(crate) fn push(&self, built: &Built, limit: Option<usize>) -> Result<Value, Value> {
        self.push_changed(built, limit, None, |_| {})
    }

    /// Pushes a bundle whose large files travel as what differs from those of `old`.
    pub(crate) fn push_patched(&self, built: &Built, old: &Built) -> Result<Value, Value> {
        self.push_changed(built, None, Some(old), |_| {})
    }

    pub(crate) fn layers(&self, digest: Digest) -> Vec<LayerReader> {
        let store = self.store();
        let bundle = store.bundle(&windlass::model::Reference::Digest(digest)).unwrap();
        bundle.manifest.layers.iter().map(|layer| store.layer(layer).unwrap()).collect()
    }

    /// Pushes a bundle, its stream changed on the way.
    pub(crate) fn push_changed(
        &self,
        built: &Built,
        limit: Option<usize>,
        old: Option<&Built>,
        change: impl Fn(&mut Vec<u8>),
    ) -> Result<Value, Value> {
        let store = self.store();
        let bundle = store.bundle(&windlass::model::Reference::Digest(built.digest)).unwrap();
        let manifest = store.read_blob(&built.digest, 1 << 20).unwrap();
        let config = store.read_blob(&bundle.manifest.config, 1 << 20).unwrap();
        let layers = self.layers(built.digest);
        let mut child = self.node(&["receive"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut to = child.stdin.take().unwrap();
        let mut from = BufReader::new(child.stdout.take().unwrap());
        let header = ReceiveHeader {
            format: wire::PUSH_FORMAT,
            bundle: built.digest,
            manifest: manifest.len() as u64,
            config: config.len() as u64,
            tocs: Vec::new(),
            patched_tocs: Vec::new(),
            token: None,
        };
        let mut first = serde_json::to_vec(&header).unwrap();
        first.push(b'\n');
        to.write_all(&[first, manifest, config].concat()).unwrap();
        let outcome = (|| {
            let PushLine::Tocs(asked) = line(&mut from)? else { panic!("tocs come first") };
            for layer in asked {
                let place = bundle.manifest.layers[layer].place;
                let blob = store.open_blob(&layers[layer].digest()).unwrap();
                let mut bytes = vec![0; usize::try_from(place.size).unwrap()];
                std::os::unix::fs::FileExt::read_exact_at(&blob, &mut bytes, place.offset).unwrap();
                let _ = to.write_all(&bytes);
            }
            let PushLine::Missing(missing) = line(&mut from)? else { panic!("missing comes next") };
            let mut missing = missing;
            let mut stream =
                old.map_or_else(Vec::new, |old| patches(&mut missing, &layers, &self.layers(old.digest)));
            items(&missing, &layers, &mut stream);
            change(&mut stream);
            if let Some(limit) = limit {
                stream.truncate(limit);
            }
            // The agent may have given up on it already, and says so.
            let _ = to.write_all(&stream).and_then(|()| to.flush());
            drop(to);
            match line(&mut from)? {
                PushLine::Done(received) => Ok(json!({
                    "received": received, "stream": stream.len(), "missing": missing.objects,
                })),
                other => panic!("{other:?}"),
            }
        })();
        child.wait().unwrap();
        outcome
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Whatever a failed test left running.
        let _ = self.node(&["service", "stop", "web"]).output();
    }
}

fn line(from: &mut impl BufRead) -> Result<PushLine, Value> {
    let mut text = String::new();
    from.read_line(&mut text).unwrap();
    serde_json::from_str(&text).map_err(|_| serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Large files that differ from those of the same path in `old`; they are no longer missing then.
fn patches(missing: &mut Missing, layers: &[LayerReader], old: &[LayerReader]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (index, reader) in layers.iter().enumerate() {
        let entries: Vec<usize> =
            missing.layers[index].iter().flat_map(|(start, end)| *start..*end).collect();
        let mut left = Vec::new();
        for at in entries {
            let entry = &reader.toc.entries[at];
            let before = old.iter().find_map(|old| {
                let at = old.toc.entries.iter().position(|one| one.path == entry.path)?;
                Some((old, at)).filter(|_| entry.size() >= 1 << 20)
            });
            let Some((old, old_at)) = before else {
                left.push((at, at + 1));
                continue;
            };
            let (from, to) = (old.read_file(old_at).unwrap(), reader.read_file(at).unwrap());
            let id = ObjectId { digest: Digest::of(&from), executable: false };
            let (layer, entry) = (u32::try_from(index).unwrap(), u32::try_from(at).unwrap());
            let body = wire::make_patch(&from, &to, 3).unwrap();
            let item = Item::Patch { layer, entry, old: id, old_size: from.len() as u64, body };
            item.write(&mut stream).unwrap();
        }
        missing.layers[index] = left;
    }
    stream
}

/// Everything that is missing, as a controller sends it.
pub(crate) fn items(missing: &Missing, layers: &[LayerReader], stream: &mut Vec<u8>) {
    for (index, reader) in layers.iter().enumerate() {
        let layer = u32::try_from(index).unwrap();
        for choice in wire::choose(&reader.toc, &missing.layers[index]) {
            let item = match choice {
                Choice::Frame(frame) => {
                    let body = reader.read_packed(&reader.toc.frames[frame]).unwrap();
                    Item::Frame { layer, frame: u32::try_from(frame).unwrap(), body }
                }
                Choice::Packed(entries) => {
                    let contents: Vec<u8> =
                        entries.iter().flat_map(|entry| reader.read_file(*entry).unwrap()).collect();
                    let entries = entries.iter().map(|entry| u32::try_from(*entry).unwrap()).collect();
                    Item::Packed { layer, entries, body: wire::pack(&contents, 3).unwrap() }
                }
            };
            item.write(stream).unwrap();
        }
    }
    Item::End.write(stream).unwrap();
}

pub(crate) fn activation(from: Option<&str>, to: &str, within: Option<&str>) -> Value {
    let mut request = json!({ "op": "activate", "role": "web", "from": from, "to": to });
    if let Some(within) = within {
        request["confirm_within"] = json!(within);
    }
    request
}

/// A `windlass node call` that stays.
pub(crate) struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    /// Starts a `node call`, or what runs one.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    pub(crate) fn send(&mut self, request: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{request}\n").as_bytes()).unwrap();
    }

    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        self.read()
    }

    /// The next answer.
    pub(crate) fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    /// The agent's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the agent, whatever it is at.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stdin = None;
        self.child.wait().unwrap();
    }
}

pub(crate) fn windlass() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.env_remove("WINDLASS_ROOT");
    command
}

/// One HTTP request; `None` if nobody listens.
pub(crate) fn ask(address: SocketAddr) -> Option<Value> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

/// How long tests wait for what should take moments: only a test that fails waits so long.
pub(crate) const BACKSTOP: Duration = Duration::from_mins(2);

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + BACKSTOP;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until something holds, for so many seconds.
pub(crate) fn until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Every regular file below, with its content.
pub(crate) fn files_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().to_owned(), std::fs::read(entry.path()).unwrap()))
        .collect()
}
