//! 125 to 127: Kafka and ZooKeeper: ids, voters, copies.

use std::collections::BTreeMap;

use crate::check::codes::{E125, E126, E127, W126, W127};
use crate::check::settings::Settings;
use crate::check::{Instance, Problem, Topology};
use crate::recipe::ServiceKind;

/// All of them.
pub(super) fn lint(topology: &Topology, problems: &mut Vec<Problem>) {
    let roles = |kind: ServiceKind| {
        let mut roles: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
        for one in topology.instances.iter().filter(|one| one.kind == kind && topology.is_asked(&one.role)) {
            roles.entry(&one.role).or_default().push(one);
        }
        roles
    };
    for servers in roles(ServiceKind::Zookeeper).values() {
        zookeeper(topology, servers, problems);
    }
    for brokers in roles(ServiceKind::Kafka).values() {
        kafka(topology, brokers, problems);
    }
}

/// An id, told apart from those before it.
fn unique<'a>(
    seen: &mut BTreeMap<String, &'a Instance>,
    one: &'a Instance,
    (id, what, place): (String, &str, String),
    problems: &mut Vec<Problem>,
) {
    if let Some(other) = seen.get(&id) {
        problems.push(Problem::new(
            E125,
            Some(&one.node),
            place,
            format!("{what} is {id} on {} and on {}", other.node, one.node),
            "give each node its own in cluster.toml, and never change it: the data knows it",
        ));
    }
    seen.insert(id, one);
}

fn voters(topology: &Topology, count: usize, place: String, what: &str, problems: &mut Vec<Problem>) {
    let help = "three voters, or five: an even number survives no more than one fewer";
    if count == 1 && topology.nodes == 1 {
        let message = format!("one {what}, on a cluster of one node: while it is away, so is the service");
        problems.push(Problem::new(W126, None, place, message, help));
    } else if count < 3 {
        let message = format!("{count} {what}s: the loss of any one stops them");
        problems.push(Problem::new(E126, None, place, message, help));
    } else if count.is_multiple_of(2) {
        let message = format!("{count} {what}s, an even number");
        problems.push(Problem::new(E126, None, place, message, help));
    }
}

fn zookeeper(topology: &Topology, servers: &[&Instance], problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for one in servers {
        if let Some(file) = one.conf("myid") {
            let id = file.text.trim().to_owned();
            if id.is_empty() || id.parse::<u16>().is_err() {
                let message = format!("myid of {} is no number: {id:?}", one.name());
                problems.push(Problem::unreadable(Some(&one.node), &file.path, message));
                continue;
            }
            unique(&mut seen, one, (id, "myid", format!("{}:1", file.path)), problems);
        }
    }
    let Some((one, file)) = servers.iter().find_map(|one| Some((one, one.conf("zoo.cfg")?))) else { return };
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, line) in file.text.lines().enumerate() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let Some(id) = key.trim().strip_prefix("server.") else { continue };
        if let Some(first) = ids.get(id) {
            problems.push(Problem::new(
                E125,
                Some(&one.node),
                format!("{}:{}", file.path, index + 1),
                format!("server.{id} stands on line {first} and again here: {}", value.trim()),
                "give each node its own id in cluster.toml, and never change it: the data knows it",
            ));
        }
        if !value.contains(":observer") {
            ids.insert(id, index + 1);
        }
    }
    let conf = Settings::properties(&file.path, &file.text);
    let place = ids.keys().next().map_or_else(|| file.path.clone(), |id| conf.place(&format!("server.{id}")));
    // Without any, each is a server of its own.
    voters(topology, if ids.is_empty() { 1 } else { ids.len() }, place, "ZooKeeper voter", problems);
}

fn kafka(topology: &Topology, brokers: &[&Instance], problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    let read = |one: &&Instance| {
        let file = one.conf("server.properties")?;
        Some(Settings::properties(&file.path, &file.text))
    };
    for one in brokers {
        let Some(conf) = read(one) else { continue };
        for key in ["node.id", "broker.id"] {
            // -1 lets the cluster choose.
            if let Some(id) = conf.get(key).filter(|id| id != "-1") {
                unique(&mut seen, one, (id, key, conf.place(key)), problems);
                break;
            }
        }
    }
    let Some(conf) = brokers.iter().find_map(read) else { return };
    if let Some(quorum) = conf.list("controller.quorum.voters") {
        voters(topology, quorum.len(), conf.place("controller.quorum.voters"), "KRaft voter", problems);
    }
    copies(&conf, brokers.len(), problems);
}

fn copies(conf: &Settings, brokers: usize, problems: &mut Vec<Problem>) {
    let pairs = [
        ("default.replication.factor", 1, "min.insync.replicas", 1),
        ("offsets.topic.replication.factor", 3, "min.insync.replicas", 1),
        ("transaction.state.log.replication.factor", 3, "transaction.state.log.min.isr", 2),
    ];
    for (key, usual, least, least_usual) in pairs {
        let factor = conf.number(key).unwrap_or(usual);
        let insync = conf.number(least).unwrap_or(least_usual);
        let unset = if conf.has(key) { "" } else { ", by default" };
        if factor < 3 {
            problems.push(Problem::new(
                W127,
                None,
                conf.place(key),
                format!("{key} is {factor}{unset}: one broker away, and a second failure loses data"),
                format!("{key}=3, on three brokers or more"),
            ));
        }
        // Of one broker every change is an outage anyway, which the warning says.
        if insync > factor || (insync == factor && brokers > 1) {
            problems.push(Problem::new(
                E127,
                None,
                conf.place(if conf.has(least) { least } else { key }),
                format!(
                    "{least} is {insync} and {key} is {factor}: with one broker away nothing can be written"
                ),
                format!("{least}={}, at most one below {key}", (factor - 1).max(1)),
            ));
        }
    }
}
