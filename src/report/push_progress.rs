//! A push's progress: a bar for each node on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::progress::bytes_bar;
use super::shown::Shown;
use crate::model::{ByteSize, NodeName, Role};
use crate::push::{Observer, Phase};

/// How a push's progress is shown.
#[derive(Debug)]
pub struct PushProgress {
    shown: Shown,
    nodes: Mutex<BTreeMap<NodeName, State>>,
}

#[derive(Debug)]
struct State {
    bar: Option<ProgressBar>,
    started: Instant,
    /// Bytes of roles before the one that is sent now.
    before: u64,
    sent: u64,
}

impl PushProgress {
    /// Bars, lines, or nothing.
    pub fn new(bars: bool, quiet: bool) -> Self {
        let shown = Shown::new(bars, quiet);
        Self { shown, nodes: Mutex::default() }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeName, State>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_state(&self, node: &NodeName) -> State {
        let bar = match &self.shown {
            Shown::Bars(bars) => {
                let bar = bars.add(bytes_bar(0, node.as_str()));
                bar.enable_steady_tick(Duration::from_millis(100));
                Some(bar)
            }
            Shown::Lines | Shown::Nothing => None,
        };
        State { bar, started: Instant::now(), before: 0, sent: 0 }
    }
}

impl Observer for PushProgress {
    fn phase(&self, node: &NodeName, role: Option<&Role>, phase: Phase) {
        let mut nodes = self.nodes();
        let state = nodes.entry(node.clone()).or_insert_with(|| self.new_state(node));
        if phase == Phase::Tables {
            state.before = state.sent;
        }
        if let Some(bar) = &state.bar {
            match phase {
                Phase::Done => bar.finish_and_clear(),
                _ => bar.set_prefix(format!("{node} {}", phase.word())),
            }
            return;
        }
        let (sent, seconds) = (ByteSize(state.sent), state.started.elapsed().as_secs_f64());
        drop(nodes);
        if let Shown::Lines = self.shown {
            match (phase, role) {
                (Phase::Connecting | Phase::Tables | Phase::Patches, _) | (_, None)
                    if phase != Phase::Done => {}
                (Phase::Done, _) => self.shown.line(&format!("{node}: done, {sent} sent in {seconds:.1} s")),
                (_, Some(role)) => self.shown.line(&format!("{node}: {role}: {}", phase.word())),
                (_, None) => {}
            }
        }
    }

    fn total(&self, node: &NodeName, _: &Role, bytes: u64) {
        if let Some(State { bar: Some(bar), before, .. }) = self.nodes().get(node) {
            bar.set_length(before + bytes);
        }
    }

    fn sent(&self, node: &NodeName, bytes: u64) {
        if let Some(state) = self.nodes().get_mut(node) {
            state.sent += bytes;
            if let Some(bar) = &state.bar {
                bar.inc(bytes);
            }
        }
    }

    fn patched(&self, role: &Role, count: usize, bytes: u64, took: Duration) {
        let (size, seconds) = (ByteSize(bytes), took.as_secs_f64());
        self.shown.line(&format!("{role}: {count} patches made, {size}, in {seconds:.2} s"));
    }

    fn failed(&self, node: &NodeName) {
        if let Some(State { bar: Some(bar), .. }) = self.nodes().get(node) {
            bar.abandon();
        }
    }
}
