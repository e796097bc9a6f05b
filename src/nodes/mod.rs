//! The cluster's nodes for a rollout: connected, surveyed, probed, and what a rollout asks of them done.
//!
//! ```text
//! fleet     a connection with an agent for each node; those that cannot be reached, and why
//! survey    where the nodes are, and what would change -> the planner's candidates
//! services  a service with its peers, for the adapter that knows its kind
//! errands   the last rollout, as nodes' own journals have it
//! examine   what checks read: conf rendered, nodes and the live cluster asked
//! gate      http, tcp, a command: asked once, through the node's own connection
//! ports     rollout's `Nodes` over all of this; staging is a push
//! ```
//!
//! # Invariants
//!
//! * Nothing of a service has to be exposed: what is asked of it goes through the node's connection.
//! * A survey changes nothing on any node.

mod change;
mod errands;
mod error;
mod examine;
mod fleet;
mod gate;
mod live_elastic;
mod ports;
mod services;
mod stage;
mod survey;
mod survey_back;
mod survey_leave;
mod survey_promote;
mod target;
mod told;

pub use errands::Errands;
pub use error::node_error;
pub use examine::Examiner;
pub use fleet::{Fleet, Member};
pub use gate::probe;
pub use ports::{Live, NoStager, Stager};
pub use services::Services;
pub use stage::PushStager;
pub use survey::{Problem, Seen, Survey, Surveyor, healthy, inputs, product_of, statuses};
pub use target::{Target, TargetError};
