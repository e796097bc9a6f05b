//! Kafka with `KRaft`: three brokers that are controllers too, from the Java registry's jars, and a producer that
//! waits for all replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::fetch::fetch;
use crate::lab::{Lab, nodes_of};
use crate::project::{file, have, skip};

const RECIPE: &str = r#"schema = 1
version = "{{ versions.kafka }}-{{ build }}"

[[unpack]]
artifact = "jars.tar.gz"
into = "kafka"

[[unpack]]
artifact = "kafka-{{ versions.kafka }}.tar.gz"
into = "bin"

[[conf]]
from = "kafka"
into = "kafka/conf"
render = ["server.properties", "meta.properties"]

[[persist]]
name = "data"

[service]
kind = "kafka"
start = ["bin/serve", "{{ shared }}/data"]
stop = { signal = "TERM", timeout = "60s" }

[service.api]
port = "{{ vars.broker_port }}"

[service.ready]
tcp = "{{ vars.broker_port }}"
within = "60s"
"#;

/// The storage has an identity before the first start; a second one changes nothing.
const SERVE: &str = "#!/bin/sh
[ -f \"$1/meta.properties\" ] || cp kafka/conf/meta.properties \"$1/meta.properties\"
exec java -Xmx200m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j.configuration=file:kafka/conf/log4j.properties \
-cp 'kafka/*' kafka.Kafka kafka/conf/server.properties
";

const CONF: &str = "process.roles=broker,controller
node.id={{ vars.id }}
controller.quorum.voters=
{%- for n in nodes_with('kafka') %}{{ n.vars.id }}@{{ n.address }}:{{ n.vars.controller_port }}{{ '' if loop.last else ',' }}{% endfor %}
listeners=PLAINTEXT://{{ node.address }}:{{ vars.broker_port }},CONTROLLER://{{ node.address }}:{{ vars.controller_port }}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={{ shared }}/data
num.partitions=3
default.replication.factor=3
min.insync.replicas=2
offsets.topic.num.partitions=1
offsets.topic.replication.factor=3
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
controller.quorum.fetch.timeout.ms=1000
controller.quorum.election.timeout.ms=500
";

const LOG4J: &str = "log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%d] %p %m (%c)%n
";

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>lab</groupId><artifactId>lab</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>3.7.2</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>3.7.2</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version></dependency>
</dependencies></project>"#;

/// What of the dependencies is for connectors and for TLS to ZooKeeper.
const NEEDLESS: [&str; 8] = ["connect", "jersey", "jetty", "netty", "jakarta", "javax", "rocksdb", "maven"];

/// A folder with Kafka's jars.
fn jars() -> Option<PathBuf> {
    if !have("java") || !have("mvn") {
        return None;
    }
    let script = format!(
        "rm -rf kafka.tmp && mkdir kafka.tmp && cat >kafka.tmp/pom.xml <<'END'\n{POM}\nEND\n\
         mvn -q -B -f kafka.tmp/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
         -DoutputDirectory=lib -DincludeScope=runtime && mv kafka.tmp/lib kafka-3.7.2.jars"
    );
    fetch("kafka-3.7.2", ".jars", &["sh", "-c", &script])
}

fn lab(jars: &Path) -> Lab {
    let lab = Lab::new("kafka", 3, &["broker", "controller"]);
    let project = &lab.project;
    let mut members = Vec::new();
    for entry in std::fs::read_dir(jars).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !NEEDLESS.iter().any(|start| name.starts_with(start)) {
            members.push(file(&format!("jars/{name}"), 0o644, std::fs::read(&path).unwrap()));
        }
    }
    members.sort_by(|a, b| a.path.cmp(&b.path));
    project.artifact("jars.tar.gz", &members);
    for version in ["3.7.2", "3.7.3"] {
        let members = [
            file(&format!("kafka-{version}/serve"), 0o755, SERVE),
            file(&format!("kafka-{version}/VERSION"), 0o644, version),
        ];
        project.artifact(&format!("kafka-{version}.tar.gz"), &members);
    }
    project.write("windlass.toml", "schema = 1\nname = \"lab\"\n[versions]\nkafka = \"3.7.2\"\n");
    project.write("recipes/kafka.toml", RECIPE);
    project.write("conf/kafka/server.properties", CONF);
    let identity = "version=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\nnode.id={{ vars.id }}\n";
    project.write("conf/kafka/meta.properties", identity);
    project.write("conf/kafka/log4j.properties", LOG4J);
    lab
}

/// One of Kafka's own tools.
fn tool(jars: &Path, class: &str, arguments: &[&str]) -> Child {
    Command::new("java")
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(format!("{}/*", jars.display()))
        .arg(class)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A producer that tells of every write that all replicas have.
struct Producer {
    child: Child,
    lines: BufReader<ChildStdout>,
    acked: BTreeSet<String>,
    /// What was refused, and how often, by the reason.
    refused: BTreeMap<String, usize>,
}

impl Producer {
    /// One that has written.
    fn start(jars: &Path, servers: &str, config: &Path) -> Self {
        // The tool does not try again unless it is told to; every other producer does. One request at a time: of
        // several that are on their way when the first leader of a partition goes, the second may be written first,
        // and the first is then taken for one that was written long ago. Small batches use every partition.
        let text = "retries=1000\nenable.idempotence=true\nmax.in.flight.requests.per.connection=1\nbatch.size=256\n";
        std::fs::write(config, text).unwrap();
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
        let mut producer = Self { child, lines, acked: BTreeSet::new(), refused: BTreeMap::new() };
        while producer.acked.len() < 20 {
            assert!(producer.next().is_some(), "the producer ended");
        }
        producer
    }

    /// The next thing that it tells; `None` at its end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).ok()?;
        if told["name"] == "producer_send_success" {
            self.acked.insert(told["value"].as_str().unwrap().to_owned());
        }
        if told["name"] == "producer_send_error" {
            *self.refused.entry(told["exception"].to_string()).or_default() += 1;
        }
        Some(told)
    }

    /// Ends it: what was acknowledged, and what was refused.
    fn stop(mut self) -> (BTreeSet<String>, BTreeMap<String, usize>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        while self.next().is_some() {}
        (std::mem::take(&mut self.acked), std::mem::take(&mut self.refused))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// All that is in the topic's three partitions. Without a group, since one takes its time to form.
fn consumed(jars: &Path, servers: &str) -> Vec<String> {
    let read = |partition: &str| {
        let arguments = ["--bootstrap-server", servers, "--topic", "kept", "--partition", partition];
        let to_the_end = ["--offset", "earliest", "--timeout-ms", "6000"];
        tool(jars, "kafka.tools.ConsoleConsumer", &[&arguments[..], &to_the_end].concat())
    };
    let mut records = Vec::new();
    for mut consumer in ["0", "1", "2"].map(read) {
        let mut text = String::new();
        consumer.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        consumer.wait().unwrap();
        records.extend(text.lines().map(str::to_owned));
    }
    records
}

fn unique(records: &[String]) -> BTreeSet<String> {
    records.iter().cloned().collect()
}

#[test]
fn no_record_is_lost_and_the_active_controller_goes_last() {
    let Some(jars) = jars() else {
        skip("Kafka's jars cannot be had");
        return;
    };
    let lab = lab(&jars);
    lab.project.build();
    let begun = Instant::now();
    lab.rollout(0, &["promote"]);
    println!("formed in {:?}", begun.elapsed());
    let servers: Vec<String> =
        lab.ports_of("broker").iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let servers = servers.join(",");
    let producer = Producer::start(&jars, &servers, &lab.project.path("producer"));

    lab.project.run(&["set", "kafka", "3.7.3"]).ok();
    lab.project.build();
    let plan = lab.project.json(&["plan"]).ok().json();
    let last = plan["waves"][2]["nodes"][0]["node"].clone();
    let begun = Instant::now();
    let events = lab.rollout(0, &["promote"]);
    println!("moved in {:?}", begun.elapsed());
    let stopped = nodes_of(&events, "stop");
    assert_eq!((stopped.len(), stopped.last().map(String::as_str)), (3, last.as_str()), "{stopped:?}");

    let (acked, refused) = producer.stop();
    println!("{} records, refused: {refused:?}", acked.len());
    assert!(acked.len() > 100 && refused.is_empty(), "{} records, refused: {refused:?}", acked.len());
    let there = consumed(&jars, &servers);
    println!("{} records are there, {} of them twice", there.len(), there.len() - unique(&there).len());
    let there = unique(&there);
    let lost: Vec<&String> = acked.difference(&there).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acked.len());

    // What only a person can move is not left behind.
    let refused = lab.project.run(&["leave", "n3"]).exits(1);
    assert!(refused.stderr.contains("kafka-quorum: controller"), "{}", refused.stderr);
    lab.cluster("predicates_off = [\"kafka-quorum\"]\n", "");
    let refused = lab.project.run(&["leave", "n3"]).exits(1);
    assert!(refused.stderr.contains("kafka-replicas: it has replicas of "), "{}", refused.stderr);
    assert!(refused.stderr.contains("kafka-reassign-partitions.sh"), "{}", refused.stderr);
}
