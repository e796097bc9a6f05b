//! Which kind is answered by which module.

use super::adapter::{Adapter, AdapterError};
use super::elasticsearch::Elasticsearch;
use super::kafka::Kafka;
use super::kibana::Kibana;
use super::plain::Plain;
use super::redis::Redis;
use super::view::{Gone, View};
use super::zookeeper::Zookeeper;
use crate::agent::Setting;
use crate::recipe::ServiceKind;
use crate::rollout::Held;

/// The port where a service of that kind is usually asked.
pub fn default_port(kind: ServiceKind) -> u16 {
    match kind {
        ServiceKind::Elasticsearch | ServiceKind::Opensearch => 9200,
        ServiceKind::Kafka => 9092,
        ServiceKind::Zookeeper => 2181,
        ServiceKind::Redis => 6379,
        ServiceKind::Nginx | ServiceKind::Process => 80,
        ServiceKind::Kibana => 5601,
    }
}

/// Whether services of that kind leave their cluster before they are stopped, so that plans have the steps.
pub fn drains(kind: ServiceKind) -> bool {
    match kind {
        ServiceKind::Elasticsearch
        | ServiceKind::Opensearch
        | ServiceKind::Kafka
        | ServiceKind::Redis
        | ServiceKind::Zookeeper => true,
        ServiceKind::Nginx | ServiceKind::Kibana | ServiceKind::Process => false,
    }
}

/// Whether services of that kind are asked about their cluster through peers of any role.
pub fn needs_peers(kind: ServiceKind) -> bool {
    kind.is_joint()
}

/// What answers for a kind.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// Elasticsearch and `OpenSearch`.
    Elasticsearch(Elasticsearch),
    /// Kibana.
    Kibana(Kibana),
    /// Nothing is known beyond its process and its recipe's [service.ready].
    Plain(Plain),
    /// Kafka.
    Kafka(Kafka),
    /// Redis.
    Redis(Redis),
    /// `ZooKeeper`.
    Zookeeper(Zookeeper),
}

/// What is known about a kind.
pub fn known(kind: ServiceKind) -> Known {
    match kind {
        ServiceKind::Elasticsearch | ServiceKind::Opensearch => Known::Elasticsearch(Elasticsearch),
        ServiceKind::Kibana => Known::Kibana(Kibana),
        ServiceKind::Kafka => Known::Kafka(Kafka),
        ServiceKind::Redis => Known::Redis(Redis),
        ServiceKind::Zookeeper => Known::Zookeeper(Zookeeper),
        ServiceKind::Nginx | ServiceKind::Process => Known::Plain(Plain),
    }
}

/// Hands a question on to the one who knows.
macro_rules! ask {
    ($known:expr, $question:ident($($argument:expr),*)) => {
        match $known {
            Known::Elasticsearch(one) => one.$question($($argument),*).await,
            Known::Kibana(one) => one.$question($($argument),*).await,
            Known::Plain(one) => one.$question($($argument),*).await,
            Known::Kafka(one) => one.$question($($argument),*).await,
            Known::Redis(one) => one.$question($($argument),*).await,
            Known::Zookeeper(one) => one.$question($($argument),*).await,
        }
    };
}

impl Adapter for Known {
    async fn rank(&self, view: &View<'_>) -> Result<u32, AdapterError> {
        ask!(self, rank(view))
    }

    async fn may_leave(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        ask!(self, may_leave(view))
    }

    async fn settings(&self, view: &View<'_>) -> Result<Vec<Setting>, AdapterError> {
        ask!(self, settings(view))
    }

    async fn drain(&self, view: &View<'_>, settings: &[Setting]) -> Result<Held, AdapterError> {
        ask!(self, drain(view, settings))
    }

    async fn undrain(&self, view: &View<'_>, settings: &[Setting]) -> Result<Held, AdapterError> {
        ask!(self, undrain(view, settings))
    }

    async fn ready(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        ask!(self, ready(view))
    }

    async fn settled(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        ask!(self, settled(view))
    }

    async fn may_part(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        ask!(self, may_part(view))
    }

    async fn parting(&self, view: &View<'_>) -> Result<Vec<Setting>, AdapterError> {
        ask!(self, parting(view))
    }

    async fn part(&self, view: &View<'_>, settings: &[Setting]) -> Result<Held, AdapterError> {
        ask!(self, part(view, settings))
    }

    async fn parted(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        ask!(self, parted(view))
    }

    async fn burying(&self, view: &View<'_>, gone: &Gone<'_>) -> Result<Vec<Setting>, AdapterError> {
        ask!(self, burying(view, gone))
    }

    async fn bury(
        &self,
        view: &View<'_>,
        gone: &Gone<'_>,
        settings: &[Setting],
    ) -> Result<Held, AdapterError> {
        ask!(self, bury(view, gone, settings))
    }
}

#[cfg(test)]
mod tests {
    use super::super::elasticsearch::{LEAVE_NAMES, PREDICATES};

    #[test]
    fn every_predicate_can_be_turned_off() {
        for name in PREDICATES.iter().chain(&LEAVE_NAMES) {
            assert!(crate::inventory::PREDICATES.contains(name), "{name}");
        }
    }
}
