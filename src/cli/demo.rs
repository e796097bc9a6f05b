//! `windlass demo`: the tool's own commands, run on a small project in a temporary folder.
//!
//! Every command is run as an operator would type it, by this same binary, and shown with its output and
//! exit code. What is expected of each is checked: a demo that goes wrong says so and fails.

use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::args::Demo;
use super::context::{Context, print};
use super::error::{Failure, exit};
use crate::fs::{IoError, IoResultExt as _};
use crate::report::Table;

/// Runs the demo.
pub(super) fn run(context: &Context, args: &Demo) -> Result<u8, Failure> {
    let temporary = tempfile::Builder::new()
        .prefix("windlass-demo-")
        .tempdir()
        .at("create a folder in", Utf8Path::new("the temporary folder"))?;
    let folder = Utf8PathBuf::from_path_buf(temporary.path().to_owned())
        .map_err(|path| Failure::new(exit::FAILED, "io", format!("{} is not UTF-8", path.display())))?;
    write_project(&folder)?;
    let mut stage = Stage { context, folder: &folder, rows: Vec::new() };
    stage.play()?;
    if args.keep {
        let kept = temporary.keep();
        stage.say(&format!("the folder is kept: {}", kept.display()))?;
    }
    let table = stage.table();
    let rows = stage.rows;
    context.result(|| json(&rows), || format!("\n{table}"))?;
    Ok(exit::DONE)
}

/// One command that was run.
struct Row {
    command: String,
    exit: i32,
    milliseconds: u128,
    note: String,
}

fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        serde_json::json!({
            "command": row.command,
            "exit": row.exit,
            "duration_ms": u64::try_from(row.milliseconds).unwrap_or(u64::MAX),
            "note": row.note,
        })
    };
    serde_json::json!({ "steps": rows.iter().map(row).collect::<Vec<_>>() })
}

struct Stage<'a> {
    context: &'a Context,
    folder: &'a Utf8Path,
    rows: Vec<Row>,
}

impl Stage<'_> {
    fn play(&mut self) -> Result<(), Failure> {
        self.say("# Two roles, a small HTTP service and its proxy, share one runtime. Artifacts are recorded, then built.")?;
        self.run(&["lock"], 0)?;
        self.run(&["build"], 0)?;
        let first = self.digest("hello")?;

        self.say("# Nothing changed: nothing is read.")?;
        self.run(&["build"], 0)?;

        self.say("# One line of conf: a new bundle, and still no artifact is read.")?;
        self.edit("conf/hello/hello.conf", "greeting = hello", "greeting = good morning")?;
        self.run(&["build"], 0)?;
        self.run(&["diff", "hello:1.0.0-1", "hello"], 0)?;

        self.say("# A new version of the service; the runtime's layer is the one that is there.")?;
        self.run(&["set", "hello", "2.0.0"], 0)?;
        self.run(&["build"], 0)?;
        self.run(&["inspect", "hello"], 0)?;

        self.say("# An artifact that was changed under its name is refused.")?;
        let artifact = self.folder.join("install/hello-2.0.0.tar.gz");
        let good = std::fs::read(&artifact).at("read", &artifact)?;
        write(&artifact, &[good.as_slice(), b"\0"].concat())?;
        self.run(&["build"], 2)?;
        write(&artifact, &good)?;

        self.say("# The same inputs give the same bytes: built again from nothing, on one thread.")?;
        self.run(&["set", "hello", "1.0.0"], 0)?;
        self.edit("conf/hello/hello.conf", "greeting = good morning", "greeting = hello")?;
        let out = self.folder.join("out");
        std::fs::rename(&out, self.folder.join("out.before")).at("rename", &out)?;
        self.run(&["build", "--jobs", "1"], 0)?;
        let again = self.digest("hello")?;
        if first != again {
            let message = format!("the same inputs gave {first} and then {again}");
            return Err(Failure::new(exit::FAILED, "demo", message));
        }
        self.note(format!("hello is {} again", &again[..19.min(again.len())]));
        self.run(&["verify"], 0)
    }

    /// Shows a sentence of the play.
    fn say(&self, text: &str) -> Result<(), Failure> {
        let colour = self.context.colour_stdout();
        self.show(&if colour { format!("\n\x1b[1m{text}\x1b[0m\n") } else { format!("\n{text}\n") })
    }

    fn show(&self, text: &str) -> Result<(), Failure> {
        if self.context.is_json() || self.context.common.quiet { Ok(()) } else { print(text) }
    }

    fn note(&mut self, note: String) {
        if let Some(row) = self.rows.last_mut() {
            row.note = note;
        }
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let binary = std::env::current_exe().at("find", Utf8Path::new("the running binary"))?;
        let mut command = Command::new(binary);
        command.args(arguments).current_dir(self.folder).env_remove("WINDLASS_BUILD");
        Ok(command)
    }

    fn run(&mut self, arguments: &[&str], expected: i32) -> Result<(), Failure> {
        let shown = format!("windlass {}", arguments.join(" "));
        self.show(&format!("$ {shown}\n"))?;
        let started = Instant::now();
        let silent = self.context.is_json() || self.context.common.quiet;
        let mut command = self.command(arguments)?;
        if silent {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        } else if !std::io::stdout().is_terminal() {
            // In a log, what a command says on stderr stands where it was said.
            command.stderr(Stdio::from(duplicate_stdout()?));
        }
        std::io::stdout().flush().at("write to", Utf8Path::new("stdout"))?;
        let status = command.status().at("run", Utf8Path::new("windlass"))?;
        let code = status.code().unwrap_or(-1);
        let milliseconds = started.elapsed().as_millis();
        self.rows.push(Row { command: shown.clone(), exit: code, milliseconds, note: String::new() });
        if self.context.cancel.is_set() || code == i32::from(exit::INTERRUPTED) {
            return Err(crate::model::Cancelled.into());
        }
        if code == expected {
            return Ok(());
        }
        let message = format!("`{shown}` ended with exit code {code}; expected {expected}");
        Err(Failure::new(exit::FAILED, "demo", message))
    }

    /// The digest of the newest bundle of a role.
    fn digest(&self, role: &str) -> Result<String, Failure> {
        let output =
            self.command(&["ls", role, "--format", "json"])?.output().at("run", Utf8Path::new("windlass"))?;
        serde_json::from_slice::<Value>(&output.stdout)
            .ok()
            .and_then(|value| Some(value["bundles"].as_array()?.last()?["digest"].as_str()?.to_owned()))
            .ok_or_else(|| {
                Failure::new(exit::FAILED, "demo", format!("`windlass ls {role}` shows no bundle"))
            })
    }

    fn edit(&self, file: &str, from: &str, to: &str) -> Result<(), Failure> {
        let path = self.folder.join(file);
        let text = std::fs::read_to_string(&path).at("read", &path)?;
        write(&path, text.replace(from, to).as_bytes())?;
        self.show(&format!("$ sed -i 's/{from}/{to}/' {file}\n"))
    }

    fn table(&self) -> String {
        let mut table = Table::new(&["COMMAND", "EXIT", "MS", "NOTE"]).right(&[1, 2]);
        for row in &self.rows {
            let (exit, milliseconds) = (row.exit.to_string(), row.milliseconds.to_string());
            table.row([row.command.clone(), exit, milliseconds, row.note.clone()]);
        }
        table.to_string()
    }
}

fn duplicate_stdout() -> Result<std::os::fd::OwnedFd, IoError> {
    use std::os::fd::AsFd as _;
    std::io::stdout().as_fd().try_clone_to_owned().at("write to", Utf8Path::new("stdout"))
}

fn write(path: &Utf8Path, bytes: &[u8]) -> Result<(), IoError> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).at("create", dir)?;
    }
    std::fs::write(path, bytes).at("write", path)
}

const PROJECT: &str = r#"schema = 1
name = "demo"

[versions]          # the one place where a version is raised
hello = "1.0.0"
runtime = "3.1"
"#;

const RUNTIME: &str = r#"schema = 1
version = "{{ versions.hello }}-{{ build }}"

[[unpack]]
artifact = "runtime-{{ versions.runtime }}.tar.gz"
into = "runtime"
"#;

const HELLO: &str = r#"schema = 1
extends = "_runtime"

[[unpack]]
artifact = "hello-{{ versions.hello }}.tar.gz"
into = "hello"

[[conf]]
from = "hello"
into = "hello/conf"
render = ["hello.conf"]

[[persist]]
name = "data"
at = "hello/data"

[service]
kind = "process"
start = ["runtime/bin/serve", "hello/conf/hello.conf"]

[service.ready]
http = { port = "{{ vars.port }}", path = "/", status = 200 }

[vars]
port = 8080
"#;

const PROXY: &str = r#"schema = 1
extends = "_runtime"

[[conf]]
from = "proxy"
into = "proxy"

[service]
kind = "process"
start = ["runtime/bin/serve", "proxy/proxy.conf"]
"#;

const HELLO_CONF: &str =
    "# rendered on each node\nlisten = {{ node.address }}:{{ vars.port }}\ngreeting = hello\n";

/// Writes windlass.toml, recipes, conf, and artifacts laid out as vendors lay them out.
fn write_project(folder: &Utf8Path) -> Result<(), Failure> {
    for (file, text) in [
        ("windlass.toml", PROJECT),
        ("recipes/_runtime.toml", RUNTIME),
        ("recipes/hello.toml", HELLO),
        ("recipes/proxy.toml", PROXY),
        ("conf/hello/hello.conf", HELLO_CONF),
        ("conf/proxy/proxy.conf", "listen = 8000\nforward = 8080\n"),
    ] {
        write(&folder.join(file), text.as_bytes())?;
    }
    let library = library(24 << 20);
    let runtime = [
        ("bin/serve", 0o755, b"#!/bin/sh\nexec python3 -m http.server\n".to_vec()),
        ("lib/runtime.so", 0o644, library),
        ("LICENSE", 0o644, b"Do as you please.\n".to_vec()),
    ];
    tarball(&folder.join("install/runtime-3.1.tar.gz"), "runtime-3.1", &runtime)?;
    for version in ["1.0.0", "2.0.0"] {
        let pages = (0..200).map(|page| {
            let edition = if page % 20 == 0 { version } else { "any" };
            let text = format!("<h1>Page {page}</h1><p>Edition {edition}</p>\n").repeat(40);
            (format!("pages/{page:03}.html"), 0o644, text.into_bytes())
        });
        let files: Vec<_> =
            pages.chain([("VERSION".to_owned(), 0o644, version.as_bytes().to_vec())]).collect();
        let files: Vec<_> =
            files.iter().map(|(name, mode, bytes)| (name.as_str(), *mode, bytes.clone())).collect();
        tarball(
            &folder.join(format!("install/hello-{version}.tar.gz")),
            &format!("hello-{version}"),
            &files,
        )?;
    }
    Ok(())
}

/// Bytes that compress about as well as machine code does, the same at every run.
fn library(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut out = Vec::with_capacity(size + 16);
    while out.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [a, b, c, ..] = state.to_be_bytes();
        out.extend_from_slice(&[0x48, 0x8b, a & 0x3f, b, 0, 0, 0, c & 0x0f]);
    }
    out.truncate(size);
    out
}

fn tarball(path: &Utf8Path, top: &str, files: &[(&str, u32, Vec<u8>)]) -> Result<(), IoError> {
    write(path, b"")?;
    let file = std::fs::File::create(path).at("create", path)?;
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    for (name, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(bytes.len() as u64);
        header.set_mtime(1_500_000_000);
        tar.append_data(&mut header, format!("{top}/{name}"), bytes.as_slice()).at("write", path)?;
    }
    tar.into_inner().and_then(flate2::write::GzEncoder::finish).at("write", path)?;
    Ok(())
}
