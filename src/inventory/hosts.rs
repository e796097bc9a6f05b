//! Host lists, `<role>.list`: one host a line, by name or address, `#` for comments.

use std::sync::Arc;

use super::cluster::Node;
use crate::model::Role;
use crate::recipe::{Place, Problems, Source};

/// The index of the node called `host`, or else of the only one with that address.
pub(super) fn find(nodes: &[Node], host: &str) -> Option<usize> {
    if let Some(at) = nodes.iter().position(|node| node.name.as_str() == host) {
        return Some(at);
    }
    let mut at_address = nodes.iter().enumerate().filter(|(_, node)| node.address.eq_ignore_ascii_case(host));
    let first = at_address.next()?.0;
    at_address.next().is_none().then_some(first)
}

/// Adds `role` to the nodes that `list` names.
pub(super) fn add_role(nodes: &mut [Node], role: &Role, list: &Arc<Source>, problems: &Problems) {
    let mut at = 0;
    for line in list.text().split_inclusive('\n') {
        let start = at;
        at += line.len();
        let text = line.split('#').next().unwrap_or_default();
        let host = text.trim();
        if host.is_empty() {
            continue;
        }
        let offset = start + text.len() - text.trim_start().len();
        let place = Place::new(list, offset..offset + host.len());
        if host.contains(char::is_whitespace) {
            problems.add(place.problem("one host a line, by name or address"));
            continue;
        }
        match find(nodes, host) {
            Some(at) => {
                nodes[at].roles.insert(role.clone());
            }
            None => problems.add(unknown(nodes, host, &place)),
        }
    }
}

fn unknown(nodes: &[Node], host: &str, place: &Place) -> crate::recipe::Diagnostic {
    let shared: Vec<&str> =
        nodes.iter().filter(|node| node.address == host).map(|node| node.name.as_str()).collect();
    if !shared.is_empty() {
        let problem = place.problem(format!("several nodes have the address `{host}`"));
        return problem.help(format!("name one of them: {}", shared.join(", ")));
    }
    let names = nodes.iter().flat_map(|node| [node.name.as_str(), node.address.as_str()]);
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    place.problem(format!("no node is called `{host}` or has this address")).names(host, "hosts", names)
}
