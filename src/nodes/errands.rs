//! What nodes' own journals say about the last rollout: enough to go on with it from any machine.
//!
//! # Invariants
//!
//! * A rollout wrote its errands only when every release that it needs was on its node's disk. So what is left of
//!   it needs no store.
//! * One that was on its way back goes on going back; what it never touched is left alone.

use std::collections::BTreeSet;

use super::survey::{Problem, Seen, Survey, Surveyor, bad_release, healthy, unconfirmed_from};
use crate::agent::{Errand, RoleStatus};
use crate::model::Role;
use crate::rollout::{At, Candidate, Goal, Kind, NodeError};

/// The last rollout that nodes know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errands {
    /// Its id.
    pub rollout: String,
    /// What is left of it: the way there, or the way back.
    pub kind: Kind,
    /// By whom it was begun.
    pub who: String,
    /// From which machine.
    pub host: String,
    /// What each node knows, with how it ended there.
    pub nodes: Vec<(At, Errand, Option<String>)>,
}

impl Errands {
    /// The newest of those that `seen` tells of. Ids sort by time.
    pub fn newest(seen: &Seen) -> Option<Self> {
        let mut all: Vec<(At, Errand, Option<String>)> = Vec::new();
        for (node, status) in seen {
            let roles = status.iter().flat_map(|status| &status.roles);
            all.extend(roles.filter_map(|one| {
                let at = At { node: node.clone(), role: one.role.clone() };
                Some((at, one.errand.clone()?, one.ended.clone()))
            }));
        }
        let newest = all.iter().map(|(_, errand, _)| &errand.rollout).max()?.clone();
        all.retain(|(_, errand, _)| errand.rollout == newest);
        // Whoever turned back told those that had to go back, and nobody else.
        let back = |errand: &Errand| kind_of(errand) == Some(Kind::Rollback);
        if all.iter().any(|(_, errand, _)| back(errand)) {
            all.retain(|(_, errand, _)| back(errand));
        }
        let (_, first, _) = all.first()?;
        let (kind, who, host) = (kind_of(first)?, first.who.clone(), first.host.clone());
        Some(Self { rollout: newest, kind, who, host, nodes: all })
    }

    /// The way back from a leave that was broken off: each role is as it was. One that ended has nothing left.
    #[must_use]
    pub fn undone(&self) -> Self {
        let mut nodes = self.nodes.clone();
        nodes.retain(|(_, errand, ended)| ended.is_none() && errand.from.is_some());
        for (_, errand, _) in &mut nodes {
            errand.to.clone_from(&errand.from);
        }
        Self { kind: Kind::Rollback, nodes, ..self.clone() }
    }

    /// How it ended, where all nodes say the same.
    pub fn outcome(&self) -> Option<&str> {
        let said: BTreeSet<Option<&str>> = self.nodes.iter().map(|(.., ended)| ended.as_deref()).collect();
        match said.into_iter().collect::<Vec<_>>()[..] {
            [one] => one,
            _ => None,
        }
    }
}

fn kind_of(errand: &Errand) -> Option<Kind> {
    [Kind::Promote, Kind::Rollback, Kind::Restart, Kind::Leave]
        .into_iter()
        .find(|kind| kind.command() == errand.kind)
}

impl Surveyor<'_> {
    /// Candidates for what is left of a rollout.
    pub fn errands(&self, errands: &Errands, allow_bad: bool) -> Survey {
        let roles: BTreeSet<&Role> = errands.nodes.iter().map(|(at, ..)| &at.role).collect();
        let mut survey =
            Survey { forming: self.forming(roles.into_iter().map(|role| (role, None))), ..Survey::default() };
        for (at, errand, ended) in &errands.nodes {
            // A service that was started anew need not be started once more.
            if errands.kind == Kind::Restart && ended.is_some() {
                continue;
            }
            let found = self.role(&at.node, &at.role);
            match found.and_then(|status| self.errand(at, errand, status, errands.kind, allow_bad)) {
                Ok(candidate) => survey.candidates.push(candidate),
                Err(error) => {
                    let (node, role) = (at.node.clone(), Some(at.role.clone()));
                    survey.problems.push(Problem { node, role, error });
                }
            }
        }
        survey
    }

    fn errand(
        &self,
        at: &At,
        errand: &Errand,
        status: Option<&RoleStatus>,
        kind: Kind,
        allow_bad: bool,
    ) -> Result<Candidate, NodeError> {
        let from = status.and_then(|status| status.release.clone());
        if let (Some(status), Some(to), Kind::Promote) = (status, &errand.to, kind)
            && from.as_ref() != Some(to)
            && !allow_bad
        {
            bad_release(at, status, |one| one == to)?;
        }
        Ok(Candidate {
            zone: self.zone(&at.node),
            on_target: from == errand.to,
            unconfirmed_from: unconfirmed_from(status, from == errand.to && kind == Kind::Promote),
            up: self.ready.contains(at),
            healthy: status.is_some_and(healthy) && self.ready.contains(at),
            to: errand.to.as_ref().map(|to| to.version().clone()),
            service: true,
            drains: self.drains(status),
            rank: self.rank(at),
            from,
            ..Candidate::of(
                at.node.clone(),
                at.role.clone(),
                errand.to.clone().map_or(Goal::Nothing, Goal::Release),
            )
        })
    }
}
