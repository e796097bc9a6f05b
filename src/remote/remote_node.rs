//! One node, connected: its agent, asked one thing after another or several at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, oneshot};

use super::agent_binary::{AgentBinary, Contents};
use super::error::RemoteError;
use super::lines::Lines;
use super::receive::Receiving;
use super::start::Place;
use super::target::target;
use crate::agent::{Call, Claim, Owner, Request};
use crate::inventory::{Node, Reach};
use crate::model::{Digest, NodeName, Span};
use crate::transport::{Connection, Connector, Stdin};

/// Processes that answer calls to a node at a time: a long one must not hold up the others, and sshd allows
/// ten sessions a connection by default.
const CALLS: usize = 4;

/// How often the node's lock hears that whoever holds it is there.
const BEAT: Duration = Duration::from_secs(5);

/// A connected node with an agent on it. Cheap to clone; all clones share the connection and the lock.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Shell>);

/// What outlives a connection.
#[derive(Debug)]
struct Shell {
    node: Node,
    agent: AgentBinary,
    connector: Connector,
    /// Bundles that were there when it was connected to first.
    bundles: Vec<Digest>,
    claim: Mutex<Claim>,
    link: Mutex<Arc<Link>>,
    held: tokio::sync::Mutex<Option<Held>>,
    /// Whether the lock is to be held: it may be lost with a connection.
    wanted: AtomicBool,
    /// 0 is none.
    token: AtomicU64,
}

/// A connection with the processes on it.
#[derive(Debug)]
struct Link {
    connection: Connection,
    /// What the agent's program is there, if it is not the one that runs here.
    contents: Option<Contents>,
    idle: Mutex<Vec<Lines>>,
    places: Semaphore,
}

/// The lock; its process lets go of it when this is dropped.
#[derive(Debug)]
struct Held {
    owner: Owner,
    lines: Lines,
    /// Its end ends the beat, and with that what the process on the node reads.
    beat: oneshot::Sender<()>,
}

impl Remote {
    /// Connects to a node and makes sure that the agent runs there: `agent`, or what the node itself names.
    pub async fn connect(
        connector: &Connector,
        node: &Node,
        agent: &AgentBinary,
    ) -> Result<Self, RemoteError> {
        let agent = match &node.agent {
            Some(path) => AgentBinary::at(path)?,
            None => agent.clone(),
        };
        let (link, bundles) = link(connector, node, &agent).await?;
        Ok(Self(Arc::new(Shell {
            node: node.clone(),
            bundles,
            claim: Mutex::default(),
            link: Mutex::new(Arc::new(link)),
            held: tokio::sync::Mutex::default(),
            wanted: AtomicBool::new(false),
            token: AtomicU64::new(0),
            agent,
            connector: connector.clone(),
        })))
    }

    /// Connects once more, and takes the lock again if it was held. Whoever took it meanwhile keeps it: what
    /// was begun under the old one is refused by the node then.
    pub async fn reconnect(&self) -> Result<(), RemoteError> {
        let mut held = self.0.held.lock().await;
        *held = None;
        self.0.token.store(0, Ordering::SeqCst);
        let (link, _) = link(&self.0.connector, &self.0.node, &self.0.agent).await?;
        *self.0.link.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(link);
        if self.0.wanted.load(Ordering::SeqCst) {
            let claim = self.claim();
            *held = Some(self.take_lock(&claim).await?);
        }
        Ok(())
    }

    /// Its name.
    pub fn node(&self) -> &NodeName {
        &self.0.node.name
    }

    /// Its connection, for ports and other commands.
    pub fn connection(&self) -> Connection {
        self.link().connection.clone()
    }

    /// The bundles that it knew when it was connected to.
    pub fn bundles(&self) -> &[Digest] {
        &self.0.bundles
    }

    /// The lock's token, where it is held.
    pub fn token(&self) -> Option<u64> {
        Some(self.0.token.load(Ordering::SeqCst)).filter(|token| *token > 0)
    }

    fn link(&self) -> Arc<Link> {
        Arc::clone(&self.0.link.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fails where the lock is to be held and is not: the node would take it for one operation alone.
    fn check_lock(&self) -> Result<(), RemoteError> {
        if self.token().is_none() && self.0.wanted.load(Ordering::SeqCst) {
            return Err(RemoteError::Unlocked { node: self.node().clone() });
        }
        Ok(())
    }

    /// Whether what holds the lock is an earlier connection of this very rollout, which has not fallen silent yet.
    pub fn is_own(&self, owner: Option<&Owner>) -> bool {
        let rollout = self.claim().rollout;
        rollout.is_some() && owner.is_some_and(|owner| owner.rollout == rollout)
    }

    fn claim(&self) -> Claim {
        self.0.claim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the agent for something and waits for the answer.
    ///
    /// Several calls at a time go to processes of their own. A call that is given up (its future dropped) may
    /// still be done by the node.
    pub async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, RemoteError> {
        self.check_lock()?;
        let link = self.link();
        // The semaphore is never closed.
        let _place = link.places.acquire().await.ok();
        let idle = link.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut lines = match idle {
            Some(lines) => lines,
            None => self.start(&link, "call").await?,
        };
        let patience = patience(&request);
        let call = Call { token: self.token(), claim: self.claim(), request };
        let mut bytes = serde_json::to_vec(&call).map_err(|error| self.protocol(&error))?;
        bytes.push(b'\n');
        if lines.send(bytes.into()).await.is_err() {
            return Err(lines.failure().await);
        }
        let answer = in_time(self.node(), patience, lines.answer()).await;
        // After an answer, good or bad, the process waits for the next request.
        let stays = match &answer {
            Ok(_) | Err(RemoteError::Agent { .. } | RemoteError::Locked { .. }) => lines.is_quiet(),
            Err(_) => false,
        };
        if stays {
            link.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lines);
        }
        answer
    }

    /// Takes the node's lock and keeps it until [`Self::unlock`], or until the last clone is dropped.
    ///
    /// Every later call brings its token. Where it is held already by this, that is all.
    pub async fn lock(&self, claim: &Claim) -> Result<Owner, RemoteError> {
        let mut held = self.0.held.lock().await;
        if let Some(held) = &*held {
            return Ok(held.owner.clone());
        }
        let taken = self.take_lock(claim).await?;
        let owner = taken.owner.clone();
        *held = Some(taken);
        self.0.wanted.store(true, Ordering::SeqCst);
        Ok(owner)
    }

    async fn take_lock(&self, claim: &Claim) -> Result<Held, RemoteError> {
        let mut operation = "lock --beat".to_owned();
        let named =
            [("rollout", claim.rollout.as_deref()), ("who", Some(&*claim.who)), ("host", Some(&*claim.host))];
        for (name, value) in named {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                operation.extend([" --", name, "=", &Connection::quote(value)]);
            }
        }
        let mut lines = self.start(&self.link(), &operation).await?;
        let owner: Owner = in_time(self.node(), Some(LOOK), lines.answer()).await?;
        self.claim_as(claim);
        self.0.token.store(owner.token, Ordering::SeqCst);
        let (beat, ended) = oneshot::channel();
        if let Some(stdin) = lines.take_stdin() {
            tokio::spawn(keep_beating(stdin, ended));
        }
        Ok(Held { owner, lines, beat })
    }

    /// Lets go of the lock and waits until the node has.
    pub async fn unlock(&self) {
        let held = self.0.held.lock().await.take();
        self.0.wanted.store(false, Ordering::SeqCst);
        self.0.token.store(0, Ordering::SeqCst);
        if let Some(Held { mut lines, beat, .. }) = held {
            drop(beat);
            // Where the connection is gone, so is the lock.
            let _ended = lines.ended().await;
        }
    }

    /// Who asks, in calls without the lock: the node takes it for each of them under that name.
    pub fn claim_as(&self, claim: &Claim) {
        *self.0.claim.lock().unwrap_or_else(PoisonError::into_inner) = claim.clone();
    }

    /// Starts to push: `node receive`, which wants a header with [`Self::token`] in it.
    pub async fn receive(&self) -> Result<Receiving, RemoteError> {
        self.check_lock()?;
        Ok(Receiving::new(self.node(), self.start(&self.link(), "receive").await?))
    }

    async fn start(&self, link: &Link, operation: &str) -> Result<Lines, RemoteError> {
        let Shell { node, agent, .. } = &*self.0;
        let Link { connection, contents, .. } = link;
        let place = Place { node: &node.name, connection, root: &node.root, agent, contents: *contents };
        Ok(Lines::new(&node.name, connection.exec(&place.command(operation)).await?))
    }

    fn protocol(&self, error: &serde_json::Error) -> RemoteError {
        RemoteError::Protocol { node: self.node().clone(), what: error.to_string() }
    }
}

/// Connects, and starts the agent; the bundles that it knows.
async fn link(
    connector: &Connector,
    node: &Node,
    agent: &AgentBinary,
) -> Result<(Link, Vec<Digest>), RemoteError> {
    let target = target(node);
    let connect = async { Ok(connector.connect(&target).await?) };
    let (connection, contents) = match node.reach {
        Reach::Local => (connect.await?, None),
        // Connecting is mostly waiting: the program is read meanwhile.
        Reach::Ssh(_) => {
            let (connection, contents) = tokio::try_join!(connect, agent.contents())?;
            (connection, Some(contents))
        }
    };
    let place = Place { node: &node.name, connection: &connection, root: &node.root, agent, contents };
    let (lines, have) = in_time(&node.name, Some(START), place.start()).await?;
    let link = Link { idle: Mutex::new(vec![lines]), places: Semaphore::new(CALLS), connection, contents };
    Ok((link, have.bundles))
}

/// Lets the lock's process know that its holder is there: a cut network tells it nothing for a long time.
async fn keep_beating(mut stdin: Stdin, mut ended: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            _ = &mut ended => break,
            () = tokio::time::sleep(BEAT) => {
                if stdin.send(Bytes::from_static(b"\n")).await.is_err() {
                    return;
                }
            }
        }
    }
    // It may have ended by itself.
    let _gone = stdin.shutdown().await;
}

/// How long a node may take to check the agent's program, and to be sent it where it lacks it.
const START: Duration = Duration::from_mins(10);

/// How long a node may take to say something that it has at hand.
const LOOK: Duration = Duration::from_secs(20);

/// How long it may take for what has to wait for whoever is at the role.
const CHANGE: Duration = Duration::from_mins(3);

/// How long an answer is waited for; `None` where that is for the caller to say, since it depends on what there is.
fn patience(request: &Request) -> Option<Duration> {
    match request {
        Request::Status { .. } => Some(LOOK),
        Request::Settings { .. }
        | Request::Plan { .. }
        | Request::End { .. }
        | Request::Have { .. }
        | Request::Preview(_)
        | Request::Confirm { .. }
        | Request::MarkBad { .. }
        | Request::Pin { .. }
        | Request::ServiceStatus { .. }
        | Request::Journal { .. } => Some(CHANGE),
        Request::Stage(_)
        | Request::Activate { .. }
        | Request::Rollback { .. }
        | Request::Drift { .. }
        | Request::Heal { .. }
        | Request::Gc(_)
        | Request::ServiceStart { .. }
        | Request::ServiceStop { .. }
        | Request::ServiceReload { .. }
        | Request::Preflight { .. }
        | Request::Probe { .. } => None,
    }
}

/// What comes of `work`, if it comes in time.
pub(super) async fn in_time<T>(
    node: &NodeName,
    patience: Option<Duration>,
    work: impl Future<Output = Result<T, RemoteError>>,
) -> Result<T, RemoteError> {
    let Some(patience) = patience else { return work.await };
    let silent = |_| RemoteError::Silent { node: node.clone(), within: Span(patience) };
    tokio::time::timeout(patience, work).await.map_err(silent)?
}
