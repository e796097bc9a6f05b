//! From a target to a connection: files, names, jump hosts, the handshake, being let in.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use super::auth;
use super::client;
use super::connection::Connection;
use super::error::{Reason, TransportError};
use super::identity::Keyring;
use super::names;
use super::process::Place;
use super::prompt_acks::prompt_acks;
use super::route::{Hop, Routes};
use super::target::{SshOptions, SshTarget, Target, Via};

/// Connects to nodes. Passphrases and jump hosts are shared by all it connects to.
#[derive(Clone)]
pub struct Connector(Arc<State>);

struct State {
    options: SshOptions,
    routes: OnceCell<Routes>,
    keyring: Keyring,
    jumps: Mutex<HashMap<String, Arc<Mutex<Option<Connection>>>>>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("options", &self.0.options).finish_non_exhaustive()
    }
}

type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Connection, TransportError>> + Send + 'a>>;

impl Connector {
    /// A connector that has connected to nothing; files are read when they are needed.
    pub fn new(options: SshOptions) -> Self {
        Self(Arc::new(State {
            routes: OnceCell::new(),
            keyring: Keyring::new(options.ask.clone()),
            jumps: Mutex::default(),
            options,
        }))
    }

    /// Connects to a node and logs in.
    pub async fn connect(&self, target: &Target) -> Result<Connection, TransportError> {
        match &target.via {
            Via::Local => Ok(Connection::local(&target.node)),
            Via::Ssh(ssh) => self.0.reach(&target.node, ssh, None, Vec::new()).await,
        }
    }
}

impl State {
    async fn routes(&self) -> Result<&Routes, Reason> {
        self.routes.get_or_try_init(async || Routes::new(self.options.clone())).await
    }

    /// Connects to `target`, through `jump` where given, else through what its configuration says.
    ///
    /// `chain` has the hosts that are being connected to and need this one.
    fn reach<'a>(
        &'a self,
        node: &'a str,
        target: &'a SshTarget,
        jump: Option<Vec<String>>,
        chain: Vec<String>,
    ) -> Connecting<'a> {
        Box::pin(async move {
            let fail = |reason| TransportError::new(node, &target.host, reason);
            let routes = self.routes().await.map_err(fail)?;
            let mut hop = routes.hop(target).map_err(fail)?;
            if let Some(jump) = jump {
                hop.jump = jump;
            }
            // `ProxyJump bastion` below `Host *` is said of the bastion too, and means the others.
            hop.jump.retain(|spec| routes.jump(spec, target).map_or(true, |to| to.host != target.host));
            let place = Arc::new(Place { node: node.to_owned(), address: hop.address() });
            let (handle, ended, via) = if hop.jump.is_empty() {
                let stream = self.dial(&hop).await.map_err(|reason| place.error(reason))?;
                let agreed = client::handshake(prompt_acks(stream), &hop).await;
                let (handle, ended) = agreed.map_err(|reason| place.error(reason))?;
                (handle, ended, None)
            } else {
                let via = self.jump(node, routes, target, &hop, chain).await;
                let via = via.map_err(|source| place.error(Reason::Jump { source }))?;
                let tunnel = timeout(hop.connect_timeout, via.forward(&hop.host, hop.port)).await;
                let tunnel = tunnel
                    .map_err(|_| Reason::Timeout { doing: "connecting", after: hop.connect_timeout })
                    .and_then(|opened| opened.map_err(|source| Reason::Jump { source }))
                    .map_err(|reason| place.error(reason))?;
                let agreed = client::handshake(tunnel, &hop).await;
                let (handle, ended) = agreed.map_err(|reason| place.error(reason))?;
                (handle, ended, Some(via))
            };
            let mut handle = handle;
            auth::authenticate(&mut handle, &hop, &self.keyring)
                .await
                .map_err(|reason| place.error(reason))?;
            Ok(Connection::ssh(place, handle, ended, via))
        })
    }

    /// The connection to the last jump host of `hop`; one for all that go through it.
    async fn jump(
        &self,
        node: &str,
        routes: &Routes,
        target: &SshTarget,
        hop: &Hop,
        mut chain: Vec<String>,
    ) -> Result<Connection, TransportError> {
        let Some((last, before)) = hop.jump.split_last() else {
            return Err(TransportError::new(node, &hop.host, Reason::Route("no jump host".to_owned())));
        };
        let through = routes.jump(last, target).map_err(|reason| TransportError::new(node, last, reason))?;
        chain.push(target.host.clone());
        if chain.contains(&through.host) {
            let what = format!("the jump hosts lead in a circle: {} and back", chain.join(", "));
            return Err(TransportError::new(node, last, Reason::Route(what)));
        }
        let key = format!("{:?} {through:?}", hop.jump);
        let slot = self.jumps.lock().await.entry(key).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(open) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(open.clone());
        }
        // A jump host of its own configuration counts only for the first one, as in OpenSSH.
        let before = if before.is_empty() { None } else { Some(before.to_vec()) };
        let name = format!("jump host of {node}");
        let opened = self.reach(&name, &through, before, chain).await?;
        Ok(slot.insert(opened).clone())
    }

    /// A TCP connection to the first address that answers.
    async fn dial(&self, hop: &Hop) -> Result<TcpStream, Reason> {
        let after = hop.connect_timeout;
        timeout(after, async {
            let addresses = names::lookup(&hop.host, hop.port)
                .await
                .map_err(|source| Reason::Resolve { host: hop.host.clone(), source })?;
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        // Small requests and answers go back and forth; a failure costs only time.
                        let _slower = stream.set_nodelay(true);
                        return Ok(stream);
                    }
                    Err(error) => last = error,
                }
            }
            Err(Reason::Connect { source: last })
        })
        .await
        .unwrap_or(Err(Reason::Timeout { doing: "connecting", after }))
    }
}
