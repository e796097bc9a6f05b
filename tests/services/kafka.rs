//! Kafka with `KRaft`: three brokers that are controllers too, from the Java registry's jars, and a producer that
//! waits for all replicas. They want to know who asks: SASL PLAIN.

use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::services::lab::{Lab, nodes_of};
use crate::support::kafka::{Producer, Sent, consumed, jars, packed, unique};
use crate::support::project::{file, skip};

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
user = "windlass"
password = "kafka_password"

[service.ready]
tcp = "{{ vars.broker_port }}"
within = "60s"
"#;

/// The storage has an identity before the first start; a second one changes nothing.
const SERVE: &str = "#!/bin/sh
[ -f \"$1/meta.properties\" ] || cp kafka/conf/meta.properties \"$1/meta.properties\"
exec java -Xmx200m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote -Dlog4j.configuration=file:kafka/conf/log4j.properties \
-cp 'kafka/*' kafka.Kafka kafka/conf/server.properties
";

const CONF: &str = r#"process.roles=broker,controller
node.id={{ vars.id }}
controller.quorum.voters=
{%- for n in nodes_with('kafka') %}{{ n.vars.id }}@{{ n.address }}:{{ n.vars.controller_port }}{{ '' if loop.last else ',' }}{% endfor %}
listeners=CLIENTS://{{ node.address }}:{{ vars.broker_port }},CONTROLLER://{{ node.address }}:{{ vars.controller_port }}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENTS:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENTS
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
{%- set word = secret('kafka_password') %}
listener.name.clients.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="broker" password="{{ word }}" user_broker="{{ word }}" user_windlass="{{ word }}";
log.dirs={{ shared }}/data
num.partitions=3
default.replication.factor=3
min.insync.replicas=2
offsets.topic.num.partitions=1
offsets.topic.replication.factor=3
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
controller.quorum.fetch.timeout.ms=4000
controller.quorum.election.timeout.ms=1000
broker.session.timeout.ms=60000
broker.heartbeat.interval.ms=200
"#;

const LOG4J: &str = "log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%d] %p %m (%c)%n
";

const PASSWORD: &str = "a-word-for-brokers";
const SECRETS: &str = "[secrets]\nkafka_password = { file = \"password\" }\n";

/// What a client of these brokers says of itself.
fn client() -> String {
    format!(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required username=\"windlass\" \
         password=\"{PASSWORD}\";\n"
    )
}

fn lab(jars: &Path) -> Lab {
    let lab = Lab::new("kafka", 3, &[("broker", 9092), ("controller", 9093)]);
    lab.cluster("", SECRETS);
    let project = &lab.project;
    project.write("password", PASSWORD);
    project.write("consumer", &client());
    let members = packed(jars, "jars");
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
    let servers: Vec<String> = lab.all("broker").iter().map(ToString::to_string).collect();
    let servers = servers.join(",");
    let producer = Producer::start(&jars, &servers, &lab.project.path("producer"), &client());

    lab.project.run(&["set", "kafka", "3.7.3"]).ok();
    lab.project.build();
    let plan = lab.project.json(&["plan"]).ok().json();
    let last = plan["waves"][2]["nodes"][0]["node"].clone();
    let begun = Instant::now();
    let events = lab.rollout(0, &["promote"]);
    println!("moved in {:?}", begun.elapsed());
    let stopped = nodes_of(&events, "stop");
    assert_eq!((stopped.len(), stopped.last().map(String::as_str)), (3, last.as_str()), "{stopped:?}");

    producer.goes_on(20, 101);
    let Sent { acked, refused } = producer.stop();
    println!("{} records, refused: {refused:?}", acked.len());
    assert!(acked.len() > 100 && refused.is_empty(), "{} records, refused: {refused:?}", acked.len());
    let there = consumed(&jars, &servers, Some(&lab.project.path("consumer")), &acked);
    println!("{} records are there, {} of them twice", there.len(), there.len() - unique(&there).len());
    let there = unique(&there);
    let lost: Vec<&String> = acked.difference(&there).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acked.len());

    // With a wrong password nothing is stopped.
    lab.project.write("password", "another-word");
    lab.cluster("gate_timeout = \"2s\"\n", SECRETS);
    let refused = lab.project.json(&["restart", "--nodes", "n1"]).exits(1);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("[service.api]") && !said.contains("another-word"), "{said}");
    lab.project.write("password", PASSWORD);
    lab.cluster("", SECRETS);

    // A node whose controller and replicas an operator has to move first cannot leave.
    let refused = lab.project.run(&["leave", "n3"]).exits(1);
    assert!(refused.stderr.contains("kafka-quorum: controller"), "{}", refused.stderr);
    lab.cluster("predicates_off = [\"kafka-quorum\"]\n", SECRETS);
    let refused = lab.project.run(&["leave", "n3"]).exits(1);
    assert!(refused.stderr.contains("kafka-replicas: it has replicas of "), "{}", refused.stderr);
    assert!(refused.stderr.contains("kafka-reassign-partitions.sh"), "{}", refused.stderr);
    no_broker_goes_while_another_is_dead(&lab);
}

/// For seconds everybody's metadata says that a broker is in sync which died a moment ago.
fn no_broker_goes_while_another_is_dead(lab: &Lab) {
    let pid = |node: usize| {
        let status = lab.project.json(&["status"]).json();
        i32::try_from(status["nodes"][node]["roles"][0]["pid"].as_i64().unwrap()).unwrap()
    };
    let first = pid(0);
    lab.cluster("predicates_off = [\"kafka-quorum\"]\ngate_timeout = \"2s\"\n", SECRETS);
    kill_process(Pid::from_raw(pid(2)).unwrap(), Signal::KILL).unwrap();
    let begun = Instant::now();
    let refused = lab.project.run(&["restart", "--nodes", "n1"]).exits(1);
    println!("refused {:?} after another one was killed", begun.elapsed());
    assert!(refused.stderr.contains("too few replicas are in sync"), "{}", refused.stderr);
    assert!(refused.stderr.contains("1 said to be in sync do not answer"), "{}", refused.stderr);
    assert_eq!(pid(0), first, "it was not stopped");
    // Two of three that stop at once wait a minute for their quorum.
    for node in [0, 1] {
        kill_process(Pid::from_raw(pid(node)).unwrap(), Signal::KILL).unwrap();
    }
    let stopped = lab.project.run(&["service", "stop"]).ok();
    assert!(stopped.stderr.contains("the last of them has no quorum"), "{}", stopped.stderr);
    let one = lab.project.run(&["service", "stop", "--nodes", "n1"]).ok();
    assert!(!one.stderr.contains("quorum"), "{}", one.stderr);
}
