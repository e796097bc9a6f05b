//! What a rollout needs from the world, as traits: nodes, a journal, a person. Others plug in.
//!
//! Time is tokio's, so that a paused clock makes rollouts of hours run in no time.

use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::plan::NodePlan;
use crate::agent::{Activated, Errand, ErrorLine, NodeStatus, ReleaseName, RolledBack, Setting, supervise};
use crate::fs::IoError;
use crate::model::{NodeName, Role, Span};
use crate::recipe::Ready;

/// Whose fault it is that something failed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Another rollout holds the node.
    Locked,
    /// The node cannot be reached, or does not answer: nobody knows what it did.
    Lost,
    /// The service: it did not start, or its gate did not hold.
    Service,
    /// The node refused, and is where it was.
    Refused,
    /// The controller's own.
    Here,
    /// Nobody's: a person asked to stop.
    Interrupted,
}

/// What went wrong on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeError {
    /// Whose fault it is.
    pub fault: Fault,
    /// What.
    #[serde(flatten)]
    pub line: ErrorLine,
}

impl NodeError {
    /// An error that is told in one line.
    pub fn new(fault: Fault, kind: &str, message: impl Into<String>) -> Self {
        let (causes, help) = (Vec::new(), Vec::new());
        Self {
            fault,
            line: ErrorLine { kind: kind.to_owned(), message: message.into(), causes, help, owner: None },
        }
    }

    /// With all its causes, in one line.
    pub fn full(&self) -> String {
        let causes = self.line.causes.iter().map(String::as_str);
        std::iter::once(self.line.message.as_str()).chain(causes).collect::<Vec<_>>().join(": ")
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line.message)
    }
}

impl std::error::Error for NodeError {}

impl From<IoError> for NodeError {
    fn from(error: IoError) -> Self {
        let mut made = Self::new(Fault::Here, "journal", error.to_string());
        made.line.causes.push(error.source.to_string());
        made.line.help = error.help();
        made
    }
}

/// A release that was made ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedRelease {
    /// Its name on the node.
    pub release: ReleaseName,
    /// What proves that its service is ready.
    pub ready: Option<Ready>,
    /// It has a service.
    pub service: bool,
    /// Bytes that were sent.
    pub bytes_sent: u64,
}

/// What an activation needs to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// What must be current.
    pub from: Option<ReleaseName>,
    /// What shall be.
    pub to: Option<ReleaseName>,
    /// How long the node waits for a confirmation.
    pub confirm_within: Option<Span>,
    /// Take a release that was marked bad.
    pub allow_bad: bool,
}

/// What going back needs to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    /// What must be current; `None` is anything.
    pub from: Option<ReleaseName>,
    /// Where to.
    pub to: ReleaseName,
    /// Why.
    pub why: String,
    /// Mark what is left as bad.
    pub bad: bool,
    /// Stop the service before, and start it after.
    pub restart: bool,
    /// Even where a newer version has opened the data.
    pub force: bool,
}

/// Whether a gate holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It does.
    Yes,
    /// Not yet, because of this.
    NotYet(String),
    /// Not yet, and it is on its way: what it waits for may be told anew without any progress.
    Moving {
        /// How much is left.
        left: u64,
        /// Of what, and what else is to be said about it.
        what: String,
        /// It is another one when there was progress.
        mark: String,
    },
    /// It never will.
    Never(String),
}

/// The nodes of a rollout. Each operation is whole or did not happen, and may be asked for again.
pub trait Nodes {
    /// Takes the node's lock and holds it until [`Self::unlock_all`], or until the connection is gone.
    fn lock(&self, node: &NodeName) -> impl Future<Output = Result<(), NodeError>>;

    /// Lets go of every lock.
    fn unlock_all(&self) -> impl Future<Output = ()>;

    /// Where the node is.
    fn status(&self, node: &NodeName) -> impl Future<Output = Result<NodeStatus, NodeError>>;

    /// Makes releases ready on many nodes at once; an answer for each, in order.
    fn stage(&self, wanted: &[&NodePlan]) -> impl Future<Output = Vec<Result<StagedRelease, NodeError>>>;

    /// Writes into the node's journal what is going to be done with a role.
    fn plan(
        &self,
        node: &NodeName,
        role: &Role,
        errand: &Errand,
    ) -> impl Future<Output = Result<(), NodeError>>;

    /// Writes into the node's journal that the rollout ended, and how.
    fn end(
        &self,
        node: &NodeName,
        role: &Role,
        rollout: &str,
        outcome: &str,
    ) -> impl Future<Output = Result<(), NodeError>>;

    /// Whether the service may be taken out of its cluster now; asked until it holds.
    fn may_leave(&self, node: &NodeName, role: &Role) -> impl Future<Output = Result<Held, NodeError>>;

    /// What draining will change in the service's cluster, each with what it is now.
    fn settings(&self, node: &NodeName, role: &Role)
    -> impl Future<Output = Result<Vec<Setting>, NodeError>>;

    /// Writes into the node's journal which settings are about to be changed; none: they are back.
    fn note_settings(
        &self,
        node: &NodeName,
        role: &Role,
        settings: &[Setting],
    ) -> impl Future<Output = Result<(), NodeError>>;

    /// Changes the settings and has the service hand its work to its peers; asked until it holds.
    fn drain(
        &self,
        node: &NodeName,
        role: &Role,
        settings: &[Setting],
    ) -> impl Future<Output = Result<Held, NodeError>>;

    /// Puts these settings back and lets the service's peers hand work back; asked until it holds. The
    /// service itself may be down.
    fn undrain(
        &self,
        node: &NodeName,
        role: &Role,
        settings: &[Setting],
    ) -> impl Future<Output = Result<Held, NodeError>>;

    /// Whether the service's cluster has settled with it, asked once.
    fn settled(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
    ) -> impl Future<Output = Result<Held, NodeError>>;

    /// Stops the service. Unless it was started within `start_within`, the node does so, or goes back.
    fn stop(
        &self,
        node: &NodeName,
        role: &Role,
        why: &str,
        start_within: Option<Span>,
    ) -> impl Future<Output = Result<supervise::Stopped, NodeError>>;

    /// Makes a release current.
    fn activate(
        &self,
        node: &NodeName,
        role: &Role,
        swap: &Swap,
    ) -> impl Future<Output = Result<Activated, NodeError>>;

    /// Starts the service of a release.
    fn start(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
    ) -> impl Future<Output = Result<(), NodeError>>;

    /// Has the service that runs read its conf again, from the release that is current now.
    fn reload(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
    ) -> impl Future<Output = Result<(), NodeError>>;

    /// Asks once whether the service of `release` is ready; without a probe, whether its process lives.
    fn probe(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
        ready: Option<&Ready>,
    ) -> impl Future<Output = Result<Held, NodeError>>;

    /// Tells the node that its release is good.
    fn confirm(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
    ) -> impl Future<Output = Result<(), NodeError>>;

    /// Goes back.
    fn go_back(
        &self,
        node: &NodeName,
        role: &Role,
        back: &Back,
    ) -> impl Future<Output = Result<RolledBack, NodeError>>;

    /// Marks a release as bad.
    fn mark_bad(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
        why: &str,
    ) -> impl Future<Output = Result<(), NodeError>>;
}

/// Where events go.
pub trait Recorder {
    /// Writes an event down, and shows it. With `durable` it is on the disk when this returns.
    fn record(&self, event: Event, durable: bool) -> Result<(), IoError>;
}

/// Whoever says whether it goes on after a canary.
pub trait Person {
    /// Whether it goes on.
    fn goes_on(&self) -> impl Future<Output = bool>;
}
