//! `windlass diff FROM TO`

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::Diff;
use super::context::Context;
use super::error::{Failure, exit};
use super::inspect::tree_failure;
use crate::bundle::{Entry, Tree};
use crate::model::ByteSize;
use crate::report::{Change, ContentChange, TreeDiff, unified};
use crate::store::{LayerReader, Store, StoreError, StoredBundle};

/// A bundle with its layers open.
struct Side {
    bundle: StoredBundle,
    layers: Vec<LayerReader>,
}

impl Side {
    fn open(context: &Context, store: &Store, reference: &str) -> Result<Self, Failure> {
        let bundle = context.bundle(store, reference)?;
        let layers =
            bundle.manifest.layers.iter().map(|layer| store.layer(layer)).collect::<Result<_, _>>()?;
        Ok(Self { bundle, layers })
    }

    fn tree(&self) -> Result<Tree<'_>, Failure> {
        Tree::new(self.layers.iter().map(|layer| layer.toc.entries.as_slice()))
            .map_err(|error| tree_failure(&self.bundle, &error))
    }

    fn name(&self) -> String {
        format!("{}:{}", self.bundle.tagged.role, self.bundle.tagged.version)
    }

    fn content(&self, (layer, entry): (usize, &Entry)) -> Result<Vec<u8>, StoreError> {
        let reader = &self.layers[layer];
        match reader.content_of(entry) {
            Some((index, _)) => reader.read_file(index),
            None => Ok(Vec::new()),
        }
    }

    fn size_of(&self, (layer, entry): (usize, &Entry)) -> u64 {
        self.layers[layer].content_of(entry).map_or(0, |(_, entry)| entry.size())
    }
}

/// Shows what differs between two bundles.
pub(super) fn run(context: &Context, args: &Diff) -> Result<u8, Failure> {
    let store = context.store()?;
    let (from, to) = (Side::open(context, &store, &args.from)?, Side::open(context, &store, &args.to)?);
    let diff = TreeDiff::new(&from.tree()?, &to.tree()?);
    let mut texts = Vec::new();
    for change in &diff.changed {
        let text = if change.what == ContentChange::Content && !args.stat {
            text_of(&from, &to, change)?
        } else {
            None
        };
        texts.push(text);
    }
    let colour = context.colour_stdout();
    context.result(|| json(&from, &to, &diff, &texts), || human(&from, &to, &diff, &texts, colour))?;
    Ok(exit::DONE)
}

fn text_of(from: &Side, to: &Side, change: &Change<'_>) -> Result<Option<String>, StoreError> {
    // What is too long to be shown need not be unpacked.
    if from.size_of(change.from).max(to.size_of(change.to)) > 1 << 20 {
        return Ok(None);
    }
    Ok(unified(change.to.1.path.as_str(), &from.content(change.from)?, &to.content(change.to)?))
}

fn json(from: &Side, to: &Side, diff: &TreeDiff<'_>, texts: &[Option<String>]) -> Value {
    let one = |side: &Side, at: (usize, &Entry)| json!({ "path": at.1.path, "type": at.1.node.kind(), "size": side.size_of(at) });
    let side = |side: &Side| {
        json!({
            "ref": side.name(),
            "digest": side.bundle.tagged.digest,
            "size": side.bundle.size(),
            "files": side.bundle.manifest.files,
            "unpacked_size": side.bundle.manifest.unpacked_size,
        })
    };
    let changed: Vec<Value> = diff
        .changed
        .iter()
        .zip(texts)
        .map(|(change, text)| {
            json!({
                "path": change.to.1.path,
                "what": change.what.word(),
                "from_size": from.size_of(change.from),
                "to_size": to.size_of(change.to),
                "diff": text,
            })
        })
        .collect();
    json!({
        "from": side(from),
        "to": side(to),
        "added": diff.added.iter().map(|at| one(to, *at)).collect::<Vec<_>>(),
        "removed": diff.removed.iter().map(|at| one(from, *at)).collect::<Vec<_>>(),
        "changed": changed,
        "unchanged": diff.unchanged,
    })
}

fn human(from: &Side, to: &Side, diff: &TreeDiff<'_>, texts: &[Option<String>], colour: bool) -> String {
    let paint =
        |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        out,
        "{} ({}) -> {} ({})",
        from.name(),
        ByteSize(from.bundle.size()),
        to.name(),
        ByteSize(to.bundle.size())
    );
    for at in &diff.removed {
        let line = format!("- {} ({})", at.1.path, ByteSize(from.size_of(*at)));
        let _ = writeln!(out, "{}", paint("31", &line));
    }
    for at in &diff.added {
        let line = format!("+ {} ({})", at.1.path, ByteSize(to.size_of(*at)));
        let _ = writeln!(out, "{}", paint("32", &line));
    }
    for change in &diff.changed {
        let sizes = match change.what {
            ContentChange::Content => {
                format!("{} -> {}", ByteSize(from.size_of(change.from)), ByteSize(to.size_of(change.to)))
            }
            other => other.word().to_owned(),
        };
        let _ = writeln!(out, "{}", paint("33", &format!("~ {} ({sizes})", change.to.1.path)));
    }
    let _ = writeln!(
        out,
        "{} added, {} removed, {} changed, {} unchanged",
        diff.added.len(),
        diff.removed.len(),
        diff.changed.len(),
        diff.unchanged
    );
    for text in texts.iter().flatten() {
        out.push('\n');
        for line in text.lines() {
            let code = match line.as_bytes().first() {
                Some(b'+') => "32",
                Some(b'-') => "31",
                Some(b'@') => "36",
                _ => "0",
            };
            let _ = writeln!(out, "{}", paint(code, line));
        }
    }
    out
}
