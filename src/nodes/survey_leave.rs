//! Candidates for leaving: what a node has that shall be there no longer.

use super::survey::{Surveyor, healthy};
use crate::adapters;
use crate::agent::supervise::ProcessState;
use crate::rollout::{At, Candidate, Fault, Goal, NodeError};

impl Surveyor<'_> {
    /// The candidate for a role that leaves; `None` where nothing is current. A service that others take over from
    /// has to run.
    pub fn leaves(&self, at: &At) -> Result<Option<Candidate>, NodeError> {
        let Some(status) = self.role(&at.node, &at.role)? else { return Ok(None) };
        let Some(from) = status.release.clone() else { return Ok(None) };
        let drains = status.kind.is_some_and(adapters::drains);
        if drains && status.process != ProcessState::Running {
            let message = format!("{} on {} does not run: nobody can take over from it", at.role, at.node);
            let mut error = NodeError::new(Fault::Refused, "not-running", message);
            error.line.help.push(format!("start it: `windlass service start --nodes {}`", at.node));
            error
                .line
                .help
                .push("or, if a leave was broken off: `windlass resume` takes that back".to_owned());
            error.line.help.push(format!(
                "or, if what it has is not needed any more: stop it and `windlass leave {} --dead`",
                at.node
            ));
            return Err(error);
        }
        if let Some(problem) = &status.problem {
            return Err(NodeError::new(Fault::Refused, "problem", problem.clone()));
        }
        Ok(Some(Candidate {
            zone: self.zone(&at.node),
            from: Some(from),
            up: self.ready.contains(at),
            healthy: healthy(status) && self.ready.contains(at),
            service: status.kind.is_some(),
            drains,
            rank: self.rank(at),
            ..Candidate::of(at.node.clone(), at.role.clone(), Goal::Nothing)
        }))
    }
}
