//! Nodes, spoken to: a connection, the agent on the node, its lock, and one call at a time or several.
//!
//! ```text
//! connect    start (check the agent, upload it if need be) -> `node call`
//! call       a line out, a line in, over a process that is free or a further one
//! lock       `node lock`, kept; its token goes with every call
//! receive    `node receive`, for a push
//! ```
//!
//! # Invariants
//!
//! * No file on a node is run before it was compared with the digest that the controller knows.
//! * Every error names the node. None holds a request: requests may carry secrets.
//!
//! # Not here
//!
//! What a rollout does with nodes, and what a push sends.

mod agent_binary;
mod context;
mod error;
mod lines;
mod needed;
mod receive;
mod remote_node;
mod secrets;
mod start;
mod target;

pub use agent_binary::AgentBinary;
pub use context::{context, has_formed};
pub use error::{RemoteError, StartFailure};
pub use receive::Receiving;
pub use remote_node::Remote;
pub use secrets::{SecretError, SecretText, Secrets};
pub use target::target;
