//! What `windlass node` tells a person.

use crate::agent::{Drift, History, NodeStatus, ReleaseName, RolledBack};
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
    let mut notes = String::new();
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
            notes += &format!("{name}: the process runs from {runs}\n");
        }
        if let Some(waiting) = &role.unconfirmed {
            let from = shown(waiting.from.as_ref());
            notes += &match waiting.left_ms {
                Some(ms) => format!(
                    "{name}: not confirmed; goes back from here to {from} in {} s\n",
                    ms.div_ceil(1000)
                ),
                None => format!("{name}: not confirmed; nothing goes back by itself\n"),
            };
        }
        for bad in &role.bad {
            notes += &format!("{name}: {} is bad: {}\n", bad.release, bad.why);
        }
        for note in [&role.interrupted, &role.problem].into_iter().flatten() {
            notes += &format!("{name}: {note}\n");
        }
    }
    if let Some(owner) = &status.lock {
        notes += &format!(
            "locked by {} on {} since {} (process {})\n",
            owner.who, owner.host, owner.since, owner.pid
        );
    }
    if status.roles.is_empty() {
        format!("no role was staged here\n{notes}")
    } else {
        format!("{table}{notes}")
    }
}

pub(super) fn drift(drift: &Drift) -> String {
    let mut table = Table::new(&["PATH", "WHAT"]);
    for one in &drift.drift {
        table.row([one.path.clone(), word(&one.what)]);
    }
    table.to_string()
}

pub(super) fn history(history: &History) -> String {
    let mut text = String::new();
    for entry in &history.entries {
        let record = serde_json::to_value(&entry.record).unwrap_or_default();
        let fields = record.as_object().into_iter().flatten().filter(|(key, _)| *key != "record");
        let fields: Vec<String> = fields
            .map(|(key, value)| {
                format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        let kind = record["record"].as_str().unwrap_or_default();
        text += &format!("{} {} {kind} {}\n", entry.seq, entry.time, fields.join(" "));
    }
    text
}

pub(super) fn rolled_back(done: &RolledBack) -> String {
    let (from, to) = (shown(done.from.as_ref()), shown(done.to.as_ref()));
    let mut text =
        if done.already { format!("{to} is current\n") } else { format!("went back from {from} to {to}\n") };
    if let Some(pid) = done.pid {
        text += &format!("its service runs as process {pid}\n");
    }
    if let Some(error) = &done.service_error {
        text += &format!("its service could not be started: {error}\n");
    }
    text
}
