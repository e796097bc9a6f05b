//! A rollout as one HTML file: what was planned, what happened when, how it ended.
//!
//! # Invariants
//!
//! * Everything that comes from a plan or a journal is escaped by the template engine; this file makes no HTML.
//! * The file needs nothing else: no script, no style, font or picture from elsewhere.

use std::collections::BTreeMap;

use minijinja::{AutoEscape, Environment, Error};
use serde_json::{Value, json};

use super::rollout_text::{state_word, version};
use super::rollout_view::took;
use crate::model::ByteSize;
use crate::recipe::to_template_value;
use crate::rollout::{At, Event, Failed, NodeResult, NodeState, Outcome, Past, StepKind};

const TEMPLATE: &str = include_str!("rollout.html");

/// Where bars begin, and how wide all of them are together, of 1000.
const LEFT: f64 = 200.0;
const WIDTH: f64 = 760.0;

/// The height of a row.
const ROW: usize = 26;

/// The whole file.
pub fn rollout_html(past: &Past) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.add_template("rollout.html", TEMPLATE)?;
    environment.get_template("rollout.html")?.render(to_template_value(&context(past)))
}

fn context(past: &Past) -> Value {
    let (who, host) = past
        .lines
        .iter()
        .find_map(|line| match &line.event {
            Event::RolloutStarted { who, host, .. } => Some((who.as_str(), host.as_str())),
            _ => None,
        })
        .unwrap_or_default();
    let (nodes, failures) = ended(past);
    let times: Vec<u64> = past.lines.iter().filter_map(|line| line.time.millis()).collect();
    let (first, last) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
    let outcome = match past.outcome() {
        Some(Outcome::Succeeded) => ("succeeded", "good"),
        Some(Outcome::RolledBack) => ("failed; what failed is back", "bad"),
        Some(Outcome::NeedsPerson) => ("needs a person", "bad"),
        Some(Outcome::Interrupted) => ("interrupted", "warn"),
        None => ("broken off, or still running", "warn"),
    };
    let rows = rows(past, first, last);
    let most = |value: fn(&NodeResult) -> u64| nodes.iter().map(value).max().unwrap_or(0);
    let policy = &past.plan.policy;
    json!({
        "id": past.id,
        "command": past.plan.kind.command(),
        "cluster": past.plan.cluster,
        "who": who,
        "host": host,
        "began": past.lines.first().map_or(past.plan.time.as_str(), |line| line.time.as_str()),
        "outcome": outcome.0,
        "outcome_class": outcome.1,
        "took": took(last.saturating_sub(first)),
        "done": nodes.iter().filter(|node| node.state == NodeState::Done).count(),
        "downtime": took(most(|node| node.downtime_ms)),
        "tool_downtime": took(most(|node| node.tool_downtime_ms)),
        "bytes": ByteSize(nodes.iter().map(|node| node.bytes_sent).sum()).to_string(),
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
        "next": nodes.iter().filter_map(next).collect::<Vec<_>>(),
        "height": 30 + rows.len() * ROW,
        "ticks": ticks(last.saturating_sub(first)),
        "rows": rows,
        "planned": planned(past),
        "skipped": past.plan.skipped.iter().map(|one| format!("{} {}", one.node, one.role)).collect::<Vec<_>>().join(", "),
        "policy": {
            "gate": policy.gate_timeout.to_string(),
            "healthy": policy.min_healthy.to_string(),
            "failures": policy.max_failures,
            "after": serde_json::to_value(policy.on_failure).unwrap_or_default(),
        },
    })
}

/// How each node ended, as far as it is known, and what went wrong.
fn ended(past: &Past) -> (Vec<NodeResult>, Vec<Failed>) {
    for line in past.lines.iter().rev() {
        if let Event::RolloutFinished { nodes, failures, .. } = &line.event {
            return (nodes.clone(), failures.clone());
        }
    }
    let mut nodes: BTreeMap<At, NodeResult> = BTreeMap::new();
    let mut failures = Vec::new();
    for line in &past.lines {
        match &line.event {
            Event::NodeDone { result } => drop(nodes.insert(result.at.clone(), result.clone())),
            Event::StepFailed { at, step, error, .. } => {
                failures.push(Failed { at: at.clone(), step: *step, undo: false, error: error.clone() });
            }
            Event::UndoFailed { at, step, error } => {
                failures.push(Failed { at: at.clone(), step: *step, undo: true, error: error.clone() });
            }
            _ => {}
        }
    }
    (nodes.into_values().collect(), failures)
}

fn node(one: &NodeResult) -> Value {
    let class = match one.state {
        NodeState::Done => "good",
        NodeState::Untouched => "dim",
        NodeState::Changing | NodeState::RolledBack | NodeState::Guarded => "warn",
        NodeState::NeedsPerson => "bad",
    };
    json!({
        "node": one.at.node,
        "role": one.at.role,
        "from": version(one.from.as_ref()),
        "to": version(one.to.as_ref()),
        "state": state_word(one.state),
        "class": class,
        "downtime": took(one.downtime_ms),
        "tool": took(one.tool_downtime_ms),
        "bytes": ByteSize(one.bytes_sent).to_string(),
    })
}

fn failure(one: &Failed) -> Value {
    json!({
        "node": one.at.node,
        "role": one.at.role,
        "step": one.step.name(),
        "undo": one.undo,
        "message": one.error.line.message,
        "causes": one.error.line.causes,
        "help": one.error.line.help,
    })
}

fn next(one: &NodeResult) -> Option<Value> {
    if !matches!(one.state, NodeState::NeedsPerson | NodeState::Guarded) {
        return None;
    }
    let command = one.next.as_deref().unwrap_or("windlass status");
    let state = state_word(one.state);
    Some(json!({ "node": one.at.node, "role": one.at.role, "state": state, "command": command }))
}

fn planned(past: &Past) -> Vec<Value> {
    let waves = past.plan.waves.iter().enumerate();
    let row = |(index, wave): (usize, &crate::rollout::Wave)| {
        let of_node = |one: &crate::rollout::NodePlan| {
            let notes =
                [(wave.canary, "canary"), (wave.forming, "forming"), (one.point_of_no_return, "no way back")];
            let notes: Vec<&str> = notes.iter().filter(|(holds, _)| *holds).map(|(_, note)| *note).collect();
            json!({
                "wave": index + 1,
                "node": one.node,
                "role": one.role,
                "added": one.files_added,
                "removed": one.files_removed,
                "changed": one.files_changed,
                "bytes": ByteSize(one.bytes_to_send).to_string(),
                "note": notes.join(", "),
                "steps": one.steps.iter().map(|step| step.step.name()).collect::<Vec<_>>().join(", "),
            })
        };
        wave.nodes.iter().map(of_node).collect::<Vec<_>>()
    };
    waves.flat_map(row).collect()
}

fn class(step: StepKind) -> &'static str {
    match step {
        StepKind::Lock | StepKind::Preflight => "prepare",
        StepKind::Stage => "send",
        StepKind::Drain
        | StepKind::Activate
        | StepKind::Stop
        | StepKind::Start
        | StepKind::Reload
        | StepKind::Forget => "down",
        StepKind::Ready | StepKind::Gone => "gate",
        StepKind::Undrain | StepKind::Settle | StepKind::Confirm => "after",
    }
}

/// Each role on each node, in the order they were begun, with a bar for each step.
fn rows(past: &Past, first: u64, last: u64) -> Vec<Value> {
    let all = (last - first.min(last)).max(1);
    let place = |ms: u64| LEFT + WIDTH * share(ms.saturating_sub(first), all);
    let mut order: Vec<At> = Vec::new();
    let mut bars: BTreeMap<At, Vec<Value>> = BTreeMap::new();
    let mut open: BTreeMap<(At, StepKind), u64> = BTreeMap::new();
    let mut add = |at: &At, step: StepKind, from: u64, to: u64, end: &str| {
        if !order.contains(at) {
            order.push(at.clone());
        }
        let class = if end.is_empty() { class(step) } else { "fail" };
        let (x, width) = (place(from), (place(to) - place(from)).max(1.0));
        let title = format!("{step}{end}: {}", took(to.saturating_sub(from)));
        let bar = json!({ "x": rounded(x), "width": rounded(width), "class": class, "title": title });
        bars.entry(at.clone()).or_default().push(bar);
    };
    for line in &past.lines {
        let Some(now) = line.time.millis() else { continue };
        match &line.event {
            Event::StepStarted { at, step, .. } => drop(open.insert((at.clone(), *step), now)),
            Event::StepDone { at, step, duration_ms, .. } => {
                open.remove(&(at.clone(), *step));
                add(at, *step, now.saturating_sub(*duration_ms), now, "");
            }
            Event::StepFailed { at, step, duration_ms, .. } => {
                open.remove(&(at.clone(), *step));
                add(at, *step, now.saturating_sub(*duration_ms), now, " failed");
            }
            _ => {}
        }
    }
    for ((at, step), from) in &open {
        add(at, *step, *from, last, " did not end");
    }
    let row = |(index, at): (usize, At)| {
        let name = format!("{} {}", at.node, at.role);
        // What does not fit is in the table below.
        let name =
            if name.chars().count() > 28 { name.chars().take(27).chain(['…']).collect() } else { name };
        json!({ "name": name, "y": 26 + index * ROW, "bars": bars.get(&at) })
    };
    order.into_iter().enumerate().map(row).collect()
}

fn share(part: u64, all: u64) -> f64 {
    // A rollout's milliseconds are far below what a float can tell apart.
    #[expect(clippy::cast_precision_loss, reason = "it becomes a place on a picture")]
    let share = part as f64 / all as f64;
    share.min(1.0)
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn ticks(all: u64) -> Vec<Value> {
    let tick = |n: u64| {
        let x = LEFT + WIDTH * share(n, 4);
        json!({ "x": rounded(x), "text": took(all * n / 4) })
    };
    (0..=4).map(tick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Line, Plan};

    fn past(node: &str, line: Value) -> Past {
        let plan: Plan = serde_json::from_value(json!({
            "format": 1, "kind": "promote", "cluster": node, "time": "2026-11-22T10:00:00.000Z",
            "policy": { "pause_after_canary": false, "gate_timeout": "10m", "min_healthy": "10s",
                "progress_deadline": "10m", "max_failures": 0, "on_failure": "rollback-node", "confirm_within": null },
            "waves": [], "skipped": [],
        }))
        .unwrap();
        let mut lines: Vec<Line> = Vec::new();
        for event in [
            json!({ "event": "rollout-started", "kind": "promote", "cluster": node, "who": node, "host": node,
                "waves": 1, "nodes": [] }),
            line,
        ] {
            let mut event = event;
            event["time"] = "2026-11-22T10:00:01.000Z".into();
            event["rollout"] = "x".into();
            lines.push(serde_json::from_value(event).unwrap());
        }
        Past { id: node.to_owned(), plan, lines }
    }

    #[test]
    fn what_others_wrote_is_text_and_nothing_else() {
        let hostile = "<script>alert('x')</script>\"><img src=x onerror=y> & {{ id }}";
        let failed = json!({ "event": "step-failed", "node": "n1", "role": "web", "step": "ready", "duration_ms": 400,
            "error": { "fault": "service", "kind": "gate", "message": hostile, "causes": [hostile], "help": [hostile] } });
        let html = rollout_html(&past(hostile, failed)).unwrap();
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        assert!(
            html.contains("&lt;script&gt;alert(&#x27;x&#x27;)&lt;&#x2f;script&gt;&quot;&gt;&lt;img"),
            "{html}"
        );
        assert!(html.contains("{{ id }}"), "a text is no template");
        // Nothing is fetched from anywhere.
        for word in ["http://", "https://", "src=\"", "@import", "url("] {
            assert!(!html.contains(word), "{word}");
        }
        assert!(html.contains("prefers-color-scheme: dark") && html.contains("class=\"fail\""));
    }

    #[test]
    fn one_that_was_broken_off_shows_what_did_not_end() {
        let started = json!({ "event": "step-started", "node": "n1", "role": "web", "step": "stop" });
        let html = rollout_html(&past("c", started)).unwrap();
        assert!(html.contains("broken off, or still running") && html.contains("stop did not end"), "{html}");
    }
}
