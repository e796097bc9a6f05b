//! Whether there is room for what a node has on those that stay.
//!
//! # Invariants
//!
//! * Whether a copy may go to a node is what the cluster itself says (`_cluster/allocation/explain`): tiers,
//!   filters, zones, watermarks and copies of the same shard are its own rules.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream;
use hyper::Method;
use serde_json::{Value, json};

use super::super::adapter::AdapterError;
use super::super::view::Instance;
use super::ask::{accepted, get, send};
use super::cluster::{Cluster, Copy};
use super::member::Member;
use super::settings;
use crate::model::ByteSize;

/// The most indices that are asked about.
const MOST_INDICES: usize = 300;
/// How many are asked about at a time.
const AT_ONCE: usize = 16;

/// Which shard has more copies than nodes with data stay.
pub(super) fn too_many_copies(cluster: &Cluster, member: &Member) -> Option<String> {
    let stay = cluster.others().filter(|one| one.tier.is_some()).count();
    let mut copies: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    let mut own = BTreeSet::new();
    for copy in &cluster.copies {
        let Some(node) = &copy.node else { continue };
        *copies.entry((&copy.index, copy.shard)).or_default() += 1;
        if *node == member.name {
            own.insert((copy.index.as_str(), copy.shard));
        }
    }
    let (index, shard) = own.into_iter().find(|shard| copies.get(shard).is_some_and(|all| *all > stay))?;
    let all = copies.get(&(index, shard)).copied().unwrap_or_default();
    Some(format!(
        "{index}[{shard}] has {all} copies, and {stay} nodes with data stay: lower \
         index.number_of_replicas of {index}, or add a node"
    ))
}

/// Why what is on the node has nowhere to go: nobody may take copies of an index, or there is no space.
pub(super) async fn no_room(
    instance: &Instance<'_>,
    cluster: &Cluster,
    member: &Member,
) -> Result<Option<String>, AdapterError> {
    let mut asked = BTreeSet::new();
    let own = cluster.copies.iter().filter(|copy| copy.started && copy.node.as_ref() == Some(&member.name));
    let of_each = own.filter(|copy| asked.insert(&copy.index)).take(MOST_INDICES);
    let mut answers = stream::iter(of_each)
        .map(async |copy: &Copy| (copy, explained(instance, copy, &member.name).await))
        .buffered(AT_ONCE);
    let mut takers: BTreeSet<String> = BTreeSet::new();
    while let Some((copy, answer)) = answers.next().await {
        let Some(body) = answer? else { continue };
        let (may, why) = deciders(&body);
        if may.is_empty() && !why.is_empty() {
            return Ok(Some(format!("no other node may take {}: {}", copy.name(), why.join("; "))));
        }
        takers.extend(may);
    }
    drop(answers);
    if takers.is_empty() {
        return Ok(None);
    }
    let disks =
        get(instance, "/_cat/allocation?format=json&bytes=b&h=node,disk.indices,disk.avail,disk.total");
    let (disks, limits) = (disks.await?, get(instance, settings::READ_ALL).await?);
    Ok(no_space(&disks, &Watermark::read(&limits), &member.name, &takers))
}

/// Why a copy is where it is and who else may take it, as the cluster says; `None` if it is there no longer.
async fn explained(instance: &Instance<'_>, copy: &Copy, node: &str) -> Result<Option<Value>, AdapterError> {
    let body =
        json!({"index": copy.index, "shard": copy.shard, "primary": copy.primary, "current_node": node});
    let path = "/_cluster/allocation/explain";
    let answer = send(instance, Method::POST, path, Some(&body)).await?;
    // It moved, or its index is gone.
    if answer.status == 400 || answer.status == 404 {
        return Ok(None);
    }
    accepted(instance, path, &answer)?;
    answer.json().map(Some)
}

/// Who may take a copy, and why the others may not.
fn deciders(body: &Value) -> (Vec<String>, Vec<String>) {
    let (mut may, mut why) = (Vec::new(), Vec::new());
    for node in body["node_allocation_decisions"].as_array().into_iter().flatten() {
        let Some(name) = node["node_name"].as_str() else { continue };
        if node["node_decision"] != "no" {
            may.push(name.to_owned());
            continue;
        }
        let no = node["deciders"].as_array().into_iter().flatten().find(|one| one["decision"] == "NO");
        let no = no.and_then(|one| one["explanation"].as_str()).unwrap_or("it says no more");
        why.push(format!("{name}: {}", no.lines().next().unwrap_or_default()));
    }
    (may, why)
}

/// How much of a disk is left free.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Watermark {
    /// Nobody minds.
    Off,
    /// At most this part of it is used.
    Used(f64),
    /// At least these bytes are free.
    Free(u64),
}

impl Watermark {
    fn read(body: &Value) -> Self {
        let name = |last: &str| format!("cluster.routing.allocation.disk.{last}");
        let found = |last: &str| settings::effective(body, &name(last));
        if found("threshold_enabled").as_deref() == Some("false") {
            return Self::Off;
        }
        let low = found("watermark.low").unwrap_or_else(|| "85%".to_owned());
        let part = |text: &str| text.parse::<f64>().ok();
        if let Some(percent) = low.strip_suffix('%').and_then(part) {
            return Self::Used(percent / 100.0);
        }
        match (bytes(&low), part(&low)) {
            (Some(free), _) => Self::Free(free),
            (None, Some(used)) => Self::Used(used),
            (None, None) => Self::Used(0.85),
        }
    }

    /// What fits on a disk.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a part of a disk, of which no byte counts"
    )]
    fn room(self, free: u64, total: u64) -> u64 {
        match self {
            Self::Off => free,
            Self::Used(used) => free.saturating_sub((total as f64 * (1.0 - used).clamp(0.0, 1.0)) as u64),
            Self::Free(least) => free.saturating_sub(least),
        }
    }
}

/// Bytes as Elasticsearch writes them: `500mb`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let units = [("pb", 50), ("tb", 40), ("gb", 30), ("mb", 20), ("kb", 10), ("b", 0)];
    let (number, shift) = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))?;
    number.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Why there is no space for what a node has on those that may take it.
fn no_space(disks: &Value, low: &Watermark, node: &str, takers: &BTreeSet<String>) -> Option<String> {
    let number = |row: &Value, name: &str| row[name].as_str().and_then(|text| text.parse::<u64>().ok());
    let (mut has, mut room) = (0, 0_u64);
    for row in disks.as_array().into_iter().flatten() {
        let Some(name) = row["node"].as_str() else { continue };
        if name == node {
            has = number(row, "disk.indices").unwrap_or(0);
        } else if takers.contains(name) {
            // What does not say how large it is stands in nobody's way.
            let (free, total) = (number(row, "disk.avail"), number(row, "disk.total"));
            let one = free.zip(total).map_or(u64::MAX, |(free, total)| low.room(free, total));
            room = room.saturating_add(one);
        }
    }
    (has > room).then(|| {
        format!(
            "it has {}, and below the low disk watermark there is room for {} on {}: add a node, or delete what is \
             not needed",
            ByteSize(has),
            ByteSize(room),
            takers.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{Color, Health};
    use super::super::member::Tier;
    use super::*;

    fn member(name: &str) -> Member {
        let (id, version) = (name.to_owned(), "7.17.0".parse().unwrap());
        Member { id, name: name.to_owned(), version, master: true, tier: Some(Tier::Any), http: None }
    }

    fn copy(shard: u64, primary: bool, node: &str) -> Copy {
        Copy { index: "i".to_owned(), shard, primary, started: true, node: Some(node.to_owned()) }
    }

    fn cluster() -> Cluster {
        Cluster {
            this: Some("a".to_owned()),
            members: ["a", "b", "c"].map(member).to_vec(),
            elected: None,
            health: Health { color: Color::Green, ..Health::default() },
            copies: vec![copy(0, true, "a"), copy(0, false, "b"), copy(1, true, "b"), copy(1, false, "c")],
            peers: Vec::new(),
            leaving: BTreeSet::new(),
            target: None,
            budget: 1,
        }
    }

    #[test]
    fn every_copy_needs_a_node_of_its_own() {
        let mut found = cluster();
        let against = |found: &Cluster| too_many_copies(found, found.member().unwrap());
        assert_eq!(against(&found), None);
        found.copies.push(copy(0, false, "c"));
        let why = against(&found).unwrap();
        assert!(why.contains("i[0] has 3 copies, and 2 nodes with data stay"), "{why}");
        // It has none of that shard.
        found.copies.retain(|copy| copy.node.as_deref() != Some("a"));
        assert_eq!(against(&found), None);
    }

    #[test]
    fn a_disk_takes_what_stays_below_its_watermark() {
        let disks = json!([
            {"node": "a", "disk.indices": "300", "disk.avail": "1", "disk.total": "1000"},
            {"node": "b", "disk.indices": "1", "disk.avail": "400", "disk.total": "1000"},
            {"node": "c", "disk.indices": "1", "disk.avail": "900", "disk.total": "1000"},
            {"node": "UNASSIGNED"},
        ]);
        let against = |low: Watermark, takers: &[&str]| {
            let takers = takers.iter().map(|name| (*name).to_owned()).collect();
            no_space(&disks, &low, "a", &takers)
        };
        assert!(against(Watermark::Used(0.85), &["b"]).unwrap().contains("room for 250 B on b"));
        assert_eq!(against(Watermark::Used(0.85), &["b", "c"]), None);
        assert_eq!(against(Watermark::Off, &["b"]), None);
        assert!(against(Watermark::Free(101), &["b"]).is_some());
        let limits = |low: &str| {
            Watermark::read(&json!({"defaults": {"cluster.routing.allocation.disk.watermark.low": low}}))
        };
        assert_eq!(limits("90%"), Watermark::Used(0.9));
        assert_eq!(limits("0.5"), Watermark::Used(0.5));
        assert_eq!(limits("10gb"), Watermark::Free(10 << 30));
        let off = json!({"transient": {"cluster.routing.allocation.disk.threshold_enabled": "false"}});
        assert_eq!(Watermark::read(&off), Watermark::Off);
    }

    #[test]
    fn what_the_cluster_says_of_each_node_is_told() {
        let body = json!({"node_allocation_decisions": [
            {"node_name": "b", "node_decision": "no", "deciders": [
                {"decision": "NO", "explanation": "a copy of this shard is already allocated to this node"}]},
            {"node_name": "c", "node_decision": "worse_balance"},
        ]});
        let (may, why) = deciders(&body);
        assert_eq!(may, ["c"]);
        assert_eq!(why, ["b: a copy of this shard is already allocated to this node"]);
    }
}
