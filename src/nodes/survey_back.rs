//! Candidates for rollouts that stage nothing: going back, and starting anew.

use std::collections::{BTreeMap, BTreeSet};

use super::survey::{Problem, Survey, Surveyor, healthy, product_of};
use crate::adapters;
use crate::agent::{ReleaseName, RoleStatus};
use crate::model::{Role, Version};
use crate::rollout::{At, Candidate, Fault, Goal, NodeError, NodePlan, Plan};

impl Surveyor<'_> {
    /// Candidates for going back: to the release of that version, or to each node's prior. `force` takes a person's
    /// word that data which a newer version has opened was put back.
    pub fn rollback(&self, to: Option<&Version>, force: bool) -> Survey {
        let mut survey = Survey::default();
        let mut priors: BTreeMap<&Role, BTreeSet<Option<Version>>> = BTreeMap::new();
        for (node, role) in self.pairs() {
            let status = match self.role(node, role) {
                Ok(status) => status,
                Err(error) => {
                    let (node, role) = (node.clone(), Some(role.clone()));
                    survey.problems.push(Problem { node, role, error });
                    continue;
                }
            };
            // What never ran here has nothing to go back from.
            let Some((status, from)) = status.and_then(|one| Some((one, one.release.clone()?))) else {
                continue;
            };
            let goal = match to {
                Some(version) if from.version() == version => Some(from.clone()),
                Some(version) => {
                    let mut of_version: Vec<_> =
                        status.staged.iter().filter(|one| one.release.version() == version).collect();
                    of_version.sort_by_key(|one| (one.good, one.release.number()));
                    of_version.last().map(|one| one.release.clone())
                }
                None => status.prior.clone(),
            };
            priors.entry(role).or_default().insert(goal.as_ref().map(|goal| goal.version().clone()));
            let Some(goal) = goal else {
                let what = to.map_or_else(
                    || "has no prior release: none before the current one was ever confirmed".to_owned(),
                    |version| format!("has no release of version {version} on the disk"),
                );
                let message = format!("{role} on {node} {what}");
                let error = NodeError::new(Fault::Refused, "no-prior", message);
                let (node, role) = (node.clone(), Some(role.clone()));
                survey.problems.push(Problem { node, role, error });
                continue;
            };
            let at = At { node: node.clone(), role: role.clone() };
            if let Some(error) = self.no_return(&at, status, &goal).filter(|_| !force) {
                let (node, role) = (node.clone(), Some(role.clone()));
                survey.problems.push(Problem { node, role, error });
                continue;
            }
            survey.candidates.push(Candidate {
                together: self.together(&at, status, &goal),
                zone: self.zone(node),
                on_target: goal == from,
                up: self.ready.contains(&at),
                healthy: healthy(status) && self.ready.contains(&at),
                from: Some(from),
                to: Some(goal.version().clone()),
                service: status.kind.is_some(),
                drains: self.drains(Some(status)),
                rank: self.rank(&at),
                ..Candidate::of(node.clone(), role.clone(), Goal::Release(goal))
            });
        }
        // A role that was never changed has nowhere to go, and does not keep the others from it.
        if to.is_none() && !survey.candidates.is_empty() {
            priors.retain(|_, versions| versions.iter().any(Option::is_some));
            survey.problems.retain(|problem| {
                problem.role.as_ref().is_none_or(|role| priors.contains_key(role))
                    || problem.error.line.kind != "no-prior"
            });
        }
        if to.is_none() {
            for (role, versions) in priors.into_iter().filter(|(_, versions)| versions.len() > 1) {
                survey.problems.extend(self.mixed(role, &versions));
            }
        }
        survey
    }

    /// Candidates for what a plan that goes back had fixed.
    pub fn go_to(&self, plan: &Plan) -> Survey {
        let mut survey = Survey::default();
        let meant = |one: &&NodePlan| self.pairs().any(|(node, role)| *node == one.node && *role == one.role);
        for one in plan.nodes().filter(meant) {
            let at = At { node: one.node.clone(), role: one.role.clone() };
            match self.role(&one.node, &one.role) {
                Err(error) => {
                    let (node, role) = (at.node, Some(at.role));
                    survey.problems.push(Problem { node, role, error });
                }
                Ok(status) => {
                    let from = status.and_then(|status| status.release.clone());
                    let together = match (status, &one.goal) {
                        (Some(status), Goal::Release(goal)) => self.together(&at, status, goal),
                        _ => false,
                    };
                    survey.candidates.push(Candidate {
                        on_target: one.goal == from.clone().map_or(Goal::Nothing, Goal::Release),
                        up: self.ready.contains(&at),
                        healthy: status.is_some_and(healthy) && self.ready.contains(&at),
                        zone: one.zone.clone(),
                        from,
                        to: one.to.clone(),
                        service: one.service,
                        drains: self.drains(status),
                        rank: self.rank(&At { node: one.node.clone(), role: one.role.clone() }),
                        together,
                        ..Candidate::of(at.node, at.role, one.goal.clone())
                    });
                }
            }
        }
        survey
    }

    /// Why the data of a service cannot be read by a release, if it cannot.
    fn no_return(&self, at: &At, status: &RoleStatus, goal: &ReleaseName) -> Option<NodeError> {
        let kind = status.kind.filter(|kind| kind.binds_data())?;
        let product = product_of(self.seen, at, goal);
        let error = adapters::upgrade(kind, status.opened.as_deref(), product.as_deref()).err()?;
        let At { node, role } = at;
        let mut made = NodeError::new(Fault::Refused, "no-return", format!("{role} on {node}: {error}"));
        made.line.help.push(error.help);
        Some(made)
    }

    /// Whether all of its kind stop before the first one starts.
    fn together(&self, at: &At, status: &RoleStatus, goal: &ReleaseName) -> bool {
        let product = product_of(self.seen, at, goal);
        status
            .kind
            .is_some_and(|kind| adapters::together(kind, status.product.as_deref(), product.as_deref()))
    }

    /// Nodes of a role that are on different versions would go back to different ones: nobody means that.
    fn mixed(&self, role: &Role, versions: &BTreeSet<Option<Version>>) -> Option<Problem> {
        let (node, _) = self.pairs().find(|(_, one)| *one == role)?;
        let shown: Vec<String> = versions
            .iter()
            .map(|version| version.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string))
            .collect();
        let message =
            format!("the nodes of {role} would go back to different versions: {}", shown.join(", "));
        let mut error = NodeError::new(Fault::Refused, "mixed", message);
        for version in versions.iter().flatten() {
            error.line.help.push(format!("say which: `windlass rollback --role {role} --to {version}`"));
        }
        Some(Problem { node: node.clone(), role: Some(role.clone()), error })
    }

    /// Candidates for starting anew what is current.
    pub fn restart(&self) -> Survey {
        let mut survey = Survey::default();
        for (node, role) in self.pairs() {
            match self.role(node, role) {
                Err(error) => {
                    let (node, role) = (node.clone(), Some(role.clone()));
                    survey.problems.push(Problem { node, role, error });
                }
                Ok(Some(RoleStatus { release: Some(release), kind: Some(_), .. })) => {
                    let status = self.role(node, role).ok().flatten();
                    let at = At { node: node.clone(), role: role.clone() };
                    survey.candidates.push(Candidate {
                        zone: self.zone(node),
                        from: Some(release.clone()),
                        to: Some(release.version().clone()),
                        on_target: true,
                        up: self.ready.contains(&at),
                        healthy: status.is_some_and(healthy) && self.ready.contains(&at),
                        service: true,
                        drains: self.drains(status),
                        rank: self.rank(&at),
                        ..Candidate::of(node.clone(), role.clone(), Goal::Release(release.clone()))
                    });
                }
                // What runs nothing needs no restart.
                Ok(_) => {}
            }
        }
        survey
    }
}
