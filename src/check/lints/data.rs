//! 116, 117, 120, 121: copies of data, and room for them.

use std::collections::BTreeMap;

use crate::check::Problem;
use crate::check::codes::{E116, E117, E121, W116, W120};
use crate::check::elastic::{Elastic, EsNode};
use crate::check::live::LiveIndex;

const SAME_HOST: &str = "cluster.routing.allocation.same_shard.host";
const WATERMARK: &str = "cluster.routing.allocation.disk.watermark.";
const PER_NODE: &str = "routing.allocation.total_shards_per_node";

/// All of them.
pub(super) fn lint(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    same_host(elastic, problems);
    watermarks(elastic, problems);
    let Some(live) = &elastic.topology.live else { return };
    if elastic.complete {
        replicas(elastic, &live.indices, problems);
        per_node(elastic, &live.indices, problems);
    }
}

/// Up to five names, and how many there are.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.len() {
        0..=5 => names.join(", "),
        more => format!("{} and {} more", names[..5].join(", "), more - 5),
    }
}

fn replicas(elastic: &Elastic<'_>, indices: &[LiveIndex], problems: &mut Vec<Problem>) {
    // A snapshot in a repository is the copy of such an index.
    let own = |index: &&LiveIndex| index.settings.get("store.type").is_none_or(|kind| kind != "snapshot");
    let bare: Vec<&LiveIndex> = indices.iter().filter(own).filter(|index| index.replicas == 0).collect();
    if !bare.is_empty() && elastic.data().count() > 1 {
        problems.push(Problem::new(
            E116,
            None,
            "_settings number_of_replicas",
            format!(
                "{} indices have no replica: {}; they are away while their node is",
                bare.len(),
                some(bare.iter().map(|index| index.name.as_str()))
            ),
            "PUT /<index>/_settings {\"index.number_of_replicas\": 1}, and in the template that made them",
        ));
    }
    let homes = |index: &LiveIndex| elastic.homes(&index.settings).count() as u64;
    let grows =
        |index: &&LiveIndex| index.settings.get("auto_expand_replicas").is_none_or(|value| value == "false");
    let many = indices.iter().filter(own).filter(grows);
    let many: Vec<&LiveIndex> =
        many.filter(|index| index.replicas > 0 && index.replicas >= homes(index)).collect();
    if !many.is_empty() {
        problems.push(Problem::new(
            W116,
            None,
            "_settings number_of_replicas",
            format!(
                "{} indices have as many replicas as nodes that may hold them, or more: {}; some are never assigned",
                many.len(),
                some(many.iter().map(|index| index.name.as_str()))
            ),
            "fewer replicas, or more data nodes of that tier: the cluster never is green like this",
        ));
    }
}

fn per_node(elastic: &Elastic<'_>, indices: &[LiveIndex], problems: &mut Vec<Problem>) {
    let needed = |shards: u64, nodes: u64| shards.div_ceil(nodes.saturating_sub(1).max(1));
    for index in indices {
        let limit = index.settings.get(PER_NODE).and_then(|text| text.parse::<i64>().ok());
        let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()) else { continue };
        let nodes = elastic.homes(&index.settings).count() as u64;
        let needed = needed(index.primaries * (1 + index.replicas), nodes);
        if nodes > 1 && limit < needed {
            problems.push(Problem::new(
                E121,
                None,
                format!("{} index.{PER_NODE}", index.name),
                format!(
                    "{} allows {limit} of its {} shards on a node; with one of {nodes} nodes away {needed} are needed",
                    index.name,
                    index.primaries * (1 + index.replicas)
                ),
                format!("index.{PER_NODE}: at least {needed}"),
            ));
        }
    }
    let key = format!("cluster.{PER_NODE}");
    let Some((text, place)) = elastic.setting(&key) else { return };
    let Some(limit) = text.parse::<i64>().ok().and_then(|limit| u64::try_from(limit).ok()) else { return };
    let nodes = elastic.data().count() as u64;
    let shards: u64 = indices.iter().map(|index| index.primaries * (1 + index.replicas)).sum();
    if nodes > 1 && limit < needed(shards, nodes) {
        problems.push(Problem::new(
            E121,
            None,
            place,
            format!(
                "{key} is {limit}; with one of {nodes} nodes away {} of {shards} shards must fit on each",
                needed(shards, nodes)
            ),
            format!("{key}: at least {}", needed(shards, nodes)),
        ));
    }
}

fn same_host(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let mut hosts: BTreeMap<&str, Vec<&EsNode<'_>>> = BTreeMap::new();
    for node in elastic.data() {
        hosts.entry(&node.at.host).or_default().push(node);
    }
    let set = elastic.setting(SAME_HOST);
    if set.as_ref().is_some_and(|(value, _)| value.trim() == "true") {
        return;
    }
    for (host, nodes) in hosts {
        if let [first, _, ..] = nodes[..] {
            let names: Vec<String> = nodes.iter().map(|node| node.called()).collect();
            let place = set.as_ref().map_or_else(|| first.conf.place(SAME_HOST), |(_, place)| place.clone());
            problems.push(Problem::new(
                E117,
                Some(&first.at.node),
                place,
                format!("{} hold data on {host}, and {SAME_HOST} is not true", names.join(" and ")),
                format!("{SAME_HOST}: true on every master, or both copies may be on one machine"),
            ));
        }
    }
}

/// A watermark: how much is used, or how much is free.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    Used(f64),
    Free(f64),
}

fn mark(text: &str) -> Option<Mark> {
    let text = text.trim().to_ascii_lowercase();
    if let Some(percent) = text.strip_suffix('%') {
        return percent.trim().parse().ok().map(Mark::Used);
    }
    let units = [("tb", 4), ("gb", 3), ("mb", 2), ("kb", 1), ("b", 0)];
    for (unit, power) in units {
        if let Some(number) = text.strip_suffix(unit) {
            let number: f64 = number.trim().parse().ok()?;
            return Some(Mark::Free(number * 1024f64.powi(power)));
        }
    }
    // 0.85 is a share.
    text.parse::<f64>().ok().filter(|share| *share <= 1.0).map(|share| Mark::Used(share * 100.0))
}

fn watermarks(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let usual = |name: &str| match name {
        "low" => "85%",
        _ => "90%",
    };
    let find = |name: &str| {
        let key = format!("{WATERMARK}{name}");
        elastic.setting(&key).unwrap_or_else(|| (usual(name).to_owned(), format!("{key}, by default")))
    };
    let ((low, low_place), (high, _)) = (find("low"), find("high"));
    let wrong = match (mark(&low), mark(&high)) {
        (Some(Mark::Used(low)), Some(Mark::Used(high))) => low >= high,
        (Some(Mark::Free(low)), Some(Mark::Free(high))) => low <= high,
        // The server refuses a mixture of both.
        _ => false,
    };
    if wrong {
        problems.push(Problem::new(
            W120,
            None,
            &low_place,
            format!("the low watermark, {low}, is not below the high one, {high}"),
            "low: new shards are kept away; high: shards are moved away; so low comes first",
        ));
    }
    let (Some(live), Some(Mark::Used(low))) = (&elastic.topology.live, mark(&low)) else { return };
    for node in &live.nodes {
        if let Some(used) = node.disk_used.filter(|used| *used > low) {
            problems.push(Problem::new(
                W120,
                None,
                "_cat/allocation",
                format!("{} uses {used:.0} % of its disk, above the low watermark of {low:.0} %", node.name),
                "no replica is allocated there: the cluster may not become green after a restart",
            ));
        }
    }
}
