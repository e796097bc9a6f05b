//! A node that leaves its cluster for good: whether masters stay, how much of what it has is still there, and whether
//! the cluster is well without it.

use super::super::adapter::AdapterError;
use super::super::view::{Gone, Instance, View};
use super::ask::get;
use super::cluster::{Cluster, Color, look, look_through, named, nodes, spokesman};
use super::member::Member;
use super::room;
use super::settings::{self, EXCLUDE};
use super::voting;
use super::who::who;
use crate::agent::Setting;
use crate::model::ByteSize;
use crate::rollout::Held;

/// That the cluster is green before a node leaves, and after.
pub(super) const GREEN: &str = "leave-green";
/// That there is room for every copy that the node has.
pub(super) const ROOM: &str = "leave-room";
/// That masters stay, and a majority of them.
pub(super) const MASTERS: &str = "leave-masters";

/// The names of all of them.
#[cfg(test)]
pub(in super::super) const LEAVE_NAMES: [&str; 3] = [GREEN, ROOM, MASTERS];

/// Whether the cluster can do without the node.
pub(super) async fn may_part(view: &View<'_>) -> Result<Held, AdapterError> {
    let (instance, _) = spokesman(view).await?;
    let cluster = look(view).await?;
    let Some(member) = cluster.member() else {
        return Ok(Held::NotYet("its cluster does not have it; if it is gone for good: --dead".to_owned()));
    };
    let mut against = Vec::new();
    against.extend(not_green(&cluster).map(|why| (GREEN, why)));
    against.extend(no_masters(&cluster, member).map(|why| (MASTERS, why)));
    if !view.is_off(ROOM) {
        let room = match room::too_many_copies(&cluster, member) {
            Some(why) => Some(why),
            None => room::no_room(instance, &cluster, member).await?,
        };
        against.extend(room.map(|why| (ROOM, why)));
    }
    let against = against.into_iter().filter(|(name, _)| !view.is_off(name));
    let against: Vec<String> = against.map(|(name, why)| format!("{name}: {why}")).collect();
    Ok(if against.is_empty() { Held::Yes } else { Held::Never(against.join("; ")) })
}

fn not_green(cluster: &Cluster) -> Option<String> {
    let health = &cluster.health;
    let color = match health.color {
        Color::Green => return None,
        Color::Yellow => "yellow",
        Color::Red => "red",
    };
    Some(format!("the cluster is {color}: {} shard copies are assigned to no node", health.unassigned))
}

/// Whether nodes that may be elected stay, and enough of them are there.
fn no_masters(cluster: &Cluster, member: &Member) -> Option<String> {
    if !member.master {
        return None;
    }
    let there = cluster.others().filter(|one| one.master).count();
    if there == 0 {
        return Some("it is the last master-eligible node".to_owned());
    }
    // Who is not there cannot say whether it is one; the nodes of this role are.
    let absent: Vec<&str> = cluster
        .peers
        .iter()
        .filter(|peer| peer.same_role && peer.name.is_none())
        .map(|peer| peer.title.as_str())
        .collect();
    let all = there + absent.len();
    (there * 2 <= all).then(|| {
        format!(
            "of {all} master-eligible nodes that stay {there} are there, which is no majority; away: {}",
            absent.join(", ")
        )
    })
}

/// What leaving will change.
pub(super) async fn parting(view: &View<'_>) -> Result<Vec<Setting>, AdapterError> {
    let (instance, said) = spokesman(view).await?;
    let cluster = look(view).await?;
    let (Some(member), Some(uuid)) = (cluster.member(), &said.cluster) else { return Ok(Vec::new()) };
    let mut wanted = Vec::new();
    if member.tier.is_some() {
        wanted.extend(settings::exclusion(uuid, &get(instance, settings::READ).await?, &member.name));
    }
    if member.master {
        let masters = cluster.others().filter(|one| one.master).count();
        wanted.extend(voting::wanted(instance, &said, uuid, &member.name, masters).await?);
    }
    Ok(wanted)
}

/// Has the others take over all that the node has: first its data, then its vote. What is left is asked for again and
/// again, for hours: only once nothing is, the cluster is looked at as a whole.
pub(super) async fn part(view: &View<'_>, changed: &[Setting]) -> Result<Held, AdapterError> {
    let (instance, said) = spokesman(view).await?;
    let own = who(&view.this).await?;
    let (data, vote): (Vec<Setting>, Vec<Setting>) =
        changed.iter().cloned().partition(|setting| setting.name.ends_with(EXCLUDE));
    settings::apply(instance, &data).await?;
    if let Some(held) = left(instance, &own.name).await? {
        return Ok(held);
    }
    let members = nodes(instance).await?;
    let Some(member) = members.iter().find(|member| member.name == own.name) else {
        return Ok(Held::NotYet("its cluster does not have it any more".to_owned()));
    };
    if look_through(instance, view).await?.health.color == Color::Red {
        return Ok(Held::NotYet("the cluster is red".to_owned()));
    }
    voting::apply(instance, &said, &vote).await?;
    voting::settled(instance, &vote, &member.id).await
}

/// What is still on a node; `None` is nothing.
async fn left(instance: &Instance<'_>, node: &str) -> Result<Option<Held>, AdapterError> {
    let shards =
        get(instance, "/_cat/shards?format=json&bytes=b&h=index,shard,prirep,state,node,store").await?;
    let (mut left, mut size, mut moving) = (0, 0_u64, 0_u64);
    for row in shards.as_array().into_iter().flatten() {
        if row["node"].as_str().and_then(|node| node.split(" -> ").next()).map(str::trim) != Some(node) {
            continue;
        }
        left += 1;
        moving += u64::from(row["state"] == "RELOCATING");
        size = size.saturating_add(row["store"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0));
    }
    if left == 0 {
        return Ok(None);
    }
    let path = "/_cat/recovery?active_only=true&format=json&bytes=b&h=source_node,bytes_recovered,\
                translog_ops_recovered";
    let recovery = get(instance, path).await?;
    let own = recovery.as_array().into_iter().flatten().filter(|row| row["source_node"] == node);
    let recovered: Vec<String> =
        own.map(|row| format!("{}+{}", row["bytes_recovered"], row["translog_ops_recovered"])).collect();
    let on_their_way =
        if moving == 0 { "none on its way".to_owned() } else { format!("{moving} on their way") };
    Ok(Some(Held::Moving {
        left,
        what: format!("shard copies left, {}, {on_their_way}", ByteSize(size)),
        mark: format!("{left} {}", recovered.join(" ")),
    }))
}

/// Whether the cluster is as well as before without the node.
pub(super) async fn parted(view: &View<'_>) -> Result<Held, AdapterError> {
    if who(&view.this).await.is_ok() {
        return Ok(Held::NotYet("it still answers".to_owned()));
    }
    let (instance, said) = spokesman(view).await?;
    let cluster = look_through(instance, view).await?;
    let not_yet = |what: String| Ok(Held::NotYet(what));
    if let (Some(name), _) = named(&view.this, None, &said, &cluster.members) {
        return not_yet(format!("its cluster still has {name}"));
    }
    if cluster.elected.is_none() {
        return not_yet("its cluster has no elected master".to_owned());
    }
    let health = &cluster.health;
    if health.busy {
        return not_yet("the cluster has tasks that it has not done".to_owned());
    }
    if health.initializing + health.fetching > 0 {
        return not_yet(format!("shard copies on their way: {}", health.initializing + health.fetching));
    }
    match not_green(&cluster).filter(|_| health.color == Color::Red || !view.is_off(GREEN)) {
        Some(why) => not_yet(why),
        None => Ok(Held::Yes),
    }
}

/// The node itself, if it is not gone: one that none of the others is.
fn still_there<'c>(cluster: &'c Cluster, gone: &Gone<'_>) -> Option<&'c Member> {
    let known = |name: &str| {
        cluster.this.as_deref() == Some(name)
            || cluster.peers.iter().any(|one| one.name.as_deref() == Some(name))
    };
    let is_it = |one: &&Member| {
        one.name == gone.node.as_str() || one.http.as_ref().is_some_and(|(host, _)| host == gone.address)
    };
    cluster.members.iter().filter(|one| !known(&one.name)).find(is_it)
}

/// What the cluster changes when it forgets a node that is gone; nothing where it may not.
pub(super) async fn burying(view: &View<'_>, gone: &Gone<'_>) -> Result<Vec<Setting>, AdapterError> {
    let (instance, said) = spokesman(view).await?;
    let cluster = look(view).await?;
    if against_burying(&cluster, gone).is_some() {
        return Ok(Vec::new());
    }
    voting::burying(instance, &said, &cluster.members).await
}

/// Has the cluster forget a node that is gone already.
pub(super) async fn bury(
    view: &View<'_>,
    gone: &Gone<'_>,
    changed: &[Setting],
) -> Result<Held, AdapterError> {
    let (instance, said) = spokesman(view).await?;
    let cluster = look(view).await?;
    if let Some(why) = against_burying(&cluster, gone) {
        return Ok(Held::Never(why));
    }
    voting::bury(instance, &said, &cluster.members, changed).await
}

/// Why nobody may be forgotten now.
fn against_burying(cluster: &Cluster, gone: &Gone<'_>) -> Option<String> {
    if cluster.elected.is_none() {
        return Some("its cluster has no elected master".to_owned());
    }
    if cluster.health.color == Color::Red {
        let why = not_green(cluster).unwrap_or_default();
        return Some(format!("{GREEN}: {why}: what it had may be nowhere else"));
    }
    if let Some(one) = still_there(cluster, gone) {
        return Some(format!("its cluster still has {}: stop it first, or leave without --dead", one.name));
    }
    // Whose vote it is that is missing can be told only where all others are there.
    let away: Vec<&str> =
        cluster.peers.iter().filter(|one| one.name.is_none()).map(|one| one.title.as_str()).collect();
    (!away.is_empty())
        .then(|| format!("{MASTERS}: others are away too, start them first: {}", away.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{Health, Peer};
    use super::super::member::Tier;
    use super::*;

    fn member(name: &str, master: bool, data: bool) -> Member {
        let tier = data.then_some(Tier::Any);
        let (id, version) = (name.to_owned(), "7.17.0".parse().unwrap());
        Member { id, name: name.to_owned(), version, master, tier, http: None }
    }

    fn cluster() -> Cluster {
        Cluster {
            this: Some("a".to_owned()),
            members: vec![member("a", true, true), member("b", true, true), member("c", false, true)],
            elected: Some("b".to_owned()),
            health: Health { color: Color::Green, ..Health::default() },
            copies: Vec::new(),
            peers: Vec::new(),
            leaving: std::collections::BTreeSet::new(),
            target: None,
            budget: 1,
        }
    }

    fn masters(cluster: &Cluster) -> String {
        no_masters(cluster, cluster.member().unwrap()).unwrap_or_default()
    }

    #[test]
    fn masters_stay_and_a_majority_of_them_is_there() {
        let mut found = cluster();
        assert_eq!(masters(&found), "");
        let title = "hot of d".to_owned();
        found.peers.push(Peer { title, same_role: true, name: None });
        assert!(
            masters(&found).contains("of 2 master-eligible nodes that stay 1 are there"),
            "{}",
            masters(&found)
        );
        found.members.push(member("e", true, false));
        assert_eq!(masters(&found), "");
        found.members.retain(|one| one.name == "a" || !one.master);
        assert_eq!(masters(&found), "it is the last master-eligible node");
        found.this = Some("c".to_owned());
        assert_eq!(masters(&found), "");
    }
}
