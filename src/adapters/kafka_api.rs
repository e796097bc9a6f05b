//! The few things that Kafka is asked, each in one version that brokers from 1.1 (`KRaft`: 3.3) to 4 understand.

use std::collections::BTreeMap;

use super::adapter::AdapterError;
use super::kafka_wire::{Asked, In, Malformed, Out, Wire};
use super::view::Instance;

const METADATA: Asked = Asked { name: "Metadata", key: 3, version: 5, flexible: false };
const HANDSHAKE: Asked = Asked { name: "SaslHandshake", key: 17, version: 1, flexible: false };
const VERSIONS: Asked = Asked { name: "ApiVersions", key: 18, version: 0, flexible: false };
const CONFIGS: Asked = Asked { name: "DescribeConfigs", key: 32, version: 1, flexible: false };
const AUTHENTICATE: Asked = Asked { name: "SaslAuthenticate", key: 36, version: 0, flexible: false };
const QUORUM: Asked = Asked { name: "DescribeQuorum", key: 55, version: 0, flexible: true };

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const INVALID_REQUEST: i16 = 42;
/// Topics whose configs are asked for at a time.
const TOPICS_AT_ONCE: usize = 500;
const MIN_ISR: &str = "min.insync.replicas";

fn outcome(rest: &mut In<'_>) -> Result<i16, Malformed> {
    rest.short()
}

/// A broker or a controller that answers.
pub(super) struct Client<'i, 'a> {
    wire: Wire<'i, 'a>,
    knows: BTreeMap<i16, (i16, i16)>,
}

/// A cluster, as one of its brokers sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The cluster's id, where brokers know it.
    pub(super) cluster: Option<String>,
    /// Ids of brokers that take part.
    pub(super) brokers: Vec<i32>,
    /// With `ZooKeeper` the active controller; with `KRaft` any broker.
    pub(super) controller: i32,
    pub(super) partitions: Vec<Partition>,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) index: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) isr: Vec<i32>,
}

/// The controllers' quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quorum {
    /// The active controller; below 0 while there is none.
    pub(super) leader: i32,
    /// What a majority has.
    pub(super) high_watermark: i64,
    /// Each voter with how far it is.
    pub(super) voters: BTreeMap<i32, i64>,
}

impl Quorum {
    /// Voters that have everything that a majority has.
    pub(super) fn caught_up(&self) -> Vec<i32> {
        let up = |(_, end): &(&i32, &i64)| **end >= self.high_watermark && **end >= 0;
        self.voters.iter().filter(up).map(|(id, _)| *id).collect()
    }
}

impl<'i, 'a> Client<'i, 'a> {
    /// Connects, says who asks, and asks what the server knows.
    pub(super) async fn connect(server: &'i Instance<'a>) -> Result<Self, AdapterError> {
        let mut wire = Wire::open(server).await?;
        let answer = wire.ask(VERSIONS, &Out::default()).await?;
        let read = || -> Result<_, Malformed> {
            let mut rest = In(&answer);
            let code = rest.short()?;
            let keys = rest.array(|one| Ok((one.short()?, (one.short()?, one.short()?))))?;
            Ok((code, keys.into_iter().collect()))
        };
        let (_, knows) = read().map_err(|_| wire.error("ApiVersions: not Kafka's answer"))?;
        let mut client = Self { wire, knows };
        if let Some((user, password)) = server.credentials.basic.clone() {
            client.sign_in(&user, &password).await?;
        }
        Ok(client)
    }

    /// What went wrong, with where.
    pub(super) fn error(&self, what: &str) -> AdapterError {
        self.wire.error(what)
    }

    /// Whether it is a broker; if not, it is a controller alone.
    pub(super) fn is_broker(&self) -> bool {
        self.knows.contains_key(&METADATA.key)
    }

    /// Whether it has no `ZooKeeper`.
    pub(super) fn has_quorum(&self) -> bool {
        self.knows.contains_key(&QUORUM.key)
    }

    async fn ask<T>(
        &mut self,
        asked: Asked,
        body: &Out,
        read: impl Fn(&mut In<'_>) -> Result<T, Malformed>,
    ) -> Result<T, AdapterError> {
        let known = self.knows.get(&asked.key);
        if !known.is_some_and(|(least, most)| (*least..=*most).contains(&asked.version)) {
            let versions = known.map_or("none".to_owned(), |(least, most)| format!("{least} to {most}"));
            return Err(self.wire.error(&format!(
                "it speaks these versions of {}: {versions}; {} is asked for",
                asked.name, asked.version
            )));
        }
        let answer = self.wire.ask(asked, body).await?;
        read(&mut In(&answer)).map_err(|_| self.wire.error(&format!("{}: not Kafka's answer", asked.name)))
    }

    /// SASL PLAIN.
    async fn sign_in(&mut self, user: &str, password: &str) -> Result<(), AdapterError> {
        let mut body = Out::default();
        body.text("PLAIN");
        let code = self.ask(HANDSHAKE, &body, outcome).await?;
        if code != 0 {
            return Err(self
                .wire
                .error("it does not take SASL PLAIN, which user and password of [service.api] are for"));
        }
        let mut body = Out::default();
        body.bytes(format!("\0{user}\0{password}").as_bytes());
        let code = self.ask(AUTHENTICATE, &body, outcome).await?;
        if code != 0 {
            return Err(self.wire.error(&format!("it refuses the user `{user}` of [service.api]")));
        }
        Ok(())
    }

    fn check(&self, asked: Asked, code: i16) -> Result<(), AdapterError> {
        if code == 0 {
            return Ok(());
        }
        let error = self.wire.error(&format!("{} is answered with error {code}", asked.name));
        // TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED.
        if matches!(code, 29 | 31) {
            return Err(error.help(
                "whoever [service.api] names needs Describe and DescribeConfigs on the cluster and all topics",
            ));
        }
        Err(error)
    }

    /// Every broker and every partition.
    pub(super) async fn metadata(&mut self) -> Result<Metadata, AdapterError> {
        let mut body = Out::default();
        // All topics, and none made.
        body.int(-1).byte(0);
        let read = |rest: &mut In<'_>| {
            rest.int()?;
            let brokers = rest.array(|one| {
                let id = one.int()?;
                one.text()?;
                one.int()?;
                one.maybe_text()?;
                Ok(id)
            })?;
            let cluster = rest.maybe_text()?;
            let controller = rest.int()?;
            let topics = rest.array(|one| {
                one.short()?;
                let topic = one.text()?;
                one.byte()?;
                one.array(|part| {
                    part.short()?;
                    let index = part.int()?;
                    part.int()?;
                    let (replicas, isr) = (part.ints()?, part.ints()?);
                    part.ints()?;
                    Ok(Partition { topic: topic.clone(), index, replicas, isr })
                })
            })?;
            let partitions = topics.into_iter().flatten().collect();
            Ok(Metadata { cluster, brokers, controller, partitions })
        };
        self.ask(METADATA, &body, read).await
    }

    /// Of each resource: its name, the answer's code, and the values of the configs that were asked for.
    async fn configs(
        &mut self,
        kind: i8,
        names: &[String],
        key: &str,
    ) -> Result<Vec<(String, i16, Option<String>)>, AdapterError> {
        let mut body = Out::default();
        body.count(names.len());
        for name in names {
            body.byte(kind).text(name).count(1).text(key);
        }
        body.byte(0);
        let read = |rest: &mut In<'_>| {
            rest.int()?;
            rest.array(|one| {
                let code = one.short()?;
                one.maybe_text()?;
                one.byte()?;
                let name = one.text()?;
                let values = one.array(|config| {
                    config.text()?;
                    let value = config.maybe_text()?;
                    config.take(3)?;
                    config.array(|synonym| {
                        synonym.text()?;
                        synonym.maybe_text()?;
                        synonym.byte()
                    })?;
                    Ok(value)
                })?;
                Ok((name, code, values.into_iter().next().flatten()))
            })
        };
        self.ask(CONFIGS, &body, read).await
    }

    /// How many replicas each topic wants in sync.
    pub(super) async fn min_isr(
        &mut self,
        topics: &[String],
    ) -> Result<BTreeMap<String, usize>, AdapterError> {
        let mut found = BTreeMap::new();
        for some in topics.chunks(TOPICS_AT_ONCE) {
            for (name, code, value) in self.configs(TOPIC, some, MIN_ISR).await? {
                // UNKNOWN_TOPIC_OR_PARTITION: it was deleted a moment ago.
                if code == 3 {
                    continue;
                }
                self.check(CONFIGS, code)?;
                found.insert(name, value.and_then(|value| value.parse().ok()).unwrap_or(1));
            }
        }
        Ok(found)
    }

    /// Its own id, among these: only for that one it tells its configs.
    pub(super) async fn own_id(&mut self, among: &[i32]) -> Result<Option<i32>, AdapterError> {
        let names: Vec<String> = among.iter().map(ToString::to_string).collect();
        let mut own = None;
        for (name, code, _) in self.configs(BROKER, &names, "node.id").await? {
            match code {
                0 => own = name.parse().ok(),
                INVALID_REQUEST => {}
                code => self.check(CONFIGS, code)?,
            }
        }
        Ok(own)
    }

    /// The controllers.
    pub(super) async fn quorum(&mut self) -> Result<Quorum, AdapterError> {
        let mut body = Out::default();
        body.compact(1).compact_text("__cluster_metadata").compact(1).int(0);
        body.no_tags().no_tags().no_tags();
        let replicas = |rest: &mut In<'_>| {
            rest.compact_array(|one| {
                let replica = (one.int()?, one.long()?);
                one.skip_tags()?;
                Ok(replica)
            })
        };
        let read = |rest: &mut In<'_>| {
            let code = rest.short()?;
            let topics = rest.compact_array(|topic| {
                topic.compact_text()?;
                let partitions = topic.compact_array(|one| {
                    one.int()?;
                    let (code, leader) = (one.short()?, one.int()?);
                    one.int()?;
                    let high_watermark = one.long()?;
                    let voters = replicas(one)?.into_iter().collect();
                    replicas(one)?;
                    one.skip_tags()?;
                    Ok((code, Quorum { leader, high_watermark, voters }))
                })?;
                topic.skip_tags()?;
                Ok(partitions)
            })?;
            Ok((code, topics.into_iter().flatten().next()))
        };
        let (code, found) = self.ask(QUORUM, &body, read).await?;
        self.check(QUORUM, code)?;
        let (code, quorum) =
            found.ok_or_else(|| self.wire.error("DescribeQuorum: it says nothing of the quorum"))?;
        self.check(QUORUM, code)?;
        Ok(quorum)
    }
}
