//! What the demo did: each command with what it cost, read from the rollouts' own journals.

use std::collections::BTreeSet;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use super::client::Seen;
use crate::model::{ByteSize, millis};
use crate::report::Table;
use crate::store::Store;

/// The demo's commands so far.
pub(super) struct Ledger {
    out: Utf8PathBuf,
    rows: Vec<Row>,
    /// Rollouts that a row tells of.
    told: BTreeSet<String>,
}

/// One command.
struct Row {
    command: String,
    exit: i32,
    took: Duration,
    nodes: Vec<NodeRow>,
    client: Option<Seen>,
}

/// What a rollout said of one node.
struct NodeRow {
    node: String,
    sent: u64,
    downtime: u64,
    tool_downtime: u64,
}

impl Ledger {
    /// An empty one for a project's folder.
    pub(super) fn new(folder: &Utf8Path) -> Self {
        Self { out: folder.join("out"), rows: Vec::new(), told: BTreeSet::new() }
    }

    /// A command that ended just now.
    pub(super) fn command(&mut self, command: String, exit: i32, took: Duration) {
        let nodes = self.finished().unwrap_or_default();
        self.rows.push(Row { command, exit, took, nodes, client: None });
    }

    /// What the client saw meanwhile.
    pub(super) fn client(&mut self, seen: Seen) {
        if let Some(row) = self.rows.last_mut() {
            row.client = Some(seen);
        }
    }

    /// The nodes of the rollout that ended since the last look, if one did.
    fn finished(&mut self) -> Option<Vec<NodeRow>> {
        let rollouts = self.out.join("rollouts").read_dir_utf8().ok()?;
        let names = rollouts.flatten().map(|entry| entry.file_name().to_owned());
        let name = names.filter(|name| !self.told.contains(name)).max()?;
        let journal = std::fs::read_to_string(self.out.join("rollouts").join(&name).join("journal.jsonl"));
        self.told.insert(name);
        let last: Value = serde_json::from_str(journal.ok()?.lines().last()?).ok()?;
        let node = |node: &Value| NodeRow {
            node: node["node"].as_str().unwrap_or_default().to_owned(),
            sent: node["bytes_sent"].as_u64().unwrap_or(0),
            downtime: node["downtime_ms"].as_u64().unwrap_or(0),
            tool_downtime: node["tool_downtime_ms"].as_u64().unwrap_or(0),
        };
        Some(last["nodes"].as_array()?.iter().map(node).collect())
    }

    fn bundles(&self) -> Vec<(String, String, u64)> {
        let store = Store::open(&self.out, &crate::model::Cancel::new()).ok();
        let index = store.as_ref().and_then(|store| store.index().ok());
        let (Some(store), Some(index)) = (store, index) else { return Vec::new() };
        let row = |tagged: &crate::store::Tagged| {
            let size = store.load(tagged.clone()).map_or(0, |bundle| bundle.size());
            (format!("{}:{}", tagged.role, tagged.version), tagged.digest.to_string(), size)
        };
        index.bundles().map(|tagged| row(&tagged)).collect()
    }

    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        let node = |node: &NodeRow| {
            json!({
                "node": node.node, "bytes_sent": node.sent,
                "downtime_ms": node.downtime, "tool_downtime_ms": node.tool_downtime,
            })
        };
        let row = |row: &Row| {
            json!({
                "command": row.command,
                "exit": row.exit,
                "duration_ms": millis(row.took),
                "nodes": row.nodes.iter().map(node).collect::<Vec<_>>(),
                "client": row.client.map(|seen| json!({
                    "requests": seen.requests, "failed": seen.failed, "retried": seen.retried,
                })),
            })
        };
        let bundle = |(name, digest, size): &(String, String, u64)| json!({ "ref": name, "digest": digest, "size": size });
        json!({
            "steps": self.rows.iter().map(row).collect::<Vec<_>>(),
            "bundles": self.bundles().iter().map(bundle).collect::<Vec<_>>(),
        })
    }

    /// As a person reads it.
    pub(super) fn text(&self) -> String {
        let mut bundles = Table::new(&["BUNDLE", "SIZE", "DIGEST"]).right(&[1]);
        for (name, digest, size) in self.bundles() {
            bundles.row([name, ByteSize(size).to_string(), digest]);
        }
        let heads = ["COMMAND", "EXIT", "SECONDS", "SENT", "DOWNTIME", "OF THE TOOL", "CLIENT"];
        let mut steps = Table::new(&heads).right(&[1, 2, 3]);
        for row in &self.rows {
            let each = |value: fn(&NodeRow) -> u64| -> String {
                let all: Vec<_> = row.nodes.iter().map(|node| value(node).to_string()).collect();
                if all.is_empty() { String::new() } else { format!("{} ms", all.join(" ")) }
            };
            let sent: u64 = row.nodes.iter().map(|node| node.sent).sum();
            steps.row([
                row.command.clone(),
                row.exit.to_string(),
                format!("{:.1}", row.took.as_secs_f64()),
                if row.nodes.is_empty() { String::new() } else { ByteSize(sent).to_string() },
                each(|node| node.downtime),
                each(|node| node.tool_downtime),
                row.client
                    .map(|seen| format!("{} failed of {}", seen.failed, seen.requests))
                    .unwrap_or_default(),
            ]);
        }
        format!("{bundles}\n{steps}")
    }
}
