//! Rollouts: what is to be done, as data; doing it, node by node; and the way back.
//!
//! ```text
//! planner   what was found on the nodes -> plan: waves of nodes, each with its typed steps
//! engine    lock, preflight, stage of all; then wave -> node -> step, gate
//! undo      a failed node's steps in reverse;  back: what was done before it, in waves
//! journal   out/rollouts/<id>/: the plan, then every event
//! ```
//!
//! # Invariants
//!
//! * Decided before anything runs: the engine has no choice left but what to do about a failure, and that the
//!   policy says.
//! * The engine sees nodes, journal and person as traits ([`Nodes`], [`Recorder`], [`Person`]) and takes time
//!   from tokio alone: it runs unchanged on a cluster that does not exist and a clock that does not wait.

mod back;
mod engine;
mod event;
mod gate;
mod interrupt;
mod journal;
mod node;
mod now;
mod plan;
mod planner;
mod ports;
mod prepare;
mod settings;
mod step;
#[cfg(test)]
mod tests;
mod together;
mod track;
mod undo;
mod wave;

pub use engine::{Finished, Operator, Run};
pub use event::{At, Event, Failed, Line, NodeResult, NodeState, Outcome};
pub use interrupt::{Interrupt, Interrupted, Interrupter, interrupt};
pub use journal::{Journal, JournalError, Past, Rollouts};
pub use plan::{Goal, Kind, Leftover, NodePlan, PLAN_FORMAT, Plan, Policy, Skipped, Wave};
pub use planner::{Candidate, Change, Scope, leave, plan};
pub use ports::{Back, Fault, Held, NodeError, Nodes, Person, Recorder, StagedRelease, Swap};
pub use step::{Step, StepKind};
