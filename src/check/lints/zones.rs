//! 111 to 115: what the loss of a zone, a host or a single node costs.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::codes::{E111, W111, W112, W113, W114, W115};
use crate::check::elastic::{Elastic, EsNode};
use crate::check::{Problem, Topology};
use crate::recipe::ServiceKind;

const AWARENESS: &str = "cluster.routing.allocation.awareness.attributes";

/// Lints that need every node.
pub(super) fn lint(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let zones = elastic.zones();
    masters(elastic, &zones, problems);
    if zones.len() > 1 {
        awareness(elastic, problems);
    }
    data(elastic, &zones, problems);
    functions(elastic, problems);
}

fn masters(elastic: &Elastic<'_>, zones: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    let file = elastic.topology.file.as_str();
    let mut counts: BTreeMap<&str, usize> = zones.iter().map(|zone| (*zone, 0)).collect();
    let masters: Vec<&EsNode<'_>> = elastic.masters().collect();
    for zone in masters.iter().filter_map(|node| node.at.zone.as_deref()) {
        *counts.entry(zone).or_default() += 1;
    }
    let shown: Vec<String> = counts.iter().map(|(zone, count)| format!("{zone} {count}")).collect();
    let shown = shown.join(", ");
    if masters.len() < 2 {
        return;
    }
    let numbers: Vec<usize> = counts.values().copied().collect();
    match numbers[..] {
        [one, other] if one == other => problems.push(Problem::new(
            E111,
            None,
            file,
            format!("two zones with as many masters each ({shown}): the loss of either stops the cluster"),
            "put a voting-only master into a third zone",
        )),
        [one, other] => {
            let worse = counts.iter().max_by_key(|(_, count)| **count).map_or("", |(zone, _)| zone);
            let most = one.max(other);
            problems.push(Problem::new(
                W111,
                None,
                file,
                format!(
                    "masters in two zones ({shown}): the loss of {worse}, which has {most}, stops the cluster"
                ),
                "put a voting-only master into a third zone",
            ));
        }
        _ if numbers.len() >= 3 => {
            let with = numbers.iter().filter(|count| **count > 0).count();
            if with != 3 {
                problems.push(Problem::new(
                    W112,
                    None,
                    file,
                    format!("{} zones, and masters in {with} of them ({shown})", numbers.len()),
                    "one master in each of three zones",
                ));
            }
        }
        _ => {}
    }
}

fn awareness(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    if elastic.data().count() < 2 {
        return;
    }
    let Some((attributes, _)) = elastic.setting(AWARENESS).filter(|(text, _)| !text.trim().is_empty()) else {
        let place = elastic.data().next().map_or_else(String::new, |node| node.conf.place(AWARENESS));
        problems.push(Problem::new(
            W113,
            None,
            place,
            format!("nodes stand in several zones, and {AWARENESS} is not set: all copies may be in one"),
            format!("{AWARENESS}: zone, and node.attr.zone on every data node"),
        ));
        return;
    };
    for attribute in attributes.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let key = format!("node.attr.{attribute}");
        for node in elastic.data().filter(|node| !node.conf.has(&key)) {
            problems.push(Problem::new(
                W113,
                Some(&node.at.node),
                node.conf.place(&key),
                format!("{} has no {key}: awareness does not know where it stands", node.called()),
                format!("{key}: {}", node.at.zone.as_deref().unwrap_or("<its zone>")),
            ));
        }
    }
}

fn data(elastic: &Elastic<'_>, zones: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    let data: Vec<&EsNode<'_>> = elastic.data().collect();
    let file = elastic.topology.file.as_str();
    if data.is_empty() || elastic.nodes.len() < 2 {
        return;
    }
    let hosts: BTreeSet<&str> = data.iter().map(|node| node.at.host.as_str()).collect();
    let held: BTreeSet<&str> = data.iter().filter_map(|node| node.at.zone.as_deref()).collect();
    if let [host] = *hosts.iter().copied().collect::<Vec<_>>() {
        problems.push(Problem::new(
            W114,
            None,
            file,
            format!("all data is on {host}: with it goes every copy"),
            "let nodes on other hosts hold data too",
        ));
    } else if let [zone] = *held.iter().copied().collect::<Vec<_>>()
        && zones.len() > 1
    {
        problems.push(Problem::new(
            W114,
            None,
            file,
            format!("all data is in zone {zone}, of {} zones", zones.len()),
            "let nodes of another zone hold data too",
        ));
    }
}

/// What only one node does: tiers of data, ingest.
fn functions(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    if elastic.nodes.len() < 2 {
        return;
    }
    let mut by: BTreeMap<String, Vec<&EsNode<'_>>> = BTreeMap::new();
    for node in &elastic.nodes {
        for tier in &node.tiers {
            let tier = if tier == "data" { "data".to_owned() } else { format!("data of tier {tier}") };
            by.entry(tier).or_default().push(node);
        }
        if node.ingest {
            by.entry("ingest".to_owned()).or_default().push(node);
        }
    }
    for (what, nodes) in by {
        if let [node] = nodes[..] {
            problems.push(Problem::new(
                W115,
                Some(&node.at.node),
                &node.at.node_place,
                format!("only {} has {what}: a rolling change is an outage of it", node.called()),
                "let a second node have it too",
            ));
        }
    }
}

/// Services, other than Elasticsearch, that one node of several runs.
pub(super) fn roles(topology: &Topology, problems: &mut Vec<Problem>) {
    let mut by: BTreeMap<&str, Vec<&crate::check::Instance>> = BTreeMap::new();
    for one in &topology.instances {
        let counts = match one.kind {
            ServiceKind::Kafka
            | ServiceKind::Zookeeper
            | ServiceKind::Redis
            | ServiceKind::Nginx
            | ServiceKind::Kibana => true,
            // Elasticsearch is counted by what its nodes do; of a process nobody knows whether two may run.
            ServiceKind::Elasticsearch | ServiceKind::Opensearch | ServiceKind::Process => false,
        };
        if counts && topology.is_asked(&one.role) {
            by.entry(&one.role).or_default().push(one);
        }
    }
    for (role, all) in by {
        if let [one] = all[..]
            && topology.nodes > 1
        {
            problems.push(Problem::new(
                W115,
                Some(&one.node),
                &one.node_place,
                format!("only {} runs {role}: a rolling change is an outage of it", one.node),
                "let a second node run it too",
            ));
        }
    }
}
