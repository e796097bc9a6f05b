//! What tests with a real Kafka have in common: the Java registry's jars, a producer that waits for all replicas, and
//! a consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::fetch::fetch;
use crate::support::project::{Member, file, have};
use crate::support::worker::{Pace, Worker};

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>lab</groupId><artifactId>lab</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>3.7.2</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>3.7.2</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version></dependency>
</dependencies></project>"#;

/// How long nothing may come before nothing more will.
const QUIET: Duration = Duration::from_mins(1);

/// What of the dependencies is for connectors and for TLS to ZooKeeper.
const NEEDLESS: [&str; 8] = ["connect", "jersey", "jetty", "netty", "jakarta", "javax", "rocksdb", "maven"];

/// A folder with Kafka's jars.
pub(crate) fn jars() -> Option<PathBuf> {
    if !have("java") || !have("mvn") {
        return None;
    }
    let script = format!(
        "cat >pom.xml <<'END'\n{POM}\nEND\n\
         mvn -q -B -f pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
         -DoutputDirectory=lib -DincludeScope=runtime && mv lib kafka-3.7.2.jars"
    );
    fetch("kafka-3.7.2", ".jars", &["bash", "-eo", "pipefail", "-c", &script])
}

/// Those that a broker needs, as members of an archive.
pub(crate) fn packed(jars: &Path, folder: &str) -> Vec<Member> {
    let mut members = Vec::new();
    for entry in std::fs::read_dir(jars).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !NEEDLESS.iter().any(|start| name.starts_with(start)) {
            members.push(file(&format!("{folder}/{name}"), 0o644, std::fs::read(&path).unwrap()));
        }
    }
    members.sort_by(|a, b| a.path.cmp(&b.path));
    members
}

/// One of Kafka's own tools.
pub(crate) fn tool(jars: &Path, class: &str, arguments: &[&str]) -> Child {
    Command::new("java")
        .args([
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UnlockDiagnosticVMOptions",
            "-XX:-BytecodeVerificationRemote",
            "-cp",
        ])
        .arg(format!("{}/*", jars.display()))
        .arg(class)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a producer reported.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Records that all replicas have.
    pub(crate) acked: BTreeSet<String>,
    /// Refusals by their reason.
    pub(crate) refused: BTreeMap<String, usize>,
}

/// A producer that waits for all replicas.
pub(crate) struct Producer {
    child: Child,
    /// Reads all the time: with a full pipe the producer would stop sending.
    reader: Option<Worker<Sent>>,
}

impl Producer {
    /// Starts a producer and waits for its first records. Its configuration, with `more` in it, goes to `config`.
    pub(crate) fn start(jars: &Path, servers: &str, config: &Path, more: &str) -> Self {
        // The tool does not retry unless it is configured to; every other producer does. One request at a time: of
        // several in flight when the first leader of a partition stops, the second may be written first, and the
        // first then counts as written long ago. Small batches use every partition. A slow machine is no failure.
        let text = "retries=10000\ndelivery.timeout.ms=600000\nenable.idempotence=true\n\
                    max.in.flight.requests.per.connection=1\nbatch.size=256\n";
        std::fs::write(config, format!("{text}{more}")).unwrap();
        let config = config.to_str().unwrap();
        let arguments = [
            "--bootstrap-server",
            servers,
            "--topic",
            "kept",
            "--acks",
            "-1",
            "--throughput",
            "100",
            "--producer.config",
            config,
        ];
        let mut child = tool(jars, "org.apache.kafka.tools.VerifiableProducer", &arguments);
        let lines = BufReader::new(child.stdout.take().unwrap());
        let reader = Worker::start("acknowledged records", move |pace| sent(lines, pace));
        let producer = Self { child, reader: Some(reader) };
        producer.goes_on(20, 20);
        producer
    }

    /// Waits until `more` records are acknowledged than now, and at least `least` in all.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64, least: u64) {
        self.reader.as_ref().unwrap().goes_on(more, least);
    }

    /// Ends the producer.
    pub(crate) fn stop(mut self) -> Sent {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.reader.take().unwrap().stop()
    }
}

/// Reads a producer's reports up to its end.
fn sent(lines: BufReader<ChildStdout>, pace: &Pace) -> Sent {
    let mut sent = Sent::default();
    for line in lines.lines().map_while(Result::ok) {
        let Ok(report) = serde_json::from_str::<Value>(&line) else { continue };
        if report["name"] == "producer_send_success" {
            sent.acked.insert(report["value"].as_str().unwrap().to_owned());
            pace.count();
        }
        if report["name"] == "producer_send_error" {
            *sent.refused.entry(report["exception"].to_string()).or_default() += 1;
        }
    }
    sent
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What is in the three partitions of the topic `kept`, read from the start until all of `wanted` was seen.
pub(crate) fn consumed(
    jars: &Path,
    servers: &str,
    config: Option<&Path>,
    wanted: &BTreeSet<String>,
) -> Vec<String> {
    let mut missing = wanted.clone();
    read(jars, servers, config, "kept", |record| {
        missing.remove(record);
        missing.is_empty()
    })
}

/// What is in a topic's three partitions, read from the start until `is_all` says so, or nothing more came for a long
/// time: a consumer that starts on a busy machine takes as long as it takes. Without a group, since one takes its time
/// to form.
pub(crate) fn read(
    jars: &Path,
    servers: &str,
    config: Option<&Path>,
    topic: &str,
    mut is_all: impl FnMut(&str) -> bool,
) -> Vec<String> {
    let (sender, lines) = mpsc::channel();
    let mut consumers = ["0", "1", "2"].map(|partition| {
        let mut arguments = vec!["--bootstrap-server", servers, "--topic", topic, "--partition", partition];
        arguments.extend(["--offset", "earliest"]);
        if let Some(config) = config {
            arguments.extend(["--consumer.config", config.to_str().unwrap()]);
        }
        let mut consumer = tool(jars, "kafka.tools.ConsoleConsumer", &arguments);
        let output = BufReader::new(consumer.stdout.take().unwrap());
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok());
        });
        consumer
    });
    drop(sender);
    let mut records = Vec::new();
    while let Ok(record) = lines.recv_timeout(QUIET) {
        let ends = is_all(&record);
        records.push(record);
        if ends {
            break;
        }
    }
    for consumer in &mut consumers {
        let _ended = consumer.kill();
        consumer.wait().unwrap();
    }
    // What came after the last that was wanted: it may be there twice.
    records.extend(lines.iter());
    records
}

/// Makes a topic of three partitions.
pub(crate) fn make_topic(jars: &Path, servers: &str, topic: &str, replicas: &str) {
    let arguments = ["--bootstrap-server", servers, "--create", "--topic", topic, "--partitions", "3"];
    let arguments = [&arguments[..], &["--replication-factor", replicas]].concat();
    let made = tool(jars, "org.apache.kafka.tools.TopicCommand", &arguments).wait_with_output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
}

pub(crate) fn unique(records: &[String]) -> BTreeSet<String> {
    records.iter().cloned().collect()
}
