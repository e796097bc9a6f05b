//! `[rollout]` of cluster.toml.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::rollout::{By, MaxUnavailable, OnFailure, PREDICATES, Rollout};
use crate::model::{Role, Span};
use crate::recipe::{Fields, Place, Problems, Table, TreeNode, Value};

const KEYS: &[&str] = &[
    "by",
    "order",
    "max_unavailable",
    "canary",
    "pause_after_canary",
    "gate_timeout",
    "min_healthy",
    "progress_deadline",
    "max_failures",
    "on_failure",
    "confirm_within",
    "keep",
    "predicates_off",
];

const MANY: i128 = 100_000;

/// Reads the table; `roles` are those that some node runs.
pub(super) fn rollout(table: &Table, roles: &BTreeSet<Role>, problems: &Problems) -> Rollout {
    let fields = Fields::new(table, "[rollout]", KEYS, problems);
    let usual = Rollout::default();
    let whole = |key: &str, min: i128, usual: u32| {
        fields.integer(key, min, MANY).and_then(|number| u32::try_from(number).ok()).unwrap_or(usual)
    };
    let time = |key: &str, usual: Span| span(&fields, key, problems).unwrap_or(usual);
    let rollout = Rollout {
        by: choice(&fields, "by", &[("role", By::Role), ("node", By::Node)], problems).unwrap_or(usual.by),
        order: order(&fields, roles, problems),
        max_unavailable: fields
            .node("max_unavailable")
            .and_then(|node| max_unavailable(node, problems))
            .unwrap_or(usual.max_unavailable),
        canary: whole("canary", 0, usual.canary),
        pause_after_canary: fields.boolean("pause_after_canary").unwrap_or(usual.pause_after_canary),
        gate_timeout: time("gate_timeout", usual.gate_timeout),
        min_healthy: time("min_healthy", usual.min_healthy),
        progress_deadline: time("progress_deadline", usual.progress_deadline),
        max_failures: whole("max_failures", 0, usual.max_failures),
        on_failure: choice(
            &fields,
            "on_failure",
            &[
                ("rollback-node", OnFailure::RollbackNode),
                ("rollback-all", OnFailure::RollbackAll),
                ("halt", OnFailure::Halt),
            ],
            problems,
        )
        .unwrap_or(usual.on_failure),
        confirm_within: match span(&fields, "confirm_within", problems) {
            Some(span) if span.0.is_zero() => None,
            given => given.or(usual.confirm_within),
        },
        keep: whole("keep", 1, usual.keep),
        predicates_off: fields
            .array("predicates_off")
            .iter()
            .filter_map(|node| predicate(node, problems))
            .collect(),
    };
    check_times(&fields, &rollout, problems);
    rollout
}

/// The name of a predicate.
fn predicate(node: &TreeNode, problems: &Problems) -> Option<String> {
    let text = node.string("predicates_off", problems)?;
    if !PREDICATES.contains(&text) {
        let problem = node.place.problem(format!("there is no predicate `{text}`"));
        problems.add(problem.names(text, "predicates", PREDICATES.iter().copied()));
    }
    Some(text.to_owned())
}

/// A gate that must hold for longer than it may take can never hold.
fn check_times(fields: &Fields<'_>, rollout: &Rollout, problems: &Problems) {
    for (key, limit) in
        [("gate_timeout", rollout.gate_timeout), ("progress_deadline", rollout.progress_deadline)]
    {
        let written = fields.node(key).or_else(|| fields.node("min_healthy"));
        if limit <= rollout.min_healthy
            && let Some(node) = written
        {
            let text = format!(
                "`{key}` is {limit}, and a gate must hold for {} (`min_healthy`) within it",
                rollout.min_healthy
            );
            problems.add(node.place.problem(text));
        }
    }
}

fn order(fields: &Fields<'_>, roles: &BTreeSet<Role>, problems: &Problems) -> Vec<Role> {
    let mut order: Vec<Role> = Vec::new();
    for node in fields.array("order") {
        let Some(role) = role(node, "order", problems) else { continue };
        if order.contains(&role) {
            problems.add(node.place.problem(format!("role `{role}` is in the order twice")));
        } else if roles.contains(&role) {
            order.push(role);
        } else {
            let problem = node.place.problem(format!("no node runs role `{role}`"));
            problems.add(problem.names(role.as_str(), "roles", roles.iter().map(Role::as_str)));
        }
    }
    order
}

fn max_unavailable(node: &TreeNode, problems: &Problems) -> Option<MaxUnavailable> {
    match &node.value {
        Value::Integer(_) => {
            let count = node.integer("max_unavailable", 1, MANY, problems)?;
            u32::try_from(count).ok().map(MaxUnavailable::Count)
        }
        Value::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
            let percent = percent.filter(|percent| (1..=100).contains(percent)).map(MaxUnavailable::Percent);
            if percent.is_none() {
                let problem = node.place.problem(format!("`max_unavailable` cannot be `{text}`"));
                problems.add(problem.help("write a number from 1, or \"1%\" to \"100%\""));
            }
            percent
        }
        _ => node.wrong("max_unavailable", "a number from 1, or \"1%\" to \"100%\"", problems),
    }
}

fn span(fields: &Fields<'_>, key: &str, problems: &Problems) -> Option<Span> {
    let (text, node) = fields.string(key)?;
    problems.accept(&node.place, text.parse())
}

/// A role's name.
pub(super) fn role(node: &TreeNode, key: &str, problems: &Problems) -> Option<Role> {
    problems.accept(&node.place, node.string(key, problems)?.parse())
}

/// One of a few words.
pub(super) fn choice<T: Copy + Debug>(
    fields: &Fields<'_>,
    key: &str,
    words: &[(&str, T)],
    problems: &Problems,
) -> Option<T> {
    let (text, node) = fields.string(key)?;
    word(text, &node.place, key, words, problems)
}

/// What the word `text` stands for.
pub(super) fn word<T: Copy>(
    text: &str,
    place: &Place,
    what: &str,
    words: &[(&str, T)],
    problems: &Problems,
) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let problem = place.problem(format!("`{what}` cannot be `{text}`"));
        problems.add(problem.names(text, "values", words.iter().map(|(word, _)| *word)));
    }
    found.map(|(_, value)| *value)
}
