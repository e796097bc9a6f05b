//! What every kind of service answers.

use std::future::Future;

use super::view::{Gone, View};
use crate::agent::Setting;
use crate::rollout::Held;

/// Why a service's cluster could not be asked, or did not do as it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdapterError {
    /// What happened, with the node and the address. Never with a credential.
    pub message: String,
    /// What to do about it, a line each.
    pub help: Vec<String>,
}

impl AdapterError {
    /// An error without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: Vec::new() }
    }

    /// The same, with a line of advice.
    #[must_use]
    pub fn help(mut self, line: impl Into<String>) -> Self {
        self.help.push(line.into());
        self
    }
}

/// What is known about one kind of service; what a kind says nothing of, holds. An error is "could not be asked":
/// the caller asks again.
pub trait Adapter {
    /// The node's place among those of its role: all of a lower rank go first. A leader has the highest.
    fn rank(&self, _: &View<'_>) -> impl Future<Output = Result<u32, AdapterError>> {
        async { Ok(0) }
    }

    /// Whether the service may be taken out of its cluster now.
    fn may_leave(&self, _: &View<'_>) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }

    /// What [`Self::drain`] will change in the cluster, each with what it is now.
    fn settings(&self, _: &View<'_>) -> impl Future<Output = Result<Vec<Setting>, AdapterError>> {
        async { Ok(Vec::new()) }
    }

    /// Changes the settings, and has the service hand its work to its peers. Asked until it holds; each time may
    /// be the first. Looks once more whether the service may leave before it says that it holds.
    fn drain(&self, _: &View<'_>, _: &[Setting]) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }

    /// Puts the settings back and lets peers hand work back. Asked until it holds; the service itself may be down,
    /// and then its peers are asked.
    fn undrain(&self, _: &View<'_>, _: &[Setting]) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }

    /// Whether the service itself is up, at the version that it shall have. Its process is known to live.
    fn ready(&self, _: &View<'_>) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }

    /// Whether its cluster has settled with it.
    fn settled(&self, _: &View<'_>) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }

    /// Whether its cluster can do without the service for good. [`Held::Never`] says why not, and what to do.
    fn may_part(&self, _: &View<'_>) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }

    /// What [`Self::part`] will change in the cluster, each with what it is now; [`Self::undrain`] puts it back.
    fn parting(&self, _: &View<'_>) -> impl Future<Output = Result<Vec<Setting>, AdapterError>> {
        async { Ok(Vec::new()) }
    }

    /// Changes the settings, and has everything that only the service has taken over by its peers. Asked until it
    /// holds; each time may be the first.
    fn part(&self, _: &View<'_>, _: &[Setting]) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }

    /// Whether its cluster is as well as before without the service, which was stopped.
    fn parted(&self, _: &View<'_>) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }

    /// What [`Self::bury`] will change in the cluster, each with what it is now; [`Self::undrain`] puts it back, or
    /// leaves what is right for those who stayed.
    fn burying(
        &self,
        _: &View<'_>,
        _: &Gone<'_>,
    ) -> impl Future<Output = Result<Vec<Setting>, AdapterError>> {
        async { Ok(Vec::new()) }
    }

    /// Changes the settings, and has the service's cluster forget a peer that is gone for good already. Asked until
    /// it holds; [`Held::Never`] says what that peer has that nobody else has.
    fn bury(
        &self,
        _: &View<'_>,
        _: &Gone<'_>,
        _: &[Setting],
    ) -> impl Future<Output = Result<Held, AdapterError>> {
        async { Ok(Held::Yes) }
    }
}
