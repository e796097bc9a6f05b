//! The planner's invariants, and the engine on nodes that do not exist and a clock that does not wait.

mod engine;
mod fake;
mod leave;
mod planner;
