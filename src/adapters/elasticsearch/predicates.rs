//! What must hold before a node may be stopped, one function each, on one look at its cluster.
//!
//! They are those that Elastic's own operator asks, restated. A node that its cluster has lost already is bad:
//! whatever is done to it can only help, and none of them is asked.

use super::cluster::{Cluster, Color};
use super::member::Member;

/// Whether it holds: if not, why.
type Predicate = fn(&Cluster, &Member) -> Option<String>;

/// By name, as `[rollout] predicates_off` turns them off.
pub(super) const ALL: [(&str, Predicate); 10] = [
    ("tiers-in-order", tiers_in_order),
    ("max-unavailable", max_unavailable),
    ("not-stopping", not_stopping),
    ("red-only-bad", red_only_bad),
    ("yellow-only-old", yellow_only_old),
    ("started-copy", started_copy),
    ("one-master", one_master),
    ("last-master", last_master),
    ("shared-shards", shared_shards),
    ("last-of-role", last_of_role),
];

/// That somebody of the cluster answers at all.
pub(super) const ANSWERS: &str = "cluster-answers";

/// The names of all of them.
#[cfg(test)]
pub(in super::super) const NAMES: &[&str] = &{
    let mut names = [ANSWERS; ALL.len() + 1];
    let mut index = 0;
    while index < ALL.len() {
        names[index] = ALL[index].0;
        index += 1;
    }
    names
};

/// Why a node may not be stopped now, by the names of what does not hold; `None` if it may.
pub(super) fn against(cluster: &Cluster, is_off: impl Fn(&str) -> bool) -> Option<String> {
    let member = cluster.member()?;
    let asked = ALL.iter().filter(|(name, _)| !is_off(name));
    let failed = asked.filter_map(|(name, holds)| Some(format!("{name}: {}", holds(cluster, member)?)));
    let failed: Vec<String> = failed.collect();
    (!failed.is_empty()).then(|| failed.join("; "))
}

/// A few of many names.
fn some(names: &[String]) -> String {
    const MOST: usize = 4;
    let shown = names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A newer node's shards cannot move to an older one: where data moves from hot to warm, warm must be newer first.
fn tiers_in_order(cluster: &Cluster, member: &Member) -> Option<String> {
    let own = member.tier.filter(|_| cluster.is_old(member))?;
    let before = |other: &&Member| {
        let colder = other.tier.is_some_and(|tier| tier < own);
        // Masters go after the others, and the elected one last, whatever data they hold.
        colder && cluster.is_old(other) && cluster.rank(other) < cluster.rank(member)
    };
    let before: Vec<String> = cluster
        .others()
        .filter(before)
        .map(|one| format!("{} ({})", one.name, one.tier.map_or("data", |tier| tier.name())))
        .collect();
    (!before.is_empty()).then(|| format!("{} first", some(&before)))
}

/// Of a role no more nodes are away than `max_unavailable`.
fn max_unavailable(cluster: &Cluster, _: &Member) -> Option<String> {
    let is_away = |name: &Option<String>| name.as_ref().is_none_or(|name| cluster.leaving.contains(name));
    let of_role = cluster.peers.iter().filter(|peer| peer.same_role && is_away(&peer.name));
    let away: Vec<String> = of_role.map(|peer| peer.title.clone()).collect();
    (away.len() >= cluster.budget)
        .then(|| format!("{} of the role may be away, and these are: {}", cluster.budget, some(&away)))
}

/// Nobody stops what is being stopped by somebody else.
fn not_stopping(cluster: &Cluster, member: &Member) -> Option<String> {
    cluster.leaving.contains(&member.name).then(|| "it is being shut down already".to_owned())
}

/// A red cluster has lost shards: nothing that is well may be taken from it.
fn red_only_bad(cluster: &Cluster, _: &Member) -> Option<String> {
    (cluster.health.color == Color::Red).then(|| "the cluster is red, and this node is well".to_owned())
}

/// A yellow cluster lacks copies. In the middle of an upgrade it may have to, as a newer node's shards have no
/// replica on an older one; then only an older node may go, and only while no copy is being made.
fn yellow_only_old(cluster: &Cluster, member: &Member) -> Option<String> {
    let health = &cluster.health;
    if health.color != Color::Yellow || cluster.members.len() == 1 {
        return None;
    }
    let active = health.initializing + health.relocating + health.fetching;
    if active > 0 {
        return Some(format!("the cluster is yellow, and {active} shard copies are on their way"));
    }
    if !cluster.is_old(member) {
        let lacks = health.unassigned;
        return Some(format!("the cluster is yellow: {lacks} shard copies are assigned to no node"));
    }
    None
}

/// What it holds as primary has to be somewhere else too.
fn started_copy(cluster: &Cluster, member: &Member) -> Option<String> {
    if cluster.health.color == Color::Green {
        return None;
    }
    let only = cluster.only_there(&member.name);
    (!only.is_empty()).then(|| format!("no other started copy of {}", some(&only)))
}

/// Masters go one at a time, and only while all others are well.
fn one_master(cluster: &Cluster, member: &Member) -> Option<String> {
    if !member.master {
        return None;
    }
    let leaving = cluster.others().filter(|one| one.master && cluster.leaving.contains(&one.name));
    let mut away: Vec<String> = leaving.map(|one| one.name.clone()).collect();
    // Who is not there cannot say whether it is one; the nodes of this role are.
    let absent = cluster.peers.iter().filter(|peer| peer.same_role && peer.name.is_none());
    away.extend(absent.map(|peer| peer.title.clone()));
    (!away.is_empty()).then(|| format!("master-eligible and away already: {}", some(&away)))
}

/// When the last master is newer, older nodes can no longer join: they all go before it.
fn last_master(cluster: &Cluster, member: &Member) -> Option<String> {
    let others = cluster.others().any(|one| one.master && cluster.is_old(one));
    if !member.master || !cluster.is_old(member) || others {
        return None;
    }
    let before = cluster.others().filter(|one| !one.master && cluster.is_old(one));
    let before: Vec<String> = before.map(|one| one.name.clone()).collect();
    (!before.is_empty()).then(|| format!("it is the last master to go, and {} come before it", some(&before)))
}

/// No two nodes with copies of one shard are away at the same time.
fn shared_shards(cluster: &Cluster, member: &Member) -> Option<String> {
    let on_leaving = |node: &Option<String>| {
        node.as_ref().is_some_and(|node| *node != member.name && cluster.leaving.contains(node))
    };
    let away: Vec<_> = cluster.copies.iter().filter(|copy| copy.started && on_leaving(&copy.node)).collect();
    let own = cluster.copies.iter().filter(|copy| copy.node.as_ref() == Some(&member.name));
    let shared = own.filter(|copy| away.iter().any(|other| other.is_of(copy)));
    let shared: Vec<String> = shared.map(super::cluster::Copy::name).collect();
    (!shared.is_empty()).then(|| format!("a node that leaves has copies of {} too", some(&shared)))
}

/// Somebody of the role stays, unless there is nobody else.
fn last_of_role(cluster: &Cluster, _: &Member) -> Option<String> {
    let mut of_role = cluster.peers.iter().filter(|peer| peer.same_role).peekable();
    of_role.peek()?;
    let stays = |name: &String| !cluster.leaving.contains(name);
    let last = !of_role.any(|peer| peer.name.as_ref().is_some_and(stays));
    last.then(|| "no other node of the role is there".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{Copy, Health, Peer};
    use super::super::member::Tier;
    use super::*;

    fn member(name: &str, version: &str, master: bool, tier: Option<Tier>) -> Member {
        let version = version.parse().unwrap();
        Member { id: name.to_owned(), name: name.to_owned(), version, master, tier, http: None }
    }

    fn copy(shard: u64, primary: bool, node: Option<&str>) -> Copy {
        let node = node.map(str::to_owned);
        Copy { index: "i".to_owned(), shard, primary, started: node.is_some(), node }
    }

    fn peer(name: &str, there: bool) -> Peer {
        let title = format!("hot of {name}");
        Peer { title, same_role: true, name: there.then(|| name.to_owned()) }
    }

    /// Two hot nodes and a master on 6.4.2, green, on the way to 6.7.0; `a` is asked about.
    fn cluster() -> Cluster {
        Cluster {
            this: Some("a".to_owned()),
            members: vec![
                member("a", "6.4.2", false, Some(Tier::Hot)),
                member("b", "6.4.2", false, Some(Tier::Hot)),
                member("m", "6.4.2", true, None),
            ],
            elected: Some("m".to_owned()),
            health: Health { color: Color::Green, ..Health::default() },
            copies: vec![copy(0, true, Some("a")), copy(0, false, Some("b"))],
            peers: vec![peer("b", true)],
            leaving: ["x".to_owned()].into(),
            target: Some("6.7.0".parse().unwrap()),
            budget: 1,
        }
    }

    /// The names of what does not hold after `change`.
    fn fires(change: impl FnOnce(&mut Cluster)) -> Vec<&'static str> {
        let mut cluster = cluster();
        change(&mut cluster);
        let member = cluster.member().unwrap();
        ALL.iter().filter(|(_, holds)| holds(&cluster, member).is_some()).map(|(name, _)| *name).collect()
    }

    fn yellow(cluster: &mut Cluster) {
        cluster.health.color = Color::Yellow;
        cluster.health.unassigned = 1;
    }

    #[test]
    fn nothing_stands_against_a_node_of_a_healthy_cluster() {
        assert!(fires(|_| {}).is_empty());
        assert!(fires(|cluster| cluster.target = None).is_empty());
    }

    #[test]
    fn a_node_that_the_cluster_lost_is_asked_nothing() {
        let mut lost = cluster();
        lost.health.color = Color::Red;
        assert!(against(&lost, |_| false).is_some());
        lost.this = None;
        assert_eq!(against(&lost, |_| false), None);
    }

    #[test]
    fn each_can_be_turned_off_and_all_that_fail_are_named() {
        let mut red = cluster();
        red.health.color = Color::Red;
        red.leaving.insert("a".to_owned());
        let all = against(&red, |_| false).unwrap();
        assert!(all.contains("not-stopping: ") && all.contains("; red-only-bad: "), "{all}");
        let one = against(&red, |name| name == "not-stopping").unwrap();
        assert!(!one.contains("not-stopping"), "{one}");
    }

    type Change = fn(&mut Cluster);

    /// For each by its name, a cluster in which it does not hold.
    const BROKEN: [(&str, Change); 10] = [
        ("tiers-in-order", |cluster| cluster.members[1].tier = Some(Tier::Warm)),
        ("max-unavailable", |cluster| cluster.peers.push(peer("c", false))),
        ("not-stopping", |cluster| cluster.leaving = ["a".to_owned()].into()),
        ("red-only-bad", |cluster| cluster.health.color = Color::Red),
        ("yellow-only-old", |cluster| {
            yellow(cluster);
            cluster.health.relocating = 1;
        }),
        ("started-copy", |cluster| {
            yellow(cluster);
            cluster.copies[1].node = None;
            cluster.copies[1].started = false;
        }),
        ("one-master", |cluster| {
            cluster.members[0].master = true;
            cluster.leaving.insert("m".to_owned());
        }),
        ("last-master", |cluster| cluster.this = Some("m".to_owned())),
        ("shared-shards", |cluster| {
            cluster.leaving.insert("b".to_owned());
            cluster.budget = 2;
            cluster.peers.push(peer("c", true));
        }),
        ("last-of-role", |cluster| {
            cluster.peers = vec![peer("b", false)];
            cluster.budget = 2;
        }),
    ];

    #[test]
    fn each_alone_is_turned_off_by_its_name_and_by_no_other() {
        assert_eq!(BROKEN.map(|(name, _)| name), ALL.map(|(name, _)| name));
        for (name, breaks) in BROKEN {
            let mut cluster = cluster();
            breaks(&mut cluster);
            let said = against(&cluster, |off| off != name).unwrap_or_default();
            assert!(said.starts_with(&format!("{name}: ")) && !said.contains("; "), "{name}: {said}");
            assert_eq!(against(&cluster, |off| off == name), None, "{name}");
        }
    }

    #[test]
    fn colder_tiers_go_first() {
        let colder = |cluster: &mut Cluster| cluster.members[1].tier = Some(Tier::Warm);
        assert_eq!(fires(colder), ["tiers-in-order"]);
        // It is done already; or nothing is being upgraded; or it goes with the masters anyway.
        assert!(
            fires(|cluster| {
                colder(cluster);
                cluster.members[1].version = "6.7.0".parse().unwrap();
            })
            .is_empty()
        );
        assert!(
            fires(|cluster| {
                colder(cluster);
                cluster.target = None;
            })
            .is_empty()
        );
        assert!(
            fires(|cluster| {
                colder(cluster);
                cluster.members[1].master = true;
            })
            .is_empty()
        );
        // Both may be elected, and the colder one is.
        assert!(
            fires(|cluster| {
                colder(cluster);
                cluster.members[0].master = true;
                cluster.members[1].master = true;
                cluster.elected = Some("b".to_owned());
            })
            .is_empty()
        );
    }

    #[test]
    fn no_more_than_the_budget_are_away() {
        let away = |cluster: &mut Cluster| {
            cluster.peers = vec![peer("b", true), peer("c", false)];
        };
        assert_eq!(fires(away), ["max-unavailable"]);
        assert!(
            fires(|cluster| {
                away(cluster);
                cluster.budget = 2;
            })
            .is_empty()
        );
    }

    #[test]
    fn what_is_being_shut_down_is_left_alone() {
        assert_eq!(fires(|cluster| cluster.leaving = ["a".to_owned()].into()), ["not-stopping"]);
    }

    #[test]
    fn a_red_cluster_keeps_what_it_has() {
        assert_eq!(fires(|cluster| cluster.health.color = Color::Red), ["red-only-bad"]);
    }

    #[test]
    fn from_a_yellow_cluster_only_old_nodes_go() {
        assert!(fires(yellow).is_empty());
        assert_eq!(
            fires(|cluster| {
                yellow(cluster);
                cluster.health.initializing = 1;
            }),
            ["yellow-only-old"]
        );
        let same = |cluster: &mut Cluster| {
            yellow(cluster);
            cluster.target = Some("6.4.2".parse().unwrap());
        };
        assert_eq!(fires(same), ["yellow-only-old"]);
        // A replica of a cluster of one has nowhere to be.
        assert!(
            fires(|cluster| {
                same(cluster);
                cluster.members.truncate(1);
                cluster.peers.clear();
            })
            .is_empty()
        );
    }

    #[test]
    fn a_primary_has_another_started_copy() {
        let only = |cluster: &mut Cluster| {
            yellow(cluster);
            cluster.copies = vec![copy(0, true, Some("a")), copy(0, false, None)];
        };
        assert_eq!(fires(only), ["started-copy"]);
        // One without replicas is lost for a while whatever is done; a replica is no primary.
        assert!(
            fires(|cluster| {
                only(cluster);
                cluster.copies.truncate(1);
            })
            .is_empty()
        );
        assert!(
            fires(|cluster| {
                yellow(cluster);
                cluster.copies = vec![copy(0, true, Some("b")), copy(0, false, None)];
            })
            .is_empty()
        );
    }

    #[test]
    fn masters_go_one_at_a_time() {
        let master = |cluster: &mut Cluster| {
            cluster.members[0].master = true;
            cluster.leaving.insert("m".to_owned());
        };
        assert_eq!(fires(master), ["one-master"]);
        assert!(fires(|cluster| cluster.members[0].master = true).is_empty());
        assert!(fires(|cluster| cluster.leaving = ["m".to_owned()].into()).is_empty());
    }

    #[test]
    fn the_last_master_goes_last() {
        let master = |cluster: &mut Cluster| {
            cluster.this = Some("m".to_owned());
            cluster.peers.clear();
        };
        assert_eq!(fires(master), ["last-master"]);
        assert!(
            fires(|cluster| {
                master(cluster);
                cluster.members.push(member("n", "6.4.2", true, None));
            })
            .is_empty()
        );
        assert!(
            fires(|cluster| {
                master(cluster);
                for one in &mut cluster.members[..2] {
                    one.version = "6.7.0".parse().unwrap();
                }
            })
            .is_empty()
        );
    }

    #[test]
    fn two_nodes_with_copies_of_a_shard_are_not_away_at_once() {
        let leaves = |cluster: &mut Cluster| {
            cluster.leaving.insert("b".to_owned());
            cluster.budget = 2;
            cluster.peers.push(peer("c", true));
        };
        assert_eq!(fires(leaves), ["shared-shards"]);
        assert!(
            fires(|cluster| {
                leaves(cluster);
                cluster.copies[1].shard = 7;
            })
            .is_empty()
        );
    }

    #[test]
    fn somebody_of_the_role_stays() {
        let alone = |cluster: &mut Cluster| {
            cluster.peers = vec![peer("b", false)];
            cluster.budget = 2;
        };
        assert_eq!(fires(alone), ["last-of-role"]);
        assert!(fires(|cluster| cluster.peers.clear()).is_empty());
    }
}
