//! Whether a broker or a controller of Kafka can be spared for a while.
//!
//! # Invariants
//!
//! * What one broker believes of the cluster is not enough to let it go: one that died a moment ago is in everybody's
//!   metadata for seconds, and one that lags has old metadata. Every broker that answers has to see enough replicas,
//!   and one that does not answer has none.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::kafka::{MIN_ISR, QUORUM, Seen, look, told};
use super::kafka_api::{Metadata, Partition, Quorum};
use super::view::View;
use crate::rollout::Held;

/// The others of a server's cluster, all asked at one time.
#[derive(Default)]
pub(super) struct Peers {
    /// Those that answer.
    there: BTreeMap<i32, Option<Metadata>>,
    /// How many do not answer, though their nodes can be reached.
    mute: usize,
    /// How many do not answer, for whatever reason.
    silent: usize,
}

impl Peers {
    /// Asks them.
    pub(super) async fn of(view: &View<'_>, seen: &Seen) -> Self {
        let mut peers = Self::default();
        let cluster = |one: &Seen| one.metadata.as_ref().and_then(|metadata| metadata.cluster.clone());
        let own = cluster(seen);
        let answers = join_all(view.peers.iter().map(look)).await;
        for (peer, answer) in view.peers.iter().zip(answers) {
            match answer {
                Ok(other) if own.is_some() && cluster(&other).is_some_and(|id| Some(id) != own) => {}
                Ok(other) => drop(peers.there.insert(other.id, other.metadata)),
                Err(_) => {
                    peers.silent += 1;
                    peers.mute += usize::from(peer.reach.is_some());
                }
            }
        }
        peers
    }

    /// What the brokers among them see of the cluster.
    pub(super) fn sights(&self) -> impl Iterator<Item = &Metadata> {
        self.there.values().flatten()
    }
}

/// Whether a server can be spared for a while, where topics want so many replicas in sync.
pub(super) fn spared(
    seen: &Seen,
    wanted: &BTreeMap<String, usize>,
    peers: &Peers,
    is_off: impl Fn(&str) -> bool,
) -> Held {
    if let Some(metadata) = seen.metadata.as_ref().filter(|_| !is_off(MIN_ISR)) {
        let mut sights = std::iter::once(metadata).chain(peers.sights());
        if let Some(why) = sights.find_map(|one| short_without(seen.id, &one.partitions, wanted, peers)) {
            return Held::NotYet(why);
        }
    }
    let quorum = seen.quorum.as_ref().filter(|_| !is_off(QUORUM));
    let quorum = quorum.filter(|quorum| quorum.voters.contains_key(&seen.id));
    quorum.map_or(Held::Yes, |quorum| voters_without(seen.id, quorum, peers))
}

/// Which partitions could not be written to with acks=all without a broker; `None` if all could.
///
/// A topic that wants all its replicas in sync, or more, cannot be spared any: it is not asked for. Which broker a
/// silent one is, is not known: it may be any that is said to be in sync and did not answer.
fn short_without(
    id: i32,
    partitions: &[Partition],
    wanted: &BTreeMap<String, usize>,
    peers: &Peers,
) -> Option<String> {
    let silent = |one: &Partition| {
        let unseen = one.isr.iter().filter(|other| **other != id && !peers.there.contains_key(other));
        unseen.count().min(peers.mute)
    };
    let short = |one: &&Partition| {
        let wanted = wanted.get(&one.topic).copied().unwrap_or(1);
        let (isr, has) = (one.isr.len() - silent(one), one.replicas.contains(&id));
        one.replicas.len() > wanted && has && (isr < wanted || (isr == wanted && one.isr.contains(&id)))
    };
    let names = told(partitions.iter().filter(short))?;
    let mute = match partitions.iter().filter(short).map(silent).max().unwrap_or(0) {
        0 => String::new(),
        count => format!("; {count} said to be in sync do not answer"),
    };
    Some(format!(
        "{MIN_ISR}: without broker {id} too few replicas are in sync (min.insync.replicas) for {names}{mute}"
    ))
}

/// Whether the controllers that go on are a majority with everything.
fn voters_without(id: i32, quorum: &Quorum, peers: &Peers) -> Held {
    let all = quorum.voters.len();
    if all == 1 {
        // It is the only one: there is no way without an outage.
        return Held::Yes;
    }
    let mut up: BTreeSet<i32> = quorum.caught_up().into_iter().filter(|one| *one != id).collect();
    // What the leader heard last may be older than a peer's end.
    let unseen: Vec<i32> = up.iter().copied().filter(|one| !peers.there.contains_key(one)).collect();
    for gone in unseen.iter().take(peers.silent) {
        up.remove(gone);
    }
    let needed = all / 2 + 1;
    if up.len() >= needed {
        return Held::Yes;
    }
    let off = if all < 3 {
        format!("; to stop it nevertheless: [rollout] predicates_off = [\"{QUORUM}\"]")
    } else {
        String::new()
    };
    let left = up.len();
    Held::NotYet(format!(
        "{QUORUM}: without controller {id} {left} of {all} have everything and answer, and a quorum needs {needed}{off}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_spared_only_where_enough_replicas_stay() {
        let partition = |topic: &str, replicas: &[i32], isr: &[i32]| Partition {
            topic: topic.to_owned(),
            index: 0,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
        };
        let wanted = BTreeMap::from([("a".to_owned(), 2), ("all".to_owned(), 3)]);
        let nobody = Peers::default();
        let without = |id, one: Partition| short_without(id, &[one], &wanted, &nobody).is_some();
        assert!(!without(1, partition("a", &[1, 2, 3], &[1, 2, 3])));
        assert!(without(1, partition("a", &[1, 2, 3], &[1, 2])));
        // It is not one of those in sync: they stay as many without it.
        assert!(!without(3, partition("a", &[1, 2, 3], &[1, 2])));
        assert!(without(3, partition("a", &[1, 2, 3], &[1])));
        assert!(!without(4, partition("a", &[1, 2, 3], &[1])));
        // It wants all of them: there is no time at which one could be spared.
        assert!(!without(1, partition("all", &[1, 2, 3], &[1, 2, 3])));
        // A topic without copies is never in the way: nothing could be done about it.
        assert!(!without(1, partition("one", &[1], &[1])));
    }

    #[test]
    fn one_that_does_not_answer_is_not_in_sync_whatever_is_said_of_it() {
        let topic = |isr: &[i32]| {
            let (topic, replicas) = ("a".to_owned(), vec![1, 2, 3]);
            [Partition { topic, index: 0, replicas, isr: isr.to_vec() }]
        };
        let wanted = BTreeMap::from([("a".to_owned(), 2)]);
        let there = |ids: &[i32], mute| {
            let there = ids.iter().map(|id| (*id, None)).collect();
            Peers { there, mute, silent: mute }
        };
        let without = |partitions: &[Partition], peers: &Peers| short_without(1, partitions, &wanted, peers);
        assert_eq!(without(&topic(&[1, 2, 3]), &there(&[2, 3], 0)), None);
        let why = without(&topic(&[1, 2, 3]), &there(&[2], 1)).unwrap();
        assert!(why.ends_with("for a-0; 1 said to be in sync do not answer"), "{why}");
        // One that is silent and not in sync takes nothing away, nor does one that nobody can be asked about.
        assert_eq!(without(&topic(&[1, 2, 3]), &there(&[2, 3], 1)), None);
        assert_eq!(without(&topic(&[1, 2, 3]), &there(&[2], 0)), None);
        // It is not in sync itself: it may go as long as the others are enough and answer.
        assert_eq!(without(&topic(&[2, 3]), &there(&[2, 3], 0)), None);
        assert!(without(&topic(&[2, 3]), &there(&[2], 1)).is_some());
    }

    #[test]
    fn a_controller_that_lags_does_not_count() {
        let voters = BTreeMap::from([(1, 100), (2, 99), (3, -1)]);
        let quorum = Quorum { leader: 1, high_watermark: 99, voters };
        assert_eq!(quorum.caught_up(), [1, 2]);
    }
}
