//! Staging for a rollout: bundles are pushed to connected nodes, then made releases there.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};

use super::error::{node_error, push_error};
use super::fleet::Fleet;
use super::ports::Stager;
use super::target::Target;
use crate::agent::{Request, StageRequest, Staged};
use crate::inventory::Cluster;
use crate::model::{NodeName, Role};
use crate::push::{Observer, Phase, Pusher};
use crate::remote::{Secrets, context};
use crate::rollout::{Fault, Goal, NodeError, NodePlan, StagedRelease};

/// Pushes bundles of the store.
pub struct PushStager<'a> {
    /// What sends.
    pub pusher: Pusher,
    /// What cluster.toml says.
    pub cluster: &'a Cluster,
    /// Its secrets.
    pub secrets: &'a Secrets,
    /// The bundles, by role.
    pub targets: &'a BTreeMap<Role, Target>,
    /// Roles that no node has run yet.
    pub forming: &'a std::collections::BTreeSet<Role>,
    /// Nodes at a time.
    pub parallel: usize,
    /// For whom.
    pub rollout: String,
    /// By whom.
    pub who: String,
    /// Who hears of the progress.
    pub observer: &'a dyn Observer,
}

impl Stager for PushStager<'_> {
    async fn stage(&self, fleet: &Fleet, wanted: &[&NodePlan]) -> Vec<Result<StagedRelease, NodeError>> {
        // The roles of a node one after the other, the nodes at the same time.
        let mut of_node: BTreeMap<&NodeName, Vec<usize>> = BTreeMap::new();
        for (index, plan) in wanted.iter().enumerate() {
            of_node.entry(&plan.node).or_default().push(index);
        }
        let work = async |indices: Vec<usize>| {
            let mut done = Vec::new();
            for index in indices {
                done.push((index, self.one(fleet, wanted[index]).await));
            }
            done
        };
        let mut running =
            stream::iter(of_node.into_values()).map(work).buffer_unordered(self.parallel.max(1));
        let mut outcomes: BTreeMap<usize, Result<StagedRelease, NodeError>> = BTreeMap::new();
        while let Some(done) = running.next().await {
            outcomes.extend(done);
        }
        outcomes.into_values().collect()
    }
}

impl PushStager<'_> {
    async fn one(&self, fleet: &Fleet, plan: &NodePlan) -> Result<StagedRelease, NodeError> {
        let internal = |what: &str| NodeError::new(Fault::Here, "internal", what);
        let member = fleet.member(&plan.node)?;
        let target = self.targets.get(&plan.role).ok_or_else(|| internal("its bundle was not read"))?;
        let tagged = &target.bundle.tagged;
        if plan.goal != Goal::Bundle(tagged.digest) {
            return Err(internal("its bundle is another one than was planned"));
        }
        let sent = self.pusher.send(&member.remote, tagged.digest, self.observer).await;
        let sent = sent.map_err(|error| push_error(&error))?;
        self.observer.phase(&plan.node, Some(&plan.role), Phase::Staging);
        let names = target.secrets(self.secrets.names());
        let context = context(self.cluster, &member.node, self.forming.contains(&plan.role));
        // They were asked for when the plan was made, and are known.
        let request = target.request(context.clone());
        let secrets = self.secrets.needed(&member.node.root, &request, &names).map_err(|error| {
            let mut made = NodeError::new(Fault::Here, "secret", error.to_string());
            made.line.help = error.help();
            made
        })?;
        let request = StageRequest {
            role: plan.role.clone(),
            version: tagged.version.clone(),
            bundle: tagged.digest,
            context,
            secrets,
            rollout: Some(self.rollout.clone()),
            who: self.who.clone(),
        };
        let staged: Staged = member
            .remote
            .call(Request::Stage(Box::new(request)))
            .await
            .map_err(|error| node_error(&error))?;
        Ok(StagedRelease {
            release: staged.release,
            service: staged.kind.is_some(),
            ready: staged.ready,
            bytes_sent: sent.bytes,
        })
    }
}
