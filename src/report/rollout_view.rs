//! A rollout as it runs: a line for each node that is being changed on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::shown::Shown;
use crate::model::{ByteSize, NodeName, Role};
use crate::push::{Observer, Phase};
use crate::rollout::{At, Event, NodeState};

/// How a rollout is shown on stderr.
#[derive(Debug)]
pub struct RolloutView {
    shown: Shown,
    nodes: Mutex<BTreeMap<At, Node>>,
}

#[derive(Debug, Default)]
struct Node {
    bar: Option<ProgressBar>,
    phase: &'static str,
    sent: u64,
    total: u64,
}

impl RolloutView {
    /// Live lines, plain lines, or nothing.
    pub fn new(live: bool, quiet: bool, json: bool) -> Self {
        let shown = Shown::new(live, quiet || json);
        Self { shown, nodes: Mutex::default() }
    }

    /// Says something between the lines, whatever is shown.
    pub fn remark(&self, text: &str) {
        match &self.shown {
            Shown::Bars(bars) => drop(bars.println(text)),
            // Progress that cannot be written is not worth failing for.
            Shown::Lines | Shown::Nothing => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    /// Takes the live lines away.
    pub fn end(&self) {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for bar in nodes.values().filter_map(|node| node.bar.as_ref()) {
            bar.finish_and_clear();
        }
    }

    /// The live line of a node says something else now.
    fn live(&self, at: &At, message: String) {
        let Shown::Bars(bars) = &self.shown else { return };
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let node = nodes.entry(at.clone()).or_default();
        let bar = node.bar.get_or_insert_with(|| {
            // The template is a constant; were it wrong, a plain spinner would do.
            let style = ProgressStyle::with_template("{spinner} {prefix:28} {msg} ({elapsed})")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = bars.add(ProgressBar::new_spinner()).with_style(style);
            bar.set_prefix(format!("{} {}", at.node, at.role));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(message);
    }

    fn rest(&self, at: &At) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = nodes.get_mut(at).and_then(|node| node.bar.take()) {
            bar.finish_and_clear();
        }
    }

    /// Shows an event.
    pub fn event(&self, event: &Event) {
        match event {
            Event::RolloutStarted { waves, nodes, .. } => {
                self.shown.line(&format!("{} in {}", many(nodes.len(), "change"), many(*waves, "wave")));
            }
            Event::WaveStarted { wave, canary, forming, back, nodes } => {
                let kind = match (canary, forming, back) {
                    (true, ..) => ", canary",
                    (_, true, _) => ", forming",
                    (.., true) => ", going back",
                    _ => "",
                };
                let names: Vec<String> = nodes.iter().map(|at| format!("{} {}", at.node, at.role)).collect();
                self.shown.line(&format!("wave {wave}{kind}: {}", names.join(", ")));
            }
            Event::StepStarted { at, step, .. } => self.live(at, step.to_string()),
            Event::StepProgress { at, step, waits_for, elapsed_ms, .. } => {
                let waits = waits_for.as_deref().unwrap_or_default();
                self.live(at, format!("{step}: {waits}"));
                // That nothing listens yet right after the start is no news.
                if matches!(self.shown, Shown::Lines) && *elapsed_ms >= 300 {
                    self.shown.line(&format!("{} {step} after {}: {waits}", name(at), took(*elapsed_ms)));
                }
            }
            Event::StepDone { at, step, duration_ms, release, bytes_sent } => {
                let release = release.as_ref().map_or_else(String::new, |release| format!(" {release}"));
                let bytes =
                    bytes_sent.map_or_else(String::new, |bytes| format!(", {} sent", ByteSize(bytes)));
                let text = format!("{} {step}{release} ({}{bytes})", name(at), took(*duration_ms));
                self.rest(at);
                self.shown.line(&text);
            }
            Event::StepFailed { at, step, duration_ms, error } => {
                self.rest(at);
                self.shown.line(&format!(
                    "{} {step} FAILED ({}): {}",
                    name(at),
                    took(*duration_ms),
                    error.full()
                ));
            }
            Event::SettingsChanging { at, settings } => {
                for one in settings {
                    self.shown.line(&format!(
                        "{} sets {} = {} (was {})",
                        name(at),
                        one.name,
                        one.value,
                        one.prior
                    ));
                }
            }
            Event::SettingsBack { at, settings } => {
                for one in settings {
                    self.shown.line(&format!("{} puts back {} = {}", name(at), one.name, one.prior));
                }
            }
            Event::UndoStarted { at, step } => {
                self.live(at, format!("going back: {step} failed"));
                if matches!(self.shown, Shown::Lines) {
                    self.shown.line(&format!("{} going back", name(at)));
                }
            }
            Event::StepUndone { at, step } => self.shown.line(&format!("{} {step} undone", name(at))),
            Event::UndoFailed { at, step, error } => {
                self.shown.line(&format!("{} {step} COULD NOT BE UNDONE: {}", name(at), error.full()));
            }
            Event::NodeDone { result } => {
                self.rest(&result.at);
                if result.state != NodeState::Done {
                    self.shown.line(&format!("{} {}", name(&result.at), super::state_word(result.state)));
                }
            }
            Event::WaveDone { .. } => {}
            Event::RolloutFinished { .. } => self.end(),
        }
    }
}

impl Observer for RolloutView {
    fn phase(&self, node: &NodeName, role: Option<&Role>, phase: Phase) {
        let Some(role) = role else { return };
        let at = At { node: node.clone(), role: role.clone() };
        {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.entry(at.clone()).or_default().phase = phase.word();
        }
        self.live(&at, format!("stage: {}", phase.word()));
    }

    fn total(&self, node: &NodeName, role: &Role, bytes: u64) {
        let at = At { node: node.clone(), role: role.clone() };
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(at).or_default().total = bytes;
    }

    fn sent(&self, node: &NodeName, bytes: u64) {
        if !matches!(self.shown, Shown::Bars(_)) {
            return;
        }
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let sending =
            nodes.iter_mut().find(|(at, one)| at.node == *node && one.phase == Phase::Sending.word());
        let Some((_, one)) = sending else { return };
        one.sent += bytes;
        if let Some(bar) = &one.bar {
            bar.set_message(format!("stage: {} of {}", ByteSize(one.sent), ByteSize(one.total)));
        }
    }

    fn patched(&self, _: &Role, _: usize, _: u64, _: Duration) {}

    fn failed(&self, _: &NodeName) {}
}

fn name(at: &At) -> String {
    format!("{} {}", at.node, at.role)
}

fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A time for people.
pub(super) fn took(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
}
