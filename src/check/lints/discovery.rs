//! 108 to 110, 124: how nodes find each other and hold their first election, and who is asked by clients.

use std::collections::BTreeSet;

use crate::check::codes::{E108, E109, E110, W110, W124};
use crate::check::elastic::{Elastic, EsNode, INITIAL, KINDS, SEEDS};
use crate::check::settings::Settings;
use crate::check::{ConfFile, Problem};

/// Lints that need every node.
pub(super) fn lint(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    bootstrap(elastic, problems);
    seeds(elastic, problems);
}

fn initial(node: &EsNode<'_>) -> Option<(&'static str, Vec<String>)> {
    INITIAL.into_iter().find_map(|key| Some((key, node.conf.list(key)?)))
}

fn finds_others(node: &EsNode<'_>) -> bool {
    SEEDS.iter().any(|key| node.conf.list(key).is_some_and(|list| !list.is_empty()))
        || node.conf.has("discovery.seed_providers")
        || node.conf.has("discovery.zen.hosts_provider")
}

fn bootstrap(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let counts =
        |node: &&EsNode<'_>| node.version().is_some_and(|version| version.major >= 7) && !node.is_single();
    let masters: Vec<&EsNode<'_>> = elastic.masters().filter(counts).collect();
    let Some(first) = masters.first() else { return };
    let formed = elastic.topology.live.is_some();
    let forming = !formed && elastic.nodes.iter().all(|node| node.at.forming == Some(true));
    // One node that looks for nobody elects itself.
    let alone = elastic.nodes.len() == 1 && !finds_others(first);
    if forming && !alone && masters.iter().all(|node| initial(node).is_none()) {
        let key = INITIAL[0];
        let names: Vec<String> = masters.iter().map(|node| node.called()).collect();
        problems.push(Problem::new(
            E108,
            None,
            first.conf.place(key),
            format!("the cluster is to form, and no master has {key}: nobody calls the first election"),
            format!("{key}: [{}]; in a template inside {{% if cluster.forming %}}", names.join(", ")),
        ));
    }
    let mut lists: Vec<(BTreeSet<String>, &EsNode<'_>)> = Vec::new();
    for node in &masters {
        let Some((key, names)) = initial(node) else { continue };
        let place = node.conf.place(key);
        let at = Some(node.at.node.as_str());
        let is_master = |name: &str| {
            masters.iter().any(|master| {
                let port = master.transport_port();
                master.name.as_deref() == Some(name)
                    || master.addresses().iter().any(|address| {
                        name == address || port.is_some_and(|port| name == format!("{address}:{port}"))
                    })
            })
        };
        let wrong: Vec<&str> = names.iter().map(String::as_str).filter(|name| !is_master(name)).collect();
        if !wrong.is_empty() {
            let known: Vec<String> = masters.iter().map(|node| node.called()).collect();
            problems.push(Problem::new(
                E108,
                at,
                &place,
                format!("{key} names {}, which no master is called", wrong.join(", ")),
                format!("masters are called {}", known.join(", ")),
            ));
        }
        lists.push((names.into_iter().collect(), node));
    }
    if let Some((list, one)) = lists.first()
        && let Some((_, other)) = lists.iter().find(|(names, _)| names != list)
    {
        problems.push(Problem::new(
            E108,
            Some(&other.at.node),
            other.conf.place(initial(other).map_or(INITIAL[0], |(key, _)| key)),
            format!("{} and {} name other nodes for the first election", one.called(), other.called()),
            "write the same list on every master: two lists can make two clusters",
        ));
    }
}

fn seeds(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    if elastic.nodes.len() < 2 {
        return;
    }
    for node in elastic.nodes.iter().filter(|node| !node.is_single()) {
        let at = Some(node.at.node.as_str());
        let old = node.version().is_some_and(|version| version.major < 7);
        let usual = if old { SEEDS[1] } else { SEEDS[0] };
        if !finds_others(node) {
            problems.push(Problem::new(
                E110,
                at,
                node.conf.place(usual),
                format!("{} has no seed hosts: it does not find the other nodes", node.called()),
                format!("list every master in {usual}"),
            ));
            continue;
        }
        let Some((key, given)) = SEEDS.iter().find_map(|key| Some((*key, node.conf.list(key)?))) else {
            continue;
        };
        let seed = |text: &str| -> (String, Option<u16>) {
            match text.rsplit_once(':') {
                Some((host, port)) if port.parse::<u16>().is_ok() && !host.ends_with(':') => {
                    (host.trim_matches(['[', ']']).to_owned(), port.parse().ok())
                }
                _ => (text.trim_matches(['[', ']']).to_owned(), None),
            }
        };
        let seeds: Vec<(String, Option<u16>)> = given.iter().map(|text| seed(text)).collect();
        let known: BTreeSet<String> = elastic.nodes.iter().flat_map(EsNode::addresses).collect();
        // A name that stands for several addresses may cover them all.
        if seeds.iter().any(|(host, _)| !known.contains(host)) {
            continue;
        }
        let is_listed = |master: &EsNode<'_>| {
            let addresses = master.addresses();
            let port = master.transport_port();
            seeds
                .iter()
                .any(|(host, at)| addresses.contains(host) && (at.is_none() || port.is_none() || *at == port))
        };
        let missed: Vec<String> =
            elastic.masters().filter(|master| !is_listed(master)).map(EsNode::called).collect();
        if !missed.is_empty() {
            problems.push(Problem::new(
                W110,
                at,
                node.conf.place(key),
                format!("{key} of {} misses {}", node.called(), missed.join(", ")),
                "list every master: a node that finds none of those listed finds no cluster",
            ));
        }
    }
}

/// Lints over one node at a time.
pub(super) fn each(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let formed = elastic.topology.live.is_some()
        || elastic.nodes.iter().any(|node| node.at.forming == Some(false) && node.master);
    for node in &elastic.nodes {
        let Some((key, _)) = initial(node).filter(|_| formed && !node.is_single()) else { continue };
        problems.push(Problem::new(
            E109,
            Some(&node.at.node),
            node.conf.place(key),
            format!("the cluster has formed, and {} still has {key}", node.called()),
            "remove it: a node that lost its data would form another cluster with it",
        ));
    }
}

/// Who asks dedicated masters.
pub(super) fn clients(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let dedicated: Vec<(String, &EsNode<'_>)> = elastic
        .masters()
        .filter(|node| !node.works)
        .flat_map(|node| {
            let port = node.http_port().unwrap_or(9200);
            node.addresses().into_iter().map(move |address| (format!("{address}:{port}"), node))
        })
        .collect();
    let others = elastic.topology.instances.iter().filter(|one| !KINDS.contains(&one.kind));
    let asked = |role: &str| elastic.topology.asks_for(&KINDS) || elastic.topology.is_asked(role);
    let others = others.filter(|one| asked(&one.role));
    for (one, file) in others.flat_map(|one| one.files.iter().map(move |file| (one, file))) {
        let watched = watched(file);
        for (index, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with('#') || watched.contains(&(index + 1)) {
                continue;
            }
            let found = dedicated.iter().find(|(endpoint, _)| names(line, endpoint));
            if let Some((endpoint, master)) = found {
                problems.push(Problem::new(
                    W124,
                    Some(&one.node),
                    format!("{}:{}", file.path, index + 1),
                    format!("{} asks {endpoint}, the dedicated master {}", one.role, master.called()),
                    "ask data or ingest nodes: a master that answers clients may be late for its cluster",
                ));
                break;
            }
        }
    }
}

/// Whether a line has that address and port, and not as a part of longer ones.
fn names(line: &str, endpoint: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    line.match_indices(endpoint).any(|(at, _)| {
        !line[..at].ends_with(is_part)
            && !line[at + endpoint.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())
    })
}

/// The lines on which a beat says what it watches: who looks at a master's health is no client of the cluster.
fn watched(file: &ConfFile) -> BTreeSet<usize> {
    let Ok(conf) = Settings::yaml(&file.path, &file.text) else { return BTreeSet::new() };
    let watches = ["metricbeat.modules.", "heartbeat.monitors."];
    watches
        .iter()
        .flat_map(|prefix| conf.below(prefix))
        .flat_map(|(_, setting)| setting.line..=setting.last)
        .collect()
}
