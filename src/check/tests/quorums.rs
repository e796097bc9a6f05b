//! 125 to 127.

use super::{found_in, instance, the, topology};
use crate::check::{ConfFile, Instance, lint};
use crate::recipe::ServiceKind;

const THREE: &str = "server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\n";

fn zookeeper(ids: &[&str], servers: &str) -> Vec<Instance> {
    let one = |(index, id): (usize, &&str)| {
        let node = format!("n{}", index + 1);
        let text = format!("dataDir=/w/d\nclientPort=2181\n{servers}");
        let mut one = instance(&node, "zookeeper", ServiceKind::Zookeeper, "zookeeper/conf/zoo.cfg", &text);
        one.files.push(ConfFile {
            path: "zookeeper/conf/myid".to_owned(),
            text: format!("{id}\n"),
            rendered: true,
        });
        one
    };
    ids.iter().enumerate().map(one).collect()
}

fn kafka(confs: &[&str]) -> Vec<Instance> {
    let one = |(index, conf): (usize, &&str)| {
        let node = format!("n{}", index + 1);
        instance(&node, "kafka", ServiceKind::Kafka, "kafka/config/server.properties", conf)
    };
    confs.iter().enumerate().map(one).collect()
}

const GOOD: &str = "default.replication.factor=3\nmin.insync.replicas=2\n";

#[test]
fn ids_are_given_once() {
    assert_eq!(found_in(zookeeper(&["1", "2", "3"], THREE)), Vec::<&str>::new());
    let problems = lint(&topology(zookeeper(&["1", "2", "2"], THREE)));
    assert!(the(&problems, "E125").message.contains("on n2 and on n3"));
    let twice = "server.1=a:2888:3888\nserver.1=b:2888:3888\nserver.3=c:2888:3888\nserver.4=d:2888:3888\n";
    let problems = lint(&topology(zookeeper(&["1", "3", "4"], twice)));
    assert_eq!(the(&problems, "E125").place, "zookeeper/conf/zoo.cfg:4");
    assert!(found_in(zookeeper(&["one", "2", "3"], THREE)).contains(&"E100"));
    let brokers = |second: &str| {
        let conf = |id: &str| format!("{GOOD}broker.id={id}\n");
        found_in(kafka(&[&conf("0"), &conf(second), &conf("2")]))
    };
    assert_eq!(brokers("0"), ["E125"]);
    assert_eq!(brokers("1"), Vec::<&str>::new());
    let auto = format!("{GOOD}broker.id=-1\n");
    assert_eq!(found_in(kafka(&[&auto, &auto, &auto])), Vec::<&str>::new());
}

#[test]
fn voters_make_a_majority() {
    let servers = |count: usize| {
        (1..=count).map(|n| format!("server.{n}=h{n}:2888:3888\n")).collect::<Vec<_>>().concat()
    };
    for (count, fires) in [(2, true), (3, false), (4, true), (5, false)] {
        let found = found_in(zookeeper(&["1", "2"], &servers(count)));
        assert_eq!(found, if fires { vec!["E126"] } else { Vec::new() }, "{count}");
    }
    let observer = format!("{THREE}server.4=d:2888:3888:observer\n");
    assert_eq!(found_in(zookeeper(&["1", "2", "3", "4"], &observer)), Vec::<&str>::new());
    assert_eq!(found_in(zookeeper(&["1"], "")), ["W126"]);
    let quorum =
        |voters: &str| format!("{GOOD}process.roles=broker,controller\ncontroller.quorum.voters={voters}\n");
    let kraft = |voters: &str| {
        let conf = |id: usize| format!("{}node.id={id}\n", quorum(voters));
        found_in(kafka(&[&conf(1), &conf(2), &conf(3)]))
    };
    assert_eq!(kraft("1@a:9093,2@b:9093"), ["E126"]);
    assert_eq!(kraft("1@a:9093,2@b:9093,3@c:9093"), Vec::<&str>::new());
}

#[test]
fn a_broker_may_be_away() {
    let two = "default.replication.factor=2\nmin.insync.replicas=1\n";
    assert_eq!(found_in(kafka(&[two; 3])), ["W127"]);
    let stops = "default.replication.factor=3\nmin.insync.replicas=3\n";
    let problems = lint(&topology(kafka(&[stops; 3])));
    assert!(problems.iter().any(|one| one.code == "E127" && one.place == "kafka/config/server.properties:2"));
    assert_eq!(found_in(kafka(&[GOOD; 3])), Vec::<&str>::new());
    // Of one broker nothing else can be asked.
    let one = "offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n";
    assert_eq!(found_in(kafka(&[one])), ["W127"]);
}
