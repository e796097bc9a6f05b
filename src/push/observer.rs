//! What a push tells about its progress.

use std::time::Duration;

use crate::model::{NodeName, Role};

/// What a node's push is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, and looking after the agent.
    Connecting,
    /// Manifest and tables of contents.
    Tables,
    /// Patches are being made, here.
    Patches,
    /// Contents travel.
    Sending,
    /// The node makes the release ready.
    Staging,
    /// All is there.
    Done,
}

impl Phase {
    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Tables => "tables",
            Self::Patches => "patches",
            Self::Sending => "sending",
            Self::Staging => "staging",
            Self::Done => "done",
        }
    }
}

/// Hears of a push's progress; from several threads.
pub trait Observer: Send + Sync {
    /// A node's push, of one role or before any, entered a phase.
    fn phase(&self, node: &NodeName, role: Option<&Role>, phase: Phase);
    /// So many bytes will be sent for a role, as far as is known yet.
    fn total(&self, node: &NodeName, role: &Role, bytes: u64);
    /// So many more bytes were handed to the connection.
    fn sent(&self, node: &NodeName, bytes: u64);
    /// Patches between two bundles were made in this time; they have this many bytes.
    fn patched(&self, role: &Role, count: usize, bytes: u64, took: Duration);
    /// A node gave up.
    fn failed(&self, node: &NodeName);
}

/// Wants to hear nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn phase(&self, _: &NodeName, _: Option<&Role>, _: Phase) {}
    fn total(&self, _: &NodeName, _: &Role, _: u64) {}
    fn sent(&self, _: &NodeName, _: u64) {}
    fn patched(&self, _: &Role, _: usize, _: u64, _: Duration) {}
    fn failed(&self, _: &NodeName) {}
}
