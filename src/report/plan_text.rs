//! A plan for a person: what changes on which node, the rendered conf's differences, the steps.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::rollout_text::version;
use super::{Table, unified};
use crate::agent::{Change, Preview, PreviewFile};
use crate::model::ByteSize;
use crate::rollout::{At, NodePlan, Plan};

/// The text of a plan.
pub fn plan_text(plan: &Plan, previews: &BTreeMap<At, Preview>) -> String {
    // Writing to a String cannot fail, here and below.
    let mut out = String::new();
    if plan.is_empty() {
        let _ = writeln!(out, "nothing to do: every node is on target and healthy");
    } else {
        let heads = ["WAVE", "NODE", "ROLE", "FROM", "TO", "FILES", "SEND", "NOTE"];
        let mut table = Table::new(&heads).right(&[0, 6]);
        for (index, wave) in plan.waves.iter().enumerate() {
            for node in &wave.nodes {
                table.row([
                    (index + 1).to_string(),
                    node.node.to_string(),
                    node.role.to_string(),
                    version(node.from.as_ref()),
                    version(node.to.as_ref()),
                    format!("+{} -{} ~{}", node.files_added, node.files_removed, node.files_changed),
                    ByteSize(node.bytes_to_send).to_string(),
                    note(wave.canary, wave.forming, node),
                ]);
            }
        }
        let _ = write!(out, "{table}");
    }
    for skipped in &plan.skipped {
        let on = version(skipped.version.as_ref());
        let _ = writeln!(out, "{} {} is on {on} already", skipped.node, skipped.role);
    }
    let mut steps: BTreeMap<Vec<String>, Vec<&str>> = BTreeMap::new();
    for node in plan.nodes() {
        let names = node.steps.iter().map(|step| step.step.to_string()).collect();
        let roles = steps.entry(names).or_default();
        if !roles.contains(&node.role.as_str()) {
            roles.push(node.role.as_str());
        }
    }
    for (names, roles) in steps {
        let _ = writeln!(out, "steps of {}: {}", roles.join(", "), names.join(", "));
    }
    // Nodes whose conf differs in the same way are told once.
    let mut diffs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in plan.nodes() {
        let at = At { node: node.node.clone(), role: node.role.clone() };
        for file in previews.get(&at).map(|preview| preview.files.as_slice()).unwrap_or_default() {
            let name = format!("{} {}", at.node, at.role);
            diffs.entry(diff(file).unwrap_or_else(|| hidden(file))).or_default().push(name);
        }
    }
    for (diff, nodes) in diffs {
        let _ = write!(out, "\n{}\n{diff}", nodes.join(", "));
        if !diff.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}

/// The JSON of a plan: the plan itself, each node with how its rendered conf differs.
pub fn plan_json(plan: &Plan, previews: &BTreeMap<At, Preview>) -> Value {
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    for (wave, planned) in plan.waves.iter().enumerate() {
        for (index, node) in planned.nodes.iter().enumerate() {
            let at = At { node: node.node.clone(), role: node.role.clone() };
            let Some(preview) = previews.get(&at) else { continue };
            let conf: Vec<Value> = preview
                .files
                .iter()
                .map(|file| json!({ "path": file.path, "what": file.what, "diff": diff(file) }))
                .collect();
            value["waves"][wave]["nodes"][index]["conf"] = conf.into();
            value["waves"][wave]["nodes"][index]["service_changed"] = preview.service_changed.into();
        }
    }
    value
}

fn note(canary: bool, forming: bool, node: &NodePlan) -> String {
    let mut notes = Vec::new();
    if canary {
        notes.push("canary");
    }
    if forming {
        notes.push("forming");
    }
    if node.from.is_some() && !node.healthy {
        notes.push("unhealthy");
    }
    if node.from.is_some() && node.from == node.to {
        notes.push("same version");
    }
    if node.point_of_no_return {
        notes.push("no way back");
    }
    notes.join(", ")
}

/// The difference of a rendered file; secrets came masked.
fn diff(file: &PreviewFile) -> Option<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let known = match file.what {
        Change::Added => file.new.is_some(),
        Change::Removed => file.old.is_some(),
        Change::Changed => file.old.is_some() && file.new.is_some(),
    };
    // Where nothing but a secret changed, the masked texts are the same.
    if !known || file.old == file.new {
        return None;
    }
    unified(file.path.as_str(), text(&file.old).as_bytes(), text(&file.new).as_bytes())
}

/// What can be said where no text can be shown.
fn hidden(file: &PreviewFile) -> String {
    format!("~ {}: changed; what it renders to is not shown\n", file.path)
}
