//! What `windlass node` tells a person.

use serde_json::Value;

use crate::agent::{Drift, Entry, Healed, History, NodeStatus, ReleaseName, RolledBack};
use crate::report::Table;

fn shown(release: Option<&ReleaseName>) -> String {
    release.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// One word of serde's for a value that is written as a string.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) fn status(status: &NodeStatus) -> String {
    let mut table = Table::new(&["ROLE", "CURRENT", "PROCESS", "PRIOR", "STAGED", "BAD"]);
    let mut notes: Vec<String> = Vec::new();
    for role in &status.roles {
        let staged: Vec<String> = role.staged.iter().map(|one| one.release.to_string()).collect();
        let bad: Vec<String> = role.bad.iter().map(|one| one.release.to_string()).collect();
        table.row([
            role.role.to_string(),
            shown(role.release.as_ref()),
            word(&role.process),
            shown(role.prior.as_ref()),
            staged.join(" "),
            bad.join(" "),
        ]);
        let name = &role.role;
        if let Some(runs) =
            role.runs.as_ref().filter(|runs| role.pid.is_some() && Some(*runs) != role.release.as_ref())
        {
            notes.push(format!("{name}: the process runs from {runs}"));
        }
        if let Some(waiting) = &role.unconfirmed {
            let from = shown(waiting.from.as_ref());
            notes.push(match waiting.left_ms {
                Some(ms) => {
                    format!("{name}: not confirmed; goes back from here to {from} in {} s", ms.div_ceil(1000))
                }
                None => format!("{name}: not confirmed; nothing goes back by itself"),
            });
        }
        for bad in &role.bad {
            notes.push(format!("{name}: {} is bad: {}", bad.release, bad.why));
        }
        if let Some(what) = &role.interrupted {
            notes.push(format!("{name}: {what}, {}", if role.busy { "under way" } else { "interrupted" }));
        }
        if let Some(why) = &role.gave_up {
            notes.push(format!("{name}: left as it is: {why}"));
        }
        if let Some(problem) = &role.problem {
            notes.push(format!("{name}: {problem}"));
        }
    }
    if let Some(owner) = &status.lock {
        notes.push(format!(
            "locked by {} on {} since {} (process {})",
            owner.who, owner.host, owner.since, owner.pid
        ));
    }
    let first =
        if status.roles.is_empty() { "no role was staged here\n".to_owned() } else { table.to_string() };
    first + &lines(&notes)
}

pub(super) fn drift(drift: &Drift) -> String {
    let mut table = Table::new(&["PATH", "WHAT"]);
    for one in &drift.drift {
        table.row([one.path.clone(), word(&one.what)]);
    }
    table.to_string()
}

pub(super) fn healed(done: &Healed) -> String {
    let (mut table, mut notes) = (Table::new(&["PATH", "WHAT", "NOW"]), Vec::new());
    for one in &done.healed {
        table.row([one.path.clone(), word(&one.what), "healed".to_owned()]);
    }
    for path in &done.extra {
        table.row([path.clone(), "extra".to_owned(), "left".to_owned()]);
    }
    for one in &done.left {
        table.row([one.path.clone(), word(&one.what), "not healed".to_owned()]);
        notes.push(format!("{}: {}", one.path, one.why));
    }
    if done.healed.is_empty() && done.extra.is_empty() && done.left.is_empty() {
        return format!("{} is as it was staged\n", done.release);
    }
    table.to_string() + &lines(&notes)
}

pub(super) fn history(history: &History) -> String {
    let line = |entry: &Entry| {
        let record = serde_json::to_value(&entry.record).unwrap_or_default();
        let fields = record.as_object().into_iter().flatten().filter(|(key, _)| *key != "record");
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let fields: Vec<String> = fields.map(|(key, value)| format!("{key}={}", text(value))).collect();
        let kind = record["record"].as_str().unwrap_or_default();
        format!("{} {} {kind} {}", entry.seq, entry.time, fields.join(" "))
    };
    lines(&history.entries.iter().map(line).collect::<Vec<_>>())
}

pub(super) fn rolled_back(done: &RolledBack) -> String {
    let (from, to) = (shown(done.from.as_ref()), shown(done.to.as_ref()));
    let mut text = vec![if done.already {
        format!("{to} is current")
    } else {
        format!("went back from {from} to {to}")
    }];
    text.extend(done.pid.map(|pid| format!("its service runs as process {pid}")));
    text.extend(
        done.service_error.as_ref().map(|error| format!("its service could not be started: {error}")),
    );
    lines(&text)
}

fn lines(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}
