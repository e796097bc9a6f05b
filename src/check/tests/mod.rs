//! Clusters made of a few lines, and what the lints say of them.

mod codes;
mod elastic;
mod preflight;
mod quorums;

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{ConfFile, Instance, Problem, Topology, lint};
use crate::inventory::SupervisorKind;
use crate::model::ProductVersion;
use crate::recipe::ServiceKind;

/// A role on a node, with one conf file.
pub(super) fn instance(node: &str, role: &str, kind: ServiceKind, file: &str, text: &str) -> Instance {
    let number: u8 = node.bytes().filter(u8::is_ascii_digit).fold(0, |sum, digit| sum * 10 + (digit - b'0'));
    Instance {
        node: node.to_owned(),
        node_place: format!("cluster.toml:{number}"),
        role: role.to_owned(),
        kind,
        host: format!("10.0.0.{number}"),
        address: format!("10.0.0.{number}"),
        zone: None,
        supervisor: SupervisorKind::Pidfile,
        version: None,
        forming: None,
        release: format!("/w/roles/{role}/releases/1-1").into(),
        shared: format!("/w/roles/{role}/shared").into(),
        persist: Vec::new(),
        files: vec![ConfFile { path: file.to_owned(), text: text.to_owned(), rendered: true }],
        command: Vec::new(),
        env: BTreeMap::new(),
        limits: BTreeMap::new(),
        user: None,
        group: None,
        ready_port: None,
        needs: (0, 0),
    }
}

/// A cluster of these.
pub(super) fn topology(instances: Vec<Instance>) -> Topology {
    let nodes: BTreeSet<&str> = instances.iter().map(|one| one.node.as_str()).collect();
    Topology { file: "cluster.toml".to_owned(), nodes: nodes.len(), instances, ..Topology::default() }
}

/// A good Elasticsearch node of that version in zone `z<n>`, with `more` lines of conf.
pub(super) fn es(version: &str, n: usize, more: &str) -> Instance {
    let seeds =
        if version.starts_with("6.") { "discovery.zen.ping.unicast.hosts" } else { "discovery.seed_hosts" };
    let minimum = if version.starts_with("6.") { "discovery.zen.minimum_master_nodes: 2\n" } else { "" };
    let text = format!(
        "cluster.name: prod\nnode.name: n{n}\npath.data: /w/roles/es/shared/data\npath.logs: /w/roles/es/shared/logs\n\
         network.host: 10.0.0.{n}\nhttp.port: 9200\ntransport.tcp.port: 9300\nnode.attr.zone: z{n}\n\
         cluster.routing.allocation.awareness.attributes: zone\n{seeds}: [10.0.0.1, 10.0.0.2, 10.0.0.3]\n{minimum}"
    );
    // A line of `more` stands for the one with its key.
    let keys: BTreeSet<&str> = more.lines().filter_map(|line| line.split(':').next()).collect();
    let kept = text.lines().filter(|line| !keys.contains(line.split(':').next().unwrap()));
    let more = more.lines().filter(|line| !line.ends_with(": -"));
    let text = kept.chain(more).collect::<Vec<_>>().join("\n") + "\n";
    let mut one =
        instance(&format!("n{n}"), "es", ServiceKind::Elasticsearch, "es/config/elasticsearch.yml", &text);
    one.zone = Some(format!("z{n}"));
    one.version = ProductVersion::leading(version);
    one
}

/// Three good nodes.
pub(super) fn three(version: &str) -> Vec<Instance> {
    (1..=3).map(|n| es(version, n, "")).collect()
}

pub(super) fn codes_of(problems: &[Problem]) -> Vec<&'static str> {
    let codes: BTreeSet<&str> = problems.iter().map(|problem| problem.code).collect();
    codes.into_iter().collect()
}

/// The codes that the lints find.
pub(super) fn found(topology: &Topology) -> Vec<&'static str> {
    codes_of(&lint(topology))
}

pub(super) fn found_in(instances: Vec<Instance>) -> Vec<&'static str> {
    found(&topology(instances))
}

/// The only problem of that code.
pub(super) fn the<'a>(problems: &'a [Problem], code: &str) -> &'a Problem {
    let mut all = problems.iter().filter(|problem| problem.code == code);
    let first = all.next().unwrap_or_else(|| panic!("no {code} in {problems:#?}"));
    assert!(all.next().is_none(), "{problems:#?}");
    first
}
