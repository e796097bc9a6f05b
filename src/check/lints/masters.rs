//! 101 to 107 and 123: who may be elected, and by how many.

use crate::check::Problem;
use crate::check::codes::{E101, E105, E106, E107, E123, W102, W103, W104, W106, W107};
use crate::check::elastic::{Elastic, EsNode, OLD_ROLES};

const MINIMUM: &str = "discovery.zen.minimum_master_nodes";

/// Lints that count nodes.
pub(super) fn lint(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    let file = elastic.topology.file.as_str();
    let masters: Vec<&EsNode<'_>> = elastic.masters().collect();
    let names = || masters.iter().map(|node| node.called()).collect::<Vec<_>>().join(", ");
    let mut add = |code, message: String, help: &str| {
        problems.push(Problem::new(code, None, file, message, help));
    };
    match masters.len() {
        0 => {
            let message =
                format!("none of {} nodes is master-eligible: no cluster can form", elastic.nodes.len());
            add(E101, message, "let three nodes in three zones have the master role");
        }
        1 if elastic.nodes.len() > 1 => add(
            W103,
            format!("{} is the only master-eligible node of {}", names(), elastic.nodes.len()),
            "let three nodes be master-eligible: while this one is away the cluster has no master",
        ),
        1 => {}
        2 => add(
            W102,
            format!("two master-eligible nodes, {}: losing either stops elections", names()),
            "add a third; a small voting-only node will do from 7.3",
        ),
        count => {
            if count % 2 == 0 || count > 3 {
                add(
                    W104,
                    format!("{count} master-eligible nodes, {}: three survive as much as four", names()),
                    "take the master role from all but three",
                );
            }
            let electable = masters.iter().filter(|node| !node.voting_only).count();
            if electable < 2 {
                add(
                    E105,
                    format!(
                        "{electable} of {count} master-eligible nodes can be elected; the others only vote"
                    ),
                    "take voting_only from at least one of them, so that two can be elected",
                );
            }
        }
    }
    let voting: Vec<&&EsNode<'_>> = masters.iter().filter(|node| node.voting_only).collect();
    if masters.len() >= 3 && voting.len() > 1 {
        let names: Vec<String> = voting.iter().map(|node| node.called()).collect();
        add(
            W106,
            format!("{} of {} masters are voting-only: {}", voting.len(), masters.len(), names.join(", ")),
            "one voting-only node of three is enough to break ties",
        );
    }
    minimum(elastic, &masters, problems);
}

/// Before 7 the majority is a number that people write.
fn minimum(elastic: &Elastic<'_>, masters: &[&EsNode<'_>], problems: &mut Vec<Problem>) {
    let majority = i64::try_from(masters.len() / 2 + 1).unwrap_or(i64::MAX);
    let live = elastic.topology.live.as_ref().and_then(|live| live.settings.get(MINIMUM));
    let old = |node: &&&EsNode<'_>| node.version().is_some_and(|version| version.major < 7);
    let mut told = false;
    for node in masters.iter().filter(old) {
        // What was set while the cluster ran wins over the file of every node.
        let set = live.and_then(|text| text.parse().ok()).or_else(|| node.conf.number(MINIMUM));
        let value = set.unwrap_or(1);
        if value == majority || (live.is_some() && told) {
            continue;
        }
        told = true;
        let what = match set {
            Some(value) => format!("{MINIMUM} is {value}"),
            None => format!("{MINIMUM} is not set, which means 1"),
        };
        let danger =
            if value < majority { "two halves can elect a master each" } else { "too few can be away" };
        let place =
            if live.is_some() { format!("_cluster/settings {MINIMUM}") } else { node.conf.place(MINIMUM) };
        problems.push(Problem::new(
            E107,
            Some(&node.at.node),
            place,
            format!("{what}; of {} masters a majority is {majority}: {danger}", masters.len()),
            format!("{MINIMUM}: {majority}"),
        ));
    }
}

/// Lints over one node at a time.
pub(super) fn each(elastic: &Elastic<'_>, problems: &mut Vec<Problem>) {
    for node in &elastic.nodes {
        let at = Some(node.at.node.as_str());
        if node.voting_only && !node.master {
            let key = if node.conf.has("node.roles") { "node.roles" } else { "node.voting_only" };
            problems.push(Problem::new(
                E106,
                at,
                node.conf.place(key),
                format!("{} is voting_only, but not master-eligible: it does not start", node.called()),
                "give it the master role too, or take voting_only away",
            ));
        }
        if let Some(version) = node.version().filter(|version| version.major >= 7)
            && node.conf.has(MINIMUM)
        {
            let place = node.conf.place(MINIMUM);
            let (code, what) = if version.major >= 8 {
                (E107, "is unknown from 8: the node does not start")
            } else {
                (W107, "is ignored from 7, and unknown from 8")
            };
            problems.push(Problem::new(code, at, place, format!("{MINIMUM} {what}"), "remove it"));
        }
        let old: Vec<&str> = OLD_ROLES.into_iter().filter(|key| node.conf.has(key)).collect();
        if node.conf.has("node.roles") && !old.is_empty() {
            problems.push(Problem::new(
                E123,
                at,
                node.conf.place("node.roles"),
                format!("node.roles stands beside {}: the node does not start", old.join(", ")),
                "say it all in node.roles and remove the others",
            ));
        }
    }
}
