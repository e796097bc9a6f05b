//! `[service]`: how a role runs. Part of a bundle's `.windlass/bundle.json`, read on nodes later.
//!
//! # Invariants
//!
//! * Strings are kept as templates; they are rendered when a node stages the release. Their syntax
//!   and the names they use were checked when the bundle was built.
//! * The JSON is a format: fields may be added with a default, none renamed or removed. Maps are
//!   sorted, so that the same recipe always gives the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::Span;

/// How a role runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Which adapter drains, gates and orders it.
    pub kind: ServiceKind,
    /// User; `None` is whoever the agent runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group; `None` is the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Linux capabilities, as `CAP_NET_BIND_SERVICE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Program, relative to the release, and its arguments; never empty.
    pub start: Vec<String>,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How it is stopped.
    pub stop: Stop,
    /// How a process that runs is told to read its conf again; without it, it is stopped and started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload>,
    /// A command that must exit with 0 before anything is touched: the program, relative to the release, and its
    /// arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Resource limits by their rlimit name in lower case: `nofile`, `memlock`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, OrTemplate<Limit>>,
    /// What proves that it is ready; adapters bring their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// Where its adapter asks it; adapters know their service's usual place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<Api>,
}

/// Where and how an adapter asks a service. It names secrets and never holds one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// Port on the node; `None` is the kind's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<OrTemplate<u16>>,
    /// It speaks TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// The authority that signed its certificate: a PEM file, relative to the project's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The name in its certificate; `None` is the node's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// As whom it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The secret that holds that user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The secret that holds an API key, instead of user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
}

/// Which adapter knows the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// Elasticsearch.
    Elasticsearch,
    /// OpenSearch.
    Opensearch,
    /// Kafka.
    Kafka,
    /// ZooKeeper.
    Zookeeper,
    /// Redis.
    Redis,
    /// nginx.
    Nginx,
    /// Kibana.
    Kibana,
    /// Anything else.
    Process,
}

impl ServiceKind {
    /// Every kind by its name in a recipe.
    pub const ALL: [(&'static str, Self); 8] = [
        ("elasticsearch", Self::Elasticsearch),
        ("opensearch", Self::Opensearch),
        ("kafka", Self::Kafka),
        ("zookeeper", Self::Zookeeper),
        ("redis", Self::Redis),
        ("nginx", Self::Nginx),
        ("kibana", Self::Kibana),
        ("process", Self::Process),
    ];

    /// Whether data that a newer version of it has opened cannot be read by an older one.
    pub fn binds_data(self) -> bool {
        matches!(self, Self::Elasticsearch | Self::Opensearch)
    }

    /// Whether services of it are one cluster, whatever roles they have: who is new joins those that there are.
    pub fn is_joint(self) -> bool {
        matches!(self, Self::Elasticsearch | Self::Opensearch)
    }

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("process", |(name, _)| name)
    }
}

/// A value, or the template that gives it on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OrTemplate<T> {
    /// Known when the bundle is built.
    Value(T),
    /// Known when a node stages the release.
    Template(String),
}

impl<T> OrTemplate<T> {
    /// The value; `None` while it is a template.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Template(_) => None,
        }
    }
}

/// How a service is stopped: the signal, then KILL after the timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Signal without `SIG`, or a template: `TERM`.
    pub signal: String,
    /// How long it may take.
    pub timeout: OrTemplate<Span>,
}

/// How a service is told to read its conf again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reload {
    /// A signal without `SIG`, or a template, to its main process: `HUP`.
    Signal(String),
    /// A command that must exit with 0; the program is relative to the release.
    Command(Vec<String>),
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit; `"unlimited"`.
    Unlimited,
    /// In the limit's own unit, as `setrlimit` has it.
    Number(u64),
}

/// What proves that a service is ready, and how long that may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The probe.
    #[serde(flatten)]
    pub probe: Probe,
    /// How long the service may take.
    pub within: OrTemplate<Span>,
}

/// A probe, run on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// An HTTP request that must be answered with a status.
    Http {
        /// Port on the node.
        port: OrTemplate<u16>,
        /// Path of the request.
        path: String,
        /// The status that means ready.
        status: OrTemplate<u16>,
        /// Text that must be in the answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
    /// A port that must accept a connection.
    Tcp(OrTemplate<u16>),
    /// A command that must exit with 0; the program is relative to the release.
    Command(Vec<String>),
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unlimited => serializer.serialize_str("unlimited"),
            Self::Number(number) => serializer.serialize_u64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self::Number(number)),
            Written::Text(text) if text == "unlimited" => Ok(Self::Unlimited),
            Written::Text(text) => Err(de::Error::custom(format!("`{text}` is not a limit"))),
        }
    }
}
