//! How a rollout ended, for a person: a table, what went wrong, and what comes next.

use std::fmt::Write as _;

use super::Table;
use super::rollout_view::took;
use crate::model::{ByteSize, Version};
use crate::rollout::{Fault, Finished, Kind, NodeState, Outcome, Plan};

/// A word for where a node ended.
pub fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Untouched => "untouched",
        NodeState::Changing => "changing",
        NodeState::Done => "done",
        NodeState::RolledBack => "rolled back",
        NodeState::Guarded => "left to its guard",
        NodeState::NeedsPerson => "needs a person",
    }
}

/// A version, or that there is none.
pub fn version(version: Option<&Version>) -> String {
    version.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// The end of a rollout. Where a person is needed, its last lines say where, and which command comes next.
pub fn finished_text(id: &str, plan: &Plan, finished: &Finished) -> String {
    let heads = ["NODE", "ROLE", "FROM", "TO", "STATE", "DOWNTIME", "TOOL", "SENT"];
    let mut table = Table::new(&heads).right(&[5, 6, 7]);
    for node in &finished.nodes {
        table.row([
            node.at.node.to_string(),
            node.at.role.to_string(),
            version(node.from.as_ref()),
            version(node.to.as_ref()),
            state_word(node.state).to_owned(),
            took(node.downtime_ms),
            took(node.tool_downtime_ms),
            ByteSize(node.bytes_sent).to_string(),
        ]);
    }
    // Writing to a String cannot fail, here and below.
    let mut out = table.to_string();
    for failed in &finished.failures {
        let what = if failed.undo { "could not be undone" } else { "failed" };
        let _ = writeln!(
            out,
            "{} {}: {} {what}: {}",
            failed.at.node,
            failed.at.role,
            failed.step,
            failed.error.full()
        );
    }
    let mut told = std::collections::BTreeSet::new();
    for help in finished.failures.iter().flat_map(|failed| &failed.error.line.help) {
        if told.insert(help) {
            let _ = writeln!(out, "help: {help}");
        }
    }
    let what = plan.kind.command();
    let _ = match finished.outcome {
        Outcome::Succeeded => writeln!(out, "{what} {id} succeeded"),
        Outcome::RolledBack if finished.is_locked() => {
            writeln!(out, "{what} {id} did not begin: a node is locked; nothing was changed")
        }
        Outcome::RolledBack if !finished.touched => {
            writeln!(out, "{what} {id} failed before anything that runs was touched; nothing was changed")
        }
        Outcome::RolledBack if plan.kind == Kind::Leave => {
            writeln!(out, "{what} {id} failed; everything is as it was, and the node stays")
        }
        Outcome::RolledBack => writeln!(
            out,
            "{what} {id} failed; every node that failed is back where it was, and healthy{}",
            stayed(finished)
        ),
        Outcome::NeedsPerson => writeln!(out, "{what} {id} failed and needs a person"),
        Outcome::Interrupted if finished.paused => {
            writeln!(out, "{what} {id} waits after its canary; go on with `windlass resume`")
        }
        Outcome::Interrupted if plan.kind == Kind::Leave && !needs_look(finished) => {
            writeln!(out, "{what} {id} was interrupted; everything is as it was, and the node stays")
        }
        Outcome::Interrupted => writeln!(
            out,
            "{what} {id} was interrupted{}; go on with `windlass resume`",
            if finished.touched { "" } else { "; nothing was changed" }
        ),
    };
    for node in &finished.nodes {
        if !matches!(node.state, NodeState::NeedsPerson | NodeState::Guarded) {
            continue;
        }
        let release = node.release.as_ref().map_or_else(|| "no release".to_owned(), ToString::to_string);
        let lost =
            finished.failures.iter().any(|failed| failed.at == node.at && failed.error.fault == Fault::Lost);
        let current = if lost { format!("{release}, as far as is known") } else { release };
        let next = node.next.as_deref().unwrap_or("windlass status");
        let _ = writeln!(
            out,
            "{} {}: {}; current is {current}; next: {next}",
            node.at.node,
            node.at.role,
            state_word(node.state)
        );
    }
    out
}

/// Whether a node was left as it was when it was stopped in the middle of something.
fn needs_look(finished: &Finished) -> bool {
    finished.nodes.iter().any(|node| matches!(node.state, NodeState::NeedsPerson | NodeState::Guarded))
}

/// Nodes that reached their target before another failed stay there, and that has to be said.
fn stayed(finished: &Finished) -> String {
    let done = finished.nodes.iter().filter(|node| node.state == NodeState::Done).count();
    let all = finished.nodes.len();
    if done == 0 {
        return String::new();
    }
    format!(
        "; {done} of {all} stay on the new release: `windlass promote` goes on, `windlass rollback` goes back"
    )
}
