//! Takes a node, or some of its roles, out of cluster.toml and the host lists, and leaves every other byte as it is.
//!
//! # Invariants
//!
//! * What comes out says what went in, less the node: both are read and compared before anything is given back.
//! * A comment right above a node's table goes with it; every other comment stays.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::cluster::Cluster;
use crate::model::{NodeName, Role};
use crate::recipe::{Source, Value, parse};

/// A node that cannot be taken out of a text by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster.toml: node `{node}` is written in a way in which it cannot be taken out by itself")]
pub struct ForgetError {
    /// The node.
    pub node: NodeName,
}

impl ForgetError {
    /// What to do about it, a line each.
    pub fn help(&self) -> Vec<String> {
        vec![format!("take [nodes.{}] out by hand, and its name out of the host lists", self.node)]
    }
}

/// `text`, which is a cluster file, without `node`.
pub fn without_node(text: &str, node: &NodeName) -> Result<String, ForgetError> {
    let by_hand = || ForgetError { node: node.clone() };
    let new = without_table(text, node).or_else(|| without_inline(text, node)).ok_or_else(by_hand)?;
    let mut wanted = read(text).ok_or_else(by_hand)?;
    if let Some(nodes) = wanted["nodes"].as_object_mut() {
        nodes.remove(node.as_str());
    }
    if is_same(wanted, read(&new).ok_or_else(by_hand)?) { Ok(new) } else { Err(by_hand()) }
}

/// `text`, which is a cluster file, without these roles of `node`; those that lists give it are not there.
pub fn without_roles(text: &str, node: &NodeName, roles: &BTreeSet<Role>) -> Result<String, ForgetError> {
    let by_hand = || ForgetError { node: node.clone() };
    let mut new = text.to_owned();
    while let Some(less) = without_a_role(&new, node, roles) {
        new = less;
    }
    let mut wanted = read(text).ok_or_else(by_hand)?;
    if let Some(own) = wanted["nodes"][node.as_str()]["roles"].as_array_mut() {
        own.retain(|one| one.as_str().is_none_or(|one| !roles.iter().any(|role| role.as_str() == one)));
    }
    if is_same(wanted, read(&new).ok_or_else(by_hand)?) { Ok(new) } else { Err(by_hand()) }
}

/// A host list without the lines that name `node`.
pub fn list_without(list: &str, cluster: &Cluster, node: &NodeName) -> String {
    let names_it = |line: &&str| {
        let host = line.split('#').next().unwrap_or_default().trim();
        !host.is_empty() && cluster.find(host).is_some_and(|found| found.name == *node)
    };
    list.split_inclusive('\n').filter(|line| !names_it(line)).collect()
}

/// The folder of host lists that a cluster file names, relative to its own.
pub fn lists_of(text: &str) -> Option<String> {
    read(text)?["lists"].as_str().map(str::to_owned)
}

fn read(text: &str) -> Option<Json> {
    toml::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).ok()
}

fn is_same(mut wanted: Json, mut found: Json) -> bool {
    for one in [&mut wanted, &mut found] {
        let is_empty = one["nodes"].as_object().is_some_and(serde_json::Map::is_empty);
        if let Some(all) = one.as_object_mut().filter(|_| is_empty) {
            all.remove("nodes");
        }
        // Looking for it has made it.
        if let Some(all) = one.as_object_mut().filter(|all| all.get("nodes").is_some_and(Json::is_null)) {
            all.remove("nodes");
        }
    }
    wanted == found
}

/// Where a line is a table's header: the table's path.
fn header(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    if !line.starts_with('[') || line.starts_with("[[") {
        return line.starts_with("[[").then(Vec::new);
    }
    let mut at: Json = toml::from_str(line).ok()?;
    let mut path = Vec::new();
    while let Some((key, inner)) = at.as_object_mut().and_then(|table| {
        let key = table.keys().next()?.clone();
        let inner = table.remove(&key)?;
        Some((key, inner))
    }) {
        path.push(key);
        at = inner;
    }
    Some(path)
}

fn is_remark(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The node's tables are cut out, each from its header to the next one.
fn without_table(text: &str, node: &NodeName) -> Option<String> {
    let (mut kept, mut cut): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let (mut inside, mut found) = (false, false);
    for line in text.split_inclusive('\n') {
        if let Some(path) = header(line) {
            let was = inside;
            inside = path.first().is_some_and(|one| one == "nodes")
                && path.get(1).is_some_and(|one| one == node.as_str());
            if inside && !was {
                found = true;
                while kept.last().is_some_and(|line| is_remark(line)) {
                    kept.pop();
                }
            }
            if was && !inside {
                kept.extend(remarks_below(&cut));
            }
            if !(was && inside) {
                cut.clear();
            }
        }
        if inside { cut.push(line) } else { kept.push(line) }
    }
    if inside {
        kept.extend(remarks_below(&cut));
        while kept.last().is_some_and(|line| line.trim().is_empty()) {
            kept.pop();
        }
    }
    found.then(|| kept.concat())
}

/// What stands below the last line of a table that says something: it is about what comes next.
fn remarks_below<'t>(cut: &[&'t str]) -> Vec<&'t str> {
    let says = |line: &&str| !line.trim().is_empty() && !is_remark(line);
    let from = cut.iter().rposition(says).map_or(0, |at| at + 1);
    cut[from..].iter().copied().skip_while(|line| line.trim().is_empty()).collect()
}

/// The line of a node that is written as `n1 = { ... }`.
fn without_inline(text: &str, node: &NodeName) -> Option<String> {
    let source = Source::new("cluster.toml", text);
    let mark = text.len() - source.text().len();
    let table = parse(&source).ok()?;
    let Value::Table(nodes) = &table.entries.get("nodes")?.node.value else { return None };
    let entry = nodes.entries.get(node.as_str())?;
    let (key, value) = (mark + entry.key.span().start, mark + entry.node.place.span().end);
    let start = text.get(..key)?.rfind('\n').map_or(mark, |at| at + 1);
    let end = text.get(value..)?.find('\n').map_or(text.len(), |at| value + at + 1);
    text.get(start..key)?.trim().is_empty().then(|| format!("{}{}", &text[..start], &text[end..]))
}

/// The first of these roles that the node's array has is cut out; `None` if it has none.
fn without_a_role(text: &str, node: &NodeName, roles: &BTreeSet<Role>) -> Option<String> {
    let source = Source::new("cluster.toml", text);
    let mark = text.len() - source.text().len();
    let table = parse(&source).ok()?;
    let Value::Table(nodes) = &table.entries.get("nodes")?.node.value else { return None };
    let Value::Table(own) = &nodes.entries.get(node.as_str())?.node.value else { return None };
    let Value::Array(items) = &own.entries.get("roles")?.node.value else { return None };
    let meant = |value: &Value| matches!(value, Value::String(text) if roles.iter().any(|role| role.as_str() == text));
    let at = items.iter().position(|item| meant(&item.value))?;
    let span = |at: usize| items.get(at).map(|item| item.place.span());
    let own = span(at)?;
    let (start, end) = match (at.checked_sub(1).and_then(span), span(at + 1)) {
        (_, Some(next)) => (own.start, next.start),
        (Some(before), None) => (before.end, own.end),
        (None, None) => (own.start, own.end),
    };
    Some(format!("{}{}", &text[..mark + start], &text[mark + end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# the cluster\nschema = 1\nname = \"c\"\n\n[nodes.a]\nroles = [\"x\"]\n\n\
                        # the second\n[nodes.b]\nroles = [\"x\", \"y\", \"z\"] # three\n[nodes.b.vars]\nheap = \"1g\"\n\n\
                        # the third\n[nodes.\"c\"]\nroles = [\n  \"x\", # one\n  \"y\",\n]\n\n# secrets\n[secrets]\n";

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_node_goes_with_its_tables_and_its_own_comment() {
        let without = without_node(TEXT, &node("b")).unwrap();
        let wanted = TEXT.replace(
            "# the second\n[nodes.b]\nroles = [\"x\", \"y\", \"z\"] # three\n[nodes.b.vars]\nheap = \"1g\"\n\n",
            "",
        );
        assert_eq!(without, wanted);
        let without = without_node(TEXT, &node("c")).unwrap();
        assert!(without.ends_with("heap = \"1g\"\n\n# secrets\n[secrets]\n"), "{without}");
        let last = without_node("schema = 1\r\n[nodes.a]\r\nzone = \"z\"\r\n", &node("a")).unwrap();
        assert_eq!(last, "schema = 1\r\n");
        let inline = "[nodes]\na = { roles = [\"x\"] } # one\nb = { roles = [] }\n";
        assert_eq!(without_node(inline, &node("a")).unwrap(), "[nodes]\nb = { roles = [] }\n");
    }

    #[test]
    fn what_is_not_understood_is_left_to_a_person() {
        let dotted = "[nodes]\na.zone = \"z\"\na.roles = [\"x\"]\n";
        assert!(without_node(dotted, &node("a")).unwrap_err().help()[0].contains("[nodes.a]"));
        let odd = "[nodes.a]\nvars = { l = [\n[1],\n[\"nodes\"]\n] }\n[nodes.b]\n";
        let kept = without_node(odd, &node("a"));
        assert!(kept.is_err() || kept.unwrap() == "[nodes.b]\n");
    }

    #[test]
    fn a_list_loses_the_lines_that_name_it() {
        let text = "schema = 1\nname = \"c\"\nlists = \"conf\"\n[nodes.a]\naddress = \"10.0.0.1\"\n\
                    [nodes.b]\naddress = \"10.0.0.2\"\n";
        let source = Source::new("cluster.toml", text);
        let cluster = crate::inventory::read_cluster(&source, &std::collections::BTreeMap::new()).unwrap();
        let list = "# all\na # one\n10.0.0.2 # two\n\nb\n";
        assert_eq!(list_without(list, &cluster, &node("b")), "# all\na # one\n\n");
        assert_eq!(lists_of(text).as_deref(), Some("conf"));
    }

    #[test]
    fn roles_go_out_of_the_array_alone() {
        let roles = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let without = without_roles(TEXT, &node("b"), &roles(&["x", "z"])).unwrap();
        assert_eq!(without, TEXT.replace("[\"x\", \"y\", \"z\"] # three", "[\"y\"] # three"));
        let without = without_roles(TEXT, &node("c"), &roles(&["y"])).unwrap();
        assert!(
            without.contains("roles = [\n  \"x\",\n]") || without.contains("roles = [\n  \"x\""),
            "{without}"
        );
        assert_eq!(without_roles(TEXT, &node("a"), &roles(&["none"])).unwrap(), TEXT);
    }
}
