//! What is known about each kind of service: in which order its nodes go, when one may leave its cluster, how it
//! leaves and joins again, when it is ready, and when its cluster has settled.
//!
//! ```text
//! adapter   what every kind answers
//! view      a service on a node, its peers, and the ways to ask them
//! exchange  one HTTP exchange on an open stream
//! wire      HTTP and lines of text, over a node's own connection
//! resp      Redis's protocol
//! known     which kind is answered by which module, each named after it
//! upgrade   which versions a product may go to, and from which there is no way back
//! ```
//!
//! # Invariants
//!
//! * An adapter holds no state between two questions: whoever resumes asks again and gets the same answer.
//! * It changes nothing but what [`Adapter::settings`] named before, and puts that back in [`Adapter::undrain`].
//! * Every "not yet" names the condition that does not hold.

mod adapter;
mod elasticsearch;
mod exchange;
mod kafka;
mod kafka_api;
mod kafka_spare;
mod kafka_wire;
mod kibana;
mod known;
mod plain;
mod redis;
mod redis_info;
mod resp;
#[cfg(test)]
mod tests;
mod tls;
mod upgrade;
mod view;
mod wire;
mod zookeeper;

pub use adapter::{Adapter, AdapterError};
pub use elasticsearch::get as elastic_get;
pub use exchange::{Question, Want};
pub use known::{default_port, drains, known, needs_peers};
pub use upgrade::{Upgrade, UpgradeError, together, upgrade};
pub use view::{Credentials, Gone, Instance, Opening, Reach, View, hosts};
pub use wire::{HttpAnswer, Stream};
