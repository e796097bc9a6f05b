//! The nodes of a cluster for one command: connected, and where they are.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{Loaded, claim};
use super::operate::{Prepared, Wanted};
use crate::adapters;
use crate::inventory::Node;
use crate::model::{NodeName, Role};
use crate::nodes::{Fleet, Problem, Seen, Services, Surveyor, Target, product_of, statuses};
use crate::rollout::{At, Goal, Kind};

/// The nodes, connected, and where they are.
pub(super) struct Session {
    pub(super) loaded: Loaded,
    pub(super) fleet: Fleet,
    pub(super) seen: Seen,
}

impl Session {
    /// Those of the nodes that do not answer.
    pub(super) fn silent(&self, wanted: &Wanted) -> Vec<Problem> {
        let silent = |(node, _): &(NodeName, Vec<Role>)| {
            let error = self.seen.get(node)?.as_ref().err()?.clone();
            Some(Problem { node: node.clone(), role: None, error })
        };
        wanted.iter().filter_map(silent).collect()
    }

    /// Connects to every node that has one of the roles in `wanted`; where a service of these is asked about its
    /// cluster through others, to all nodes. One of those that cannot be reached is nobody's problem.
    pub(super) async fn open(loaded: Loaded, wanted: &Wanted) -> Self {
        let roles: BTreeSet<&Role> = wanted.iter().flat_map(|(_, roles)| roles).collect();
        let needed = |node: &&Node| {
            node.roles.iter().any(|role| roles.contains(role))
                || wanted.iter().any(|(name, _)| *name == node.name)
        };
        let (nodes, others): (Vec<&Node>, Vec<&Node>) = loaded.cluster.nodes.iter().partition(needed);
        let mut fleet = Fleet::connect(&loaded.connector, &loaded.agent, nodes, &claim(None)).await;
        let mut seen = statuses(&fleet).await;
        if !others.is_empty() && roles.iter().any(|role| may_need_peers(role, &seen)) {
            let more = Fleet::connect(&loaded.connector, &loaded.agent, others, &claim(None)).await;
            seen.extend(statuses(&more).await);
            fleet.join(more);
        }
        Self { loaded, fleet, seen }
    }

    /// What the nodes say about their services.
    pub(super) fn services(&self) -> Services<'_> {
        let Loaded { cluster, secrets, folder, .. } = &self.loaded;
        Services::new(cluster, &self.fleet, secrets, folder, &self.seen)
    }

    /// The same, with the versions that a plan brings to them.
    pub(super) fn services_for(&self, prepared: &Prepared) -> Services<'_> {
        let services = self.services();
        let plan = &prepared.plan;
        let services = if plan.kind == Kind::Leave { services.for_good() } else { services };
        for wave in plan.waves.iter().filter(|wave| !wave.forming) {
            for one in wave.nodes.iter().filter(|one| one.from_release.is_none()) {
                services.joins(At { node: one.node.clone(), role: one.role.clone() });
            }
        }
        for one in prepared.plan.nodes() {
            let at = At { node: one.node.clone(), role: one.role.clone() };
            let product = match &one.goal {
                Goal::Bundle(_) => prepared.targets.get(&one.role).and_then(Target::product),
                Goal::Release(release) => product_of(&self.seen, &at, release),
                Goal::Nothing => None,
            };
            if let Some(product) = product {
                services.aim(at, product);
            }
        }
        services
    }

    pub(super) fn surveyor<'s>(&'s self, services: &'s Services<'s>, wanted: Wanted) -> Surveyor<'s> {
        Surveyor {
            cluster: &self.loaded.cluster,
            fleet: &self.fleet,
            seen: &self.seen,
            wanted,
            ready: BTreeSet::new(),
            services,
            ranks: BTreeMap::new(),
        }
    }
}

/// Whether a role's service may be asked about its cluster through nodes of other roles: its kind says so, or
/// nobody knows it yet.
fn may_need_peers(role: &Role, seen: &Seen) -> bool {
    let statuses = seen.values().filter_map(|status| status.as_ref().ok());
    let mut of_role = statuses.flat_map(|status| &status.roles).filter(|one| one.role == *role).peekable();
    of_role.peek().is_none() || of_role.any(|one| one.kind.is_some_and(adapters::needs_peers))
}
