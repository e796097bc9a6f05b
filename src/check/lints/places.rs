//! 118 and 119: directories, names and ports, each for one service only.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;

use crate::check::codes::{E118, E119};
use crate::check::elastic::{Elastic, EsNode, KINDS};
use crate::check::settings::Settings;
use crate::check::{Instance, Problem, Topology, ports};
use crate::recipe::ServiceKind;

/// All of them.
pub(super) fn lint(topology: &Topology, elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    if topology.asks_for(&KINDS) {
        paths(elastic, problems);
        names(elastic, problems);
        clusters(elastic, problems);
    }
    same_port(topology, problems);
    same_dir(topology, problems);
}

fn paths(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let mut users: BTreeMap<(&str, Utf8PathBuf), &EsNode<'_>> = BTreeMap::new();
    for node in &elastic.nodes {
        for key in ["path.data", "path.logs"] {
            for path in node.paths(key) {
                let at = Some(node.at.node.as_str());
                let place = node.conf.place(key);
                if node.at.is_in_release(&path) {
                    let unset = if node.conf.has(key) { "" } else { ", where it is unless it is set" };
                    problems.push(Problem::new(
                        E118,
                        at,
                        &place,
                        format!("{key} of {} is {path}, inside the release{unset}", node.called()),
                        format!("{key}: {{{{ shared }}}}/{}", key.rsplit('.').next().unwrap_or(key)),
                    ));
                    continue;
                }
                if let Some(other) = users.get(&(node.at.host.as_str(), path.clone()))
                    && other.at.name() != node.at.name()
                {
                    problems.push(Problem::new(
                        E118,
                        at,
                        &place,
                        format!(
                            "{} and {} both have {path} on {}",
                            other.called(),
                            node.called(),
                            node.at.host
                        ),
                        "give each node directories of its own",
                    ));
                }
                users.insert((&node.at.host, path), node);
            }
        }
    }
}

fn names(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<String, &EsNode<'_>> = BTreeMap::new();
    for node in &elastic.nodes {
        // From 7 on the host's name is the usual one.
        let by_host = node.version().is_some_and(|version| version.major >= 7);
        let name = match &node.name {
            Some(name) => name.clone(),
            None if by_host => format!("the name of {}", node.at.host),
            None => continue,
        };
        if let Some(other) = seen.get(&name) {
            problems.push(Problem::new(
                E119,
                Some(&node.at.node),
                node.conf.place("node.name"),
                format!("{} and {} are both called {name}", other.at.name(), node.at.name()),
                "node.name: {{ node.name }} and the tier, so that each has its own",
            ));
        }
        seen.insert(name, node);
    }
}

fn clusters(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let name =
        |node: &EsNode<'_>| node.conf.get("cluster.name").unwrap_or_else(|| "elasticsearch".to_owned());
    let Some(first) = elastic.nodes.first() else { return };
    for node in elastic.nodes.iter().filter(|node| name(node) != name(first)) {
        problems.push(Problem::new(
            E119,
            Some(&node.at.node),
            node.conf.place("cluster.name"),
            format!("cluster.name is {} here and {} on {}", name(node), name(first), first.at.name()),
            "cluster.name: {{ cluster.name }}, or a cluster file for each cluster",
        ));
    }
}

/// Whether two services that want the same are two, and one of them is asked about.
fn is_clash(topology: &Topology, one: &Instance, other: &Instance) -> bool {
    one.name() != other.name() && (topology.is_asked(&one.role) || topology.is_asked(&other.role))
}

fn same_port(topology: &Topology, problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for one in &topology.instances {
        for (port, place) in ports(one) {
            match seen.insert((one.host.as_str(), port), one) {
                Some(other) if is_clash(topology, other, one) => problems.push(Problem::new(
                    E119,
                    Some(&one.node),
                    place,
                    format!("{} and {} both listen on port {port} of {}", other.name(), one.name(), one.host),
                    "give each its own port",
                )),
                _ => {}
            }
        }
    }
}

/// The directories that Kafka and ZooKeeper keep their data in.
fn same_dir(topology: &Topology, problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for one in &topology.instances {
        let (file, keys): (&str, &[&str]) = match one.kind {
            ServiceKind::Kafka => ("server.properties", &["log.dirs", "log.dir"]),
            ServiceKind::Zookeeper => ("zoo.cfg", &["dataDir", "dataLogDir"]),
            _ => continue,
        };
        let Some(file) = one.conf(file) else { continue };
        let conf = Settings::properties(&file.path, &file.text);
        for key in keys {
            for path in conf.list(key).unwrap_or_default() {
                match seen.insert((one.host.clone(), path.clone()), one) {
                    Some(other) if is_clash(topology, other, one) => problems.push(Problem::new(
                        E119,
                        Some(&one.node),
                        conf.place(key),
                        format!(
                            "{} and {} both keep data in {path} of {}",
                            other.name(),
                            one.name(),
                            one.host
                        ),
                        "give each a directory of its own",
                    )),
                    _ => {}
                }
            }
        }
    }
}
