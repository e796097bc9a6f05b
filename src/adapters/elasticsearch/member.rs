//! Nodes as their cluster sees them: what they are there, and the order in which they go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::model::ProductVersion;

/// How hot the data of a node is. Order is the order in which tiers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Frozen,
    Cold,
    Warm,
    Hot,
    /// Data of no tier, or of all.
    Any,
}

impl Tier {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Hot => "hot",
            Self::Any => "data",
        }
    }
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: ProductVersion,
    /// It may be elected.
    pub(super) master: bool,
    /// Its data, if it holds any.
    pub(super) tier: Option<Tier>,
    /// Where its HTTP interface is, as it tells its cluster: host and port.
    pub(super) http: Option<(String, u16)>,
}

impl Member {
    /// Its place among the nodes of its cluster: all of a lower one go first.
    pub(super) fn rank(&self, elected: bool) -> u32 {
        let tier = match self.tier {
            Some(Tier::Frozen) => 0,
            Some(Tier::Cold) => 1,
            Some(Tier::Warm) => 2,
            Some(Tier::Hot) => 3,
            Some(Tier::Any) => 4,
            None => 5,
        };
        tier + if elected {
            20
        } else if self.master {
            10
        } else {
            0
        }
    }
}

/// The nodes that an answer of `/_nodes/http` names.
pub(super) fn members(nodes: &Value) -> Vec<Member> {
    let nodes = nodes["nodes"].as_object();
    let mut members: Vec<Member> =
        nodes.into_iter().flatten().filter_map(|(id, node)| member(id, node)).collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    members
}

fn member(id: &str, node: &Value) -> Option<Member> {
    let roles: BTreeSet<&str> =
        node["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let attributes: BTreeMap<&str, &str> = node["attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    Some(Member {
        id: id.to_owned(),
        name: node["name"].as_str()?.to_owned(),
        version: node["version"].as_str()?.parse().ok()?,
        master: roles.contains("master") || roles.contains("cluster_manager"),
        tier: tier(&roles, &attributes),
        http: node["http"]["publish_address"].as_str().and_then(address),
    })
}

/// Where there are no tiers as roles, an attribute says it: Elasticsearch's own documents called it `box_type`
/// or `data`.
fn tier(roles: &BTreeSet<&str>, attributes: &BTreeMap<&str, &str>) -> Option<Tier> {
    if !roles.iter().any(|role| *role == "data" || role.starts_with("data_") || *role == "search") {
        return None;
    }
    let word = ["box_type", "data", "temp"].iter().find_map(|name| attributes.get(name));
    let attribute = match word.copied() {
        Some("hot") => Some(Tier::Hot),
        Some("warm") => Some(Tier::Warm),
        Some("cold") => Some(Tier::Cold),
        Some("frozen") => Some(Tier::Frozen),
        _ => None,
    };
    if roles.contains("data") || roles.contains("data_content") && roles.len() == 1 {
        return Some(attribute.unwrap_or(Tier::Any));
    }
    let of_role = [
        ("data_hot", Tier::Hot),
        ("data_warm", Tier::Warm),
        ("data_cold", Tier::Cold),
        ("data_frozen", Tier::Frozen),
    ];
    let found = of_role.iter().find(|(role, _)| roles.contains(role)).map(|(_, tier)| *tier);
    Some(found.or(attribute).unwrap_or(Tier::Any))
}

/// `10.0.0.1:9200`, `[::1]:9200`, or with a host's name before it: `node1/10.0.0.1:9200`.
fn address(text: &str) -> Option<(String, u16)> {
    let text = text.rsplit('/').next()?;
    let (host, port) = text.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "every caller makes them for it")]
    fn rank(roles: Value, attributes: Value, elected: bool) -> u32 {
        let node = json!({"name": "n", "version": "7.17.0", "roles": roles, "attributes": attributes});
        member("id", &node).unwrap().rank(elected)
    }

    #[test]
    fn tiers_go_from_the_coldest_and_masters_last() {
        let none = json!({});
        let ranks = [
            rank(json!(["data_frozen"]), none.clone(), false),
            rank(json!(["data_cold"]), none.clone(), false),
            rank(json!(["data", "ingest"]), json!({"box_type": "warm"}), false),
            rank(json!(["data_hot", "data_content"]), none.clone(), false),
            rank(json!(["data"]), json!({"rack": "1"}), false),
            rank(json!(["ingest"]), none.clone(), false),
            rank(json!(["master", "data"]), json!({"box_type": "hot"}), false),
            rank(json!(["master"]), none.clone(), false),
            rank(json!(["cluster_manager", "data"]), json!({"box_type": "warm"}), true),
            rank(json!(["master"]), none, true),
        ];
        assert!(ranks.is_sorted() && ranks.windows(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
    }

    #[test]
    fn addresses_come_in_three_forms() {
        let parts = |text: &str| address(text).unwrap();
        assert_eq!(parts("10.0.0.1:9200"), ("10.0.0.1".to_owned(), 9200));
        assert_eq!(parts("[::1]:9200"), ("::1".to_owned(), 9200));
        assert_eq!(parts("node1/10.0.0.1:9201"), ("10.0.0.1".to_owned(), 9201));
    }
}
