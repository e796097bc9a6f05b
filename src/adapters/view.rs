//! A service on a node, its peers, and the ways to ask them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::known::default_port;
use super::wire::Stream;
use crate::model::{NodeName, Role};
use crate::recipe::{Api, OrTemplate, ServiceKind};

/// A stream that is being opened; an error says why not in one line.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, String>> + 'a>>;

/// The way to a port of a node. Nothing of a service has to be exposed.
pub trait Reach: fmt::Debug {
    /// Opens a stream to `host:port` as the node sees it; an error says why not in one line.
    fn open<'a>(&'a self, host: &'a str, port: u16) -> Opening<'a>;
}

/// What a service wants to be told before it answers. It cannot be printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User and password.
    pub basic: Option<(String, String)>,
    /// An API key, as its header has it.
    pub api_key: Option<String>,
    /// The authority that signed the service's certificate, PEM; `None` is those that the system trusts.
    pub ca: Option<Vec<u8>>,
}

impl Credentials {
    /// The header that says who asks.
    pub(super) fn authorization(&self) -> Option<String> {
        if let Some((user, password)) = &self.basic {
            let text = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
            return Some(format!("Basic {text}"));
        }
        self.api_key.as_ref().map(|key| format!("ApiKey {key}"))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// A service on a node.
#[derive(Clone, Debug)]
pub struct Instance<'a> {
    /// The node.
    pub node: NodeName,
    /// The role.
    pub role: Role,
    /// Which kind it is.
    pub kind: ServiceKind,
    /// The node's address, as its peers know it.
    pub address: String,
    /// Where the service is asked.
    pub api: Api,
    /// What it wants to be told first.
    pub credentials: Credentials,
    /// The product's version that it shall have, where that is known: `6.7.0`.
    pub product: Option<String>,
    /// The way there; `None` if the node cannot be reached.
    pub reach: Option<&'a dyn Reach>,
}

impl Instance<'_> {
    /// The port where it is asked.
    pub fn port(&self) -> u16 {
        let port = self.api.port.as_ref().and_then(OrTemplate::value);
        port.copied().unwrap_or_else(|| default_port(self.kind))
    }
}

/// Where a service of a node may listen, as the node sees it: the address that others know, then the machine
/// itself.
pub fn hosts(address: &str) -> Vec<&str> {
    if address == "127.0.0.1" { vec![address] } else { vec![address, "127.0.0.1"] }
}

/// A node that is gone for good.
#[derive(Clone, Copy, Debug)]
pub struct Gone<'g> {
    /// Its name.
    pub node: &'g NodeName,
    /// Its address, as its peers knew it.
    pub address: &'g str,
}

/// What an adapter sees.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The service that is asked about.
    pub this: Instance<'a>,
    /// The others of its kind, of whatever role, in the order of cluster.toml.
    pub peers: Vec<Instance<'a>>,
    /// Predicates that cluster.toml turned off, by name.
    pub off: &'a [String],
    /// The product's version that the service shall have next, where a rollout is about to change it.
    pub target: Option<String>,
    /// How many nodes of the service's role may be away at a time.
    pub budget: usize,
    /// It is new in a cluster that runs: what its peers hand to it is theirs, and not waited for.
    pub joins: bool,
}

impl<'a> View<'a> {
    /// The service itself, then its peers: whoever of them answers speaks for the cluster.
    pub fn all(&self) -> impl Iterator<Item = &Instance<'a>> {
        std::iter::once(&self.this).chain(&self.peers)
    }

    /// Whether a predicate was turned off.
    pub fn is_off(&self, predicate: &str) -> bool {
        self.off.iter().any(|name| name == predicate)
    }
}
