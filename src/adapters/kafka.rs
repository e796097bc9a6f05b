//! Kafka, with `KRaft` and with `ZooKeeper`: controllers before brokers, and the active controller last.
//!
//! A broker hands its partitions on by itself when it gets TERM; what is asked here is whether it may, by the rule
//! that Strimzi has: nobody who writes with acks=all may be turned away for it.
//!
//! # Invariants
//!
//! * Nothing is changed: no setting, no reassignment, no election.
//! * A broker that does not answer is waited for: it may be recovering its log, and would begin anew.

use std::collections::{BTreeMap, BTreeSet};

use super::adapter::{Adapter, AdapterError};
use super::kafka_api::{Client, Metadata, Partition, Quorum};
use super::kafka_spare::{Peers, spared};
use super::view::{Gone, Instance, View};
use crate::agent::Setting;
use crate::rollout::Held;

/// No partition gets fewer replicas in sync than writers with acks=all need.
pub(super) const MIN_ISR: &str = "kafka-min-isr";
/// A majority of the controllers has everything while one is away.
pub(super) const QUORUM: &str = "kafka-quorum";
/// No partition of the cluster lacks a replica after a broker is back.
pub(super) const UNDER_REPLICATED: &str = "kafka-under-replicated";
/// A broker that leaves for good has no replica.
pub(super) const REPLICAS: &str = "kafka-replicas";

/// What is known of Kafka.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kafka;

/// A server that answers, and what it sees.
pub(super) struct Seen {
    pub(super) id: i32,
    /// A controller alone has none.
    pub(super) metadata: Option<Metadata>,
    /// With `ZooKeeper` there is none.
    pub(super) quorum: Option<Quorum>,
}

impl Adapter for Kafka {
    async fn rank(&self, view: &View<'_>) -> Result<u32, AdapterError> {
        let seen = look(&view.this).await?;
        let active = match (&seen.quorum, &seen.metadata) {
            (Some(quorum), _) => quorum.leader == seen.id,
            (None, Some(metadata)) => metadata.controller == seen.id,
            (None, None) => false,
        };
        Ok(match (seen.metadata.is_some(), active) {
            (false, false) => 0,
            (false, true) => 1,
            (true, false) => 2,
            (true, true) => 3,
        })
    }

    async fn may_leave(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        if view.is_off(MIN_ISR) && view.is_off(QUORUM) {
            return Ok(Held::Yes);
        }
        let mut client = Client::connect(&view.this).await?;
        let seen = see(&mut client).await?;
        let peers = Peers::of(view, &seen).await;
        let mut wanted = BTreeMap::new();
        if let Some(metadata) = seen.metadata.as_ref().filter(|_| !view.is_off(MIN_ISR)) {
            let sights = std::iter::once(metadata).chain(peers.sights());
            let partitions = sights.flat_map(|metadata| &metadata.partitions);
            let topics: BTreeSet<&str> = partitions.map(|partition| partition.topic.as_str()).collect();
            let topics: Vec<String> = topics.into_iter().map(str::to_owned).collect();
            wanted = client.min_isr(&topics).await?;
        }
        Ok(spared(&seen, &wanted, &peers, |name| view.is_off(name)))
    }

    async fn drain(&self, view: &View<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        self.may_leave(view).await
    }

    async fn ready(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let seen = look(&view.this).await?;
        if let Some(quorum) = &seen.quorum
            && quorum.leader < 0
        {
            return Ok(Held::NotYet("no controller is active".to_owned()));
        }
        let Some(metadata) = &seen.metadata else { return Ok(Held::Yes) };
        if !metadata.brokers.contains(&seen.id) {
            return Ok(Held::NotYet(format!("broker {} is not registered in its cluster yet", seen.id)));
        }
        let out = |one: &&Partition| one.replicas.contains(&seen.id) && !one.isr.contains(&seen.id);
        Ok(match told(metadata.partitions.iter().filter(out)) {
            Some(names) => Held::NotYet(format!("broker {} is not in sync for {names}", seen.id)),
            None => Held::Yes,
        })
    }

    async fn settled(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let seen = look(&view.this).await?;
        Ok(whole(&seen, |name| view.is_off(name)))
    }

    async fn may_part(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let seen = look(&view.this).await?;
        Ok(parts(&seen, &view.this, |name| view.is_off(name)))
    }

    async fn part(&self, view: &View<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        self.may_part(view).await
    }

    async fn parted(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let mut last = None;
        for peer in &view.peers {
            let metadata = match look(peer).await {
                Ok(Seen { metadata: Some(metadata), .. }) => metadata,
                Ok(_) => continue,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            let short = short(&metadata).filter(|_| !view.is_off(UNDER_REPLICATED));
            return Ok(short.map_or(Held::Yes, Held::NotYet));
        }
        last.map_or(Ok(Held::Yes), Err)
    }

    async fn bury(&self, view: &View<'_>, _: &Gone<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        let seen = look(&view.this).await?;
        let Some(metadata) = seen.metadata.filter(|_| !view.is_off(REPLICAS)) else { return Ok(Held::Yes) };
        let there: BTreeSet<i32> = metadata.brokers.iter().copied().collect();
        let gone = |one: i32| !there.contains(&one);
        Ok(replicas_on(&metadata, gone, &there, &view.this).map_or(Held::Yes, Held::Never))
    }
}

/// What says that a partition has fewer replicas in sync than it shall have.
fn short(metadata: &Metadata) -> Option<String> {
    let short = metadata.partitions.iter().filter(|one| one.isr.len() < one.replicas.len());
    Some(format!("{UNDER_REPLICATED}: a replica is not in sync for {}", told(short)?))
}

/// Whether its cluster lacks nothing.
fn whole(seen: &Seen, is_off: impl Fn(&str) -> bool) -> Held {
    if let Some(metadata) = seen.metadata.as_ref().filter(|_| !is_off(UNDER_REPLICATED))
        && let Some(why) = short(metadata)
    {
        return Held::NotYet(why);
    }
    if let Some(quorum) = seen.quorum.as_ref().filter(|_| !is_off(QUORUM)) {
        let up = quorum.caught_up();
        let behind: Vec<String> =
            quorum.voters.keys().filter(|id| !up.contains(id)).map(ToString::to_string).collect();
        if !behind.is_empty() {
            return Held::NotYet(format!("{QUORUM}: controller {} has not caught up", behind.join(", ")));
        }
    }
    Held::Yes
}

/// Whether its cluster can do without it for good; `ask` is where a person would ask it.
fn parts(seen: &Seen, ask: &Instance<'_>, is_off: impl Fn(&str) -> bool) -> Held {
    let id = seen.id;
    if seen.quorum.as_ref().is_some_and(|one| one.voters.contains_key(&id)) && !is_off(QUORUM) {
        return Held::Never(format!(
            "kafka-quorum: controller {id} has a vote: take it out of `controller.quorum.voters` of all controllers \
             and promote them, or `kafka-metadata-quorum.sh remove-controller`; then off with [rollout] \
             predicates_off = [\"{QUORUM}\"]"
        ));
    }
    let Some(metadata) = seen.metadata.as_ref().filter(|_| !is_off(REPLICAS)) else { return Held::Yes };
    let brokers = metadata.brokers.iter().copied().filter(|one| *one != id).collect();
    replicas_on(metadata, |one| one == id, &brokers, ask).map_or(Held::Yes, Held::Never)
}

/// Why brokers may not go: what they have, and how it comes to the others.
fn replicas_on(
    metadata: &Metadata,
    goes: impl Fn(i32) -> bool,
    stay: &BTreeSet<i32>,
    ask: &Instance<'_>,
) -> Option<String> {
    let has = |one: &&Partition| one.replicas.iter().any(|id| goes(*id));
    let names = told(metadata.partitions.iter().filter(has))?;
    let stay: Vec<String> = stay.iter().map(ToString::to_string).collect();
    let (host, port) = (&ask.address, ask.port());
    Some(format!(
        "{REPLICAS}: it has replicas of {names}: move them to brokers {ids} with `kafka-reassign-partitions.sh \
         --bootstrap-server {host}:{port} --topics-to-move-json-file topics.json --broker-list {ids} --generate`, \
         then the same with --reassignment-json-file and --execute",
        ids = stay.join(","),
    ))
}

/// Asks a server what it sees.
pub(super) async fn look(server: &Instance<'_>) -> Result<Seen, AdapterError> {
    see(&mut Client::connect(server).await?).await
}

async fn see(client: &mut Client<'_, '_>) -> Result<Seen, AdapterError> {
    let metadata = if client.is_broker() { Some(client.metadata().await?) } else { None };
    let quorum = if client.has_quorum() { Some(client.quorum().await?) } else { None };
    let mut known: BTreeSet<i32> = metadata.iter().flat_map(|metadata| metadata.brokers.clone()).collect();
    known.extend(quorum.iter().flat_map(|quorum| quorum.voters.keys().copied()));
    // One that is fenced is in no list of brokers; its partitions still name it.
    known.extend(metadata.iter().flat_map(|one| one.partitions.iter().flat_map(|one| one.replicas.clone())));
    let known: Vec<i32> = known.into_iter().collect();
    match client.own_id(&known).await? {
        Some(id) => Ok(Seen { id, metadata, quorum }),
        None => Err(client.error("it is none of the brokers that its cluster knows yet")),
    }
}

/// Some partitions by name, and how many more there are; `None` of none.
pub(super) fn told<'p>(partitions: impl Iterator<Item = &'p Partition>) -> Option<String> {
    let all: Vec<&Partition> = partitions.collect();
    let some: Vec<String> = all.iter().take(3).map(|one| format!("{}-{}", one.topic, one.index)).collect();
    let more = all.len().saturating_sub(some.len());
    match (some.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(some.join(", ")),
        (false, more) => Some(format!("{} and {more} more", some.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::Credentials;
    use crate::recipe::{Api, ServiceKind};

    /// Broker and controller 1 of three, of which the third lags.
    fn seen() -> Seen {
        let (topic, replicas, isr) = ("a".to_owned(), vec![1, 2, 3], vec![1, 2]);
        let partitions = vec![Partition { topic, index: 0, replicas, isr }];
        let metadata = Metadata { cluster: None, brokers: vec![1, 2, 3], controller: 1, partitions };
        let voters = [(1, 9), (2, 9), (3, 1)].into();
        let quorum = Quorum { leader: 1, high_watermark: 9, voters };
        Seen { id: 1, metadata: Some(metadata), quorum: Some(quorum) }
    }

    /// What speaks against it with these turned off, by its name.
    fn said(ask: impl Fn(&Seen, &dyn Fn(&str) -> bool) -> Held, off: &[&str]) -> Option<String> {
        match ask(&seen(), &|name| off.contains(&name)) {
            Held::NotYet(why) | Held::Never(why) => why.split(':').next().map(str::to_owned),
            Held::Yes | Held::Moving { .. } => None,
        }
    }

    #[test]
    fn each_is_turned_off_by_its_name() {
        let wanted = BTreeMap::from([("a".to_owned(), 2)]);
        let stops = |seen: &Seen, off: &dyn Fn(&str) -> bool| spared(seen, &wanted, &Peers::default(), off);
        assert_eq!(said(stops, &[]).as_deref(), Some(MIN_ISR));
        assert_eq!(said(stops, &[MIN_ISR]).as_deref(), Some(QUORUM));
        assert_eq!(said(stops, &[QUORUM]).as_deref(), Some(MIN_ISR));
        assert_eq!(said(stops, &[MIN_ISR, QUORUM]), None);

        let settles = |seen: &Seen, off: &dyn Fn(&str) -> bool| whole(seen, off);
        assert_eq!(said(settles, &[]).as_deref(), Some(UNDER_REPLICATED));
        assert_eq!(said(settles, &[UNDER_REPLICATED]).as_deref(), Some(QUORUM));
        assert_eq!(said(settles, &[UNDER_REPLICATED, QUORUM]), None);

        let server = Instance {
            node: "n1".parse().unwrap(),
            role: "kafka".parse().unwrap(),
            kind: ServiceKind::Kafka,
            address: "10.0.0.1".to_owned(),
            api: Api::default(),
            credentials: Credentials::default(),
            product: None,
            reach: None,
        };
        let leaves = |seen: &Seen, off: &dyn Fn(&str) -> bool| parts(seen, &server, off);
        assert_eq!(said(leaves, &[]).as_deref(), Some(QUORUM));
        assert_eq!(said(leaves, &[QUORUM]).as_deref(), Some(REPLICAS));
        assert_eq!(said(leaves, &[QUORUM, REPLICAS]), None);
    }
}
