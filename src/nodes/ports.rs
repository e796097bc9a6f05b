//! A rollout's [`Nodes`] over connections and pushes.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::de::DeserializeOwned;

use super::error::node_error;
use super::fleet::Fleet;
use super::gate;
use super::services::Services;
use crate::agent::supervise::{Reloaded, Stopped};
use crate::agent::{
    Activated, Claim, Confirmed, Errand, Journalled, NodeStatus, Noted, ReleaseName, Request, RolledBack,
    ServiceStarted, Setting,
};
use crate::model::{NodeName, Role, Span};
use crate::recipe::Ready;
use crate::rollout::{At, Back, Fault, Held, NodeError, NodePlan, Nodes, StagedRelease, Swap};

/// Brings bundles to nodes and makes releases of them.
pub trait Stager {
    /// An answer for each, in order.
    fn stage(
        &self,
        fleet: &Fleet,
        wanted: &[&NodePlan],
    ) -> impl Future<Output = Vec<Result<StagedRelease, NodeError>>>;
}

/// The nodes of a rollout that really runs.
#[derive(Debug)]
pub struct Live<'a, S> {
    /// The connections.
    pub fleet: &'a Fleet,
    /// For whom nodes are locked.
    pub claim: Claim,
    /// How releases are made ready.
    pub stager: S,
    /// What is known about services.
    pub services: &'a Services<'a>,
}

fn at(node: &NodeName, role: &Role) -> At {
    At { node: node.clone(), role: role.clone() }
}

impl<S> Live<'_, S> {
    async fn call<T: DeserializeOwned>(&self, node: &NodeName, request: Request) -> Result<T, NodeError> {
        self.fleet.member(node)?.call(request).await.map_err(|error| node_error(&error))
    }
}

impl<S: Stager> Nodes for Live<'_, S> {
    async fn lock(&self, node: &NodeName) -> Result<(), NodeError> {
        let lock = self.fleet.member(node)?.remote.lock(&self.claim).await;
        lock.map(drop).map_err(|error| node_error(&error))
    }

    async fn unlock_all(&self) {
        let mut unlocking: FuturesUnordered<_> =
            self.fleet.members().map(|member| member.remote.unlock()).collect();
        while unlocking.next().await.is_some() {}
    }

    async fn status(&self, node: &NodeName) -> Result<NodeStatus, NodeError> {
        self.call(node, Request::Status { role: None }).await
    }

    async fn stage(&self, wanted: &[&NodePlan]) -> Vec<Result<StagedRelease, NodeError>> {
        self.stager.stage(self.fleet, wanted).await
    }

    async fn plan(&self, node: &NodeName, role: &Role, errand: &Errand) -> Result<(), NodeError> {
        let request = Request::Plan { role: role.clone(), errand: errand.clone() };
        self.call::<Journalled>(node, request).await.map(drop)
    }

    async fn end(&self, node: &NodeName, role: &Role, rollout: &str, outcome: &str) -> Result<(), NodeError> {
        let (rollout, outcome) = (rollout.to_owned(), outcome.to_owned());
        let request = Request::End { role: role.clone(), rollout, outcome };
        self.call::<Journalled>(node, request).await.map(drop)
    }

    async fn may_leave(&self, node: &NodeName, role: &Role) -> Result<Held, NodeError> {
        self.services.may_leave(&at(node, role)).await
    }

    async fn settings(&self, node: &NodeName, role: &Role) -> Result<Vec<Setting>, NodeError> {
        self.services.settings(&at(node, role)).await
    }

    async fn note_settings(
        &self,
        node: &NodeName,
        role: &Role,
        settings: &[Setting],
    ) -> Result<(), NodeError> {
        let request = Request::Settings { role: role.clone(), settings: settings.to_vec() };
        self.call::<Journalled>(node, request).await.map(drop)
    }

    async fn drain(&self, node: &NodeName, role: &Role, settings: &[Setting]) -> Result<Held, NodeError> {
        self.services.drain(&at(node, role), settings).await
    }

    async fn undrain(&self, node: &NodeName, role: &Role, settings: &[Setting]) -> Result<Held, NodeError> {
        self.services.undrain(&at(node, role), settings).await
    }

    async fn settled(&self, node: &NodeName, role: &Role, _: &ReleaseName) -> Result<Held, NodeError> {
        self.services.settled(&at(node, role)).await
    }

    async fn stop(
        &self,
        node: &NodeName,
        role: &Role,
        why: &str,
        start_within: Option<Span>,
    ) -> Result<Stopped, NodeError> {
        let (role, why) = (role.clone(), why.to_owned());
        self.call(node, Request::ServiceStop { role, why, start_within }).await
    }

    async fn activate(&self, node: &NodeName, role: &Role, swap: &Swap) -> Result<Activated, NodeError> {
        let request = Request::Activate {
            role: role.clone(),
            from: swap.from.clone(),
            to: swap.to.clone(),
            rollout: self.claim.rollout.clone(),
            confirm_within: swap.confirm_within,
            allow_bad: swap.allow_bad,
        };
        self.call(node, request).await
    }

    async fn start(&self, node: &NodeName, role: &Role, release: &ReleaseName) -> Result<(), NodeError> {
        let request = Request::ServiceStart { role: role.clone(), release: Some(release.clone()) };
        match self.call::<ServiceStarted>(node, request).await {
            // A release may have lost its service; then there is nothing to start.
            Err(error) if error.line.kind == "no-service" => Ok(()),
            started => started.map(drop),
        }
    }

    async fn reload(&self, node: &NodeName, role: &Role, release: &ReleaseName) -> Result<(), NodeError> {
        let request = Request::ServiceReload { role: role.clone(), release: Some(release.clone()) };
        self.call::<Reloaded>(node, request).await.map(drop)
    }

    async fn probe(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
        ready: Option<&Ready>,
    ) -> Result<Held, NodeError> {
        gate::probe(self.fleet.member(node)?, self.services, role, release, ready).await
    }

    async fn confirm(&self, node: &NodeName, role: &Role, release: &ReleaseName) -> Result<(), NodeError> {
        let request = Request::Confirm { role: role.clone(), release: release.clone() };
        self.call::<Confirmed>(node, request).await.map(drop)
    }

    async fn go_back(&self, node: &NodeName, role: &Role, back: &Back) -> Result<RolledBack, NodeError> {
        let request = Request::Rollback {
            role: role.clone(),
            from: back.from.clone(),
            to: Some(back.to.clone()),
            why: back.why.clone(),
            bad: back.bad,
            restart: back.restart,
            force: back.force,
        };
        self.call(node, request).await
    }

    async fn mark_bad(
        &self,
        node: &NodeName,
        role: &Role,
        release: &ReleaseName,
        why: &str,
    ) -> Result<(), NodeError> {
        let request = Request::MarkBad { role: role.clone(), release: release.clone(), why: why.to_owned() };
        self.call::<Noted>(node, request).await.map(drop)
    }
}

/// Where nothing is staged: rollbacks and restarts.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStager;

impl Stager for NoStager {
    async fn stage(&self, _: &Fleet, wanted: &[&NodePlan]) -> Vec<Result<StagedRelease, NodeError>> {
        let error = || NodeError::new(Fault::Here, "internal", "this rollout stages nothing");
        wanted.iter().map(|_| Err(error())).collect()
    }
}
