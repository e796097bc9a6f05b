//! 122: filters that keep shards on nodes, or away from them.

use std::collections::BTreeSet;

use crate::check::Problem;
use crate::check::codes::W122;
use crate::check::elastic::{Elastic, EsNode};

/// Whether `text` is what a pattern with `*` means.
pub(in crate::check) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Filters of the cluster and of its indices.
pub(super) fn lint(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let live = elastic.topology.live.as_ref();
    // Where a node is not known, it may be the one that is meant.
    if !elastic.complete {
        return;
    }
    let mut seen = BTreeSet::new();
    for node in &elastic.nodes {
        for (rest, setting) in node.conf.below("cluster.routing.allocation.") {
            let key = format!("cluster.routing.allocation.{rest}");
            // What was set while it ran wins.
            let overruled = live.is_some_and(|live| live.settings.contains_key(&key));
            if !overruled && seen.insert((key.clone(), setting.values.clone())) {
                judge(elastic, &key, &setting.values.join(","), &node.conf.place(&key), problems);
            }
        }
    }
    let Some(live) = live else { return };
    for (key, value) in &live.settings {
        judge(elastic, key, value, &format!("_cluster/settings {key}"), problems);
    }
    for index in &live.indices {
        for (key, value) in &index.settings {
            let key = format!("index.{key}");
            judge(elastic, &key, value, &format!("{} {key}", index.name), problems);
        }
    }
}

fn judge(elastic: &Elastic<'_>, key: &str, value: &str, place: &str, problems: &mut Vec<Problem>) {
    let Some(rest) = key.split_once(".routing.allocation.").map(|(_, rest)| rest) else { return };
    let Some((kind, attribute)) = rest.split_once('.') else { return };
    if !matches!(kind, "include" | "exclude" | "require") {
        return;
    }
    let live = elastic.topology.live.as_ref();
    let nodes = || elastic.nodes.iter();
    let alive = || live.into_iter().flat_map(|live| &live.nodes);
    let known: BTreeSet<String> = match attribute {
        "_name" => nodes()
            .filter_map(|node| node.name.clone())
            .chain(alive().map(|node| node.name.clone()))
            .collect(),
        "_ip" | "_host" | "_host_ip" | "_publish_ip" => nodes()
            .flat_map(EsNode::addresses)
            .chain(alive().flat_map(|node| [node.ip.clone(), node.host.clone()]))
            .collect(),
        "_id" if live.is_some() => alive().map(|node| node.id.clone()).collect(),
        // Tiers are roles, and an id is known to a live cluster only.
        _ if attribute.starts_with('_') => return,
        _ => nodes()
            .filter_map(|node| node.conf.get(&format!("node.attr.{attribute}")))
            .chain(alive().filter_map(|node| node.attributes.get(attribute).cloned()))
            .collect(),
    };
    // A node that chooses its own name is known to a live cluster only.
    if attribute == "_name" && live.is_none() && nodes().any(|node| node.name.is_none()) {
        return;
    }
    for one in value.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        if !known.iter().any(|name| matches(one, name)) {
            let what = match kind {
                "exclude" => "is left over: a node of that name that comes back stays empty",
                _ => "keeps shards from being allocated anywhere",
            };
            problems.push(Problem::new(
                W122,
                None,
                place,
                format!("{key} names {one}, which no node is: it {what}"),
                format!(
                    "correct it, or set it to null; known are {}",
                    known.iter().cloned().collect::<Vec<_>>().join(", ")
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_elasticsearch_has_them() {
        for (pattern, text, wanted) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("10.0.*", "10.0.0.1", true),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
