//! The demo's service: a small HTTP server, started from a release as a vendor's program is.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use camino::Utf8Path;
use serde_json::json;

use crate::cli::args::DemoService;
use crate::cli::error::{Failure, exit};
use crate::fs::IoResultExt as _;

/// What the service answers with.
struct Site {
    version: String,
    node: String,
    /// The line that its conf must have, and whether it does.
    greeting: Result<String, String>,
    /// With `format = json` in its conf, what it answers: who it is, and all of its conf.
    json: Option<String>,
}

/// Serves until it is stopped.
pub(in crate::cli) fn run(args: &DemoService) -> Result<u8, Failure> {
    let read = |path: &Utf8Path| std::fs::read_to_string(path).at("read", path);
    let conf = conf(&read(&args.conf)?);
    let missing = |key: &str| Failure::new(exit::INVALID, "demo", format!("{} has no `{key}`", args.conf));
    let value = |key: &str| conf.get(key).cloned().ok_or_else(|| missing(key));
    let wanted = read(&args.home.join("GREETING-KEY"))?;
    let version = read(&args.home.join("VERSION"))?;
    let site = Site {
        node: value("node")?,
        greeting: value(wanted.trim()).map_err(|_| format!("{} has no `{}`", args.conf, wanted.trim())),
        json: conf.get("format").is_some_and(|format| format == "json").then(|| description(&version, &conf)),
        version,
    };
    let listen = value("listen")?;
    let listener = TcpListener::bind(&listen)
        .map_err(|error| Failure::new(exit::FAILED, "demo", format!("cannot listen on {listen}: {error}")))?;
    println!("serving {} on {listen}", site.version);
    for connection in listener.incoming().flatten() {
        // Who went away before the answer was there is nobody's failure.
        let _gone = answer(&site, &connection);
    }
    Ok(exit::DONE)
}

/// The process and its conf, as JSON.
fn description(version: &str, conf: &BTreeMap<String, String>) -> String {
    let release = std::env::var("RELEASE").ok();
    let (pid, user) = (std::process::id(), rustix::process::geteuid().as_raw());
    json!({ "version": version, "release": release, "pid": pid, "user": user, "conf": conf }).to_string()
}

/// `key = value` lines; `#` starts a comment.
fn conf(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn answer(site: &Site, mut connection: &TcpStream) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut lines = BufReader::new(connection);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 2 {
        line.clear();
    }
    let (status, body) = match (&site.greeting, &site.json) {
        (Ok(_), Some(json)) => ("200 OK", json.clone()),
        (Ok(greeting), None) => {
            ("200 OK", format!("{greeting}, says hello {} on {}\n", site.version, site.node))
        }
        (Err(problem), _) => ("500 Internal Server Error", format!("{problem}\n")),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes())
}
