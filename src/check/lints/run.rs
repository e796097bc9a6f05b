//! All lints over one cluster.

use super::{data, discovery, filters, masters, places, quorums, zones};
use crate::check::elastic::{self, Elastic};
use crate::check::{Problem, Topology};
use crate::recipe::ServiceKind;

/// Every lint; levels are the usual ones.
pub fn lint(topology: &Topology) -> Vec<Problem> {
    let mut problems = Vec::new();
    let elastic = if topology.asks_for(&elastic::KINDS) {
        Elastic::read(topology, &mut problems)
    } else {
        // Their conf is another promotion's.
        Elastic::read(topology, &mut Vec::new())
    };
    for unread in &topology.unread {
        let kinds: Vec<&str> = [
            (&elastic::KINDS[..], "Elasticsearch"),
            (&[ServiceKind::Zookeeper], "ZooKeeper"),
            (&[ServiceKind::Kafka], "Kafka"),
        ]
        .iter()
        .filter(|(kinds, _)| topology.asks_for(kinds) || topology.focus.contains(&unread.role))
        .filter(|(kinds, _)| unread.kind.is_none_or(|kind| kinds.contains(&kind)))
        .map(|(_, name)| *name)
        .collect();
        if !kinds.is_empty() {
            let message = format!(
                "out/ has no bundle of {}: its conf was not read, and lints that count {} nodes were left out",
                unread.role,
                kinds.join(", ")
            );
            problems.push(Problem::unseen(None, &topology.file, message));
        }
    }
    discovery::clients(&elastic, &mut problems);
    if !elastic.nodes.is_empty() && topology.asks_for(&elastic::KINDS) {
        if elastic.complete {
            masters::lint(&elastic, &mut problems);
            discovery::lint(&elastic, &mut problems);
            zones::lint(&elastic, &mut problems);
        }
        masters::each(&elastic, &mut problems);
        discovery::each(&elastic, &mut problems);
        data::lint(&elastic, &mut problems);
        filters::lint(&elastic, &mut problems);
    }
    places::lint(topology, &elastic, &mut problems);
    quorums::lint(topology, &mut problems);
    zones::roles(topology, &mut problems);
    problems
}
