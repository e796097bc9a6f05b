//! Bundles, brought to nodes: only what each lacks, to many at once, then staged.
//!
//! ```text
//! push       engine: connect, lock, send, stage; several nodes at a time, one role after another on each
//! send       send: tables first, then what is missing, as source and patches give it
//! source     a bundle of the store, opened once for all nodes;  pool: what was read, shared by all nodes
//! patches    pairs -> patches, made once for two bundles and kept in out/cache/patches/
//! ```
//!
//! # Invariants
//!
//! * What a controller holds does not grow with a bundle's size, nor with how slow a node is.
//! * A node is told about a content only by its place in tables that it has checked.
//! * One node's failure is that node's alone.

mod engine;
mod error;
mod items;
mod observer;
mod pairs;
mod patches;
mod pool;
mod send;
mod source;
mod wants;

pub use engine::{Load, NodeOutcome, Options, Pushed, Ready, World, push};
pub use error::PushError;
pub use observer::{Observer, Phase, Quiet};
pub use send::{Pusher, Sent};
pub use source::Source;
pub use wants::{Wants, WantsError, wants};
