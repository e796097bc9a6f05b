//! `windlass inspect REF`

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::Inspect;
use super::context::Context;
use super::error::{Failure, exit};
use super::rows;
use crate::bundle::{Entry, Layer, Node, Record, Toc, Tree, TreeError};
use crate::model::ByteSize;
use crate::report::Table;
use crate::store::{Store, StoreError, StoredBundle};

/// Everything there is to say about a bundle.
struct Inspected {
    bundle: StoredBundle,
    record: Record,
    layers: Vec<LayerView>,
}

struct LayerView {
    layer: Layer,
    toc: Toc,
    /// What it was made from.
    source: String,
    /// Other bundles that have it.
    shared_with: Vec<String>,
}

/// Shows what a bundle holds and what it shares with others.
pub(super) fn run(context: &Context, args: &Inspect) -> Result<u8, Failure> {
    let store = context.store()?;
    let bundle = context.bundle(&store, &args.reference)?;
    let inspected = inspect(&store, bundle)?;
    let entries: Vec<&[Entry]> = inspected.layers.iter().map(|view| view.toc.entries.as_slice()).collect();
    let tree = Tree::new(entries).map_err(|error| tree_failure(&inspected.bundle, &error))?;
    context.result(|| json(&inspected, &tree), || text(&inspected, &tree, args.files))?;
    Ok(exit::DONE)
}

pub(super) fn tree_failure(bundle: &StoredBundle, error: &TreeError) -> Failure {
    let tagged = &bundle.tagged;
    let message = format!("the layers of {}:{} do not fit together: {error}", tagged.role, tagged.version);
    Failure::new(exit::FAILED, "store", message).help("`windlass verify` names everything that is wrong")
}

fn inspect(store: &Store, bundle: StoredBundle) -> Result<Inspected, StoreError> {
    let record = store.record(&bundle)?;
    let mut others = Vec::new();
    for tagged in store.index()?.bundles().filter(|tagged| tagged.digest != bundle.tagged.digest) {
        others.push(store.load(tagged)?);
    }
    let count = bundle.manifest.layers.len();
    let view = |(index, layer): (usize, &Layer)| {
        let sharing =
            others.iter().filter(|other| other.manifest.layers.iter().any(|l| l.digest == layer.digest));
        Ok(LayerView {
            layer: layer.clone(),
            toc: store.layer(layer)?.toc,
            source: source(&record, index, count),
            shared_with: sharing.map(|o| format!("{}:{}", o.tagged.role, o.tagged.version)).collect(),
        })
    };
    let layers = bundle.manifest.layers.iter().enumerate().map(view).collect::<Result<_, StoreError>>()?;
    Ok(Inspected { bundle, record, layers })
}

fn source(record: &Record, index: usize, count: usize) -> String {
    match record.artifacts.iter().find(|artifact| artifact.layer == index) {
        Some(artifact) => format!("install/{}", artifact.name),
        None if index + 1 == count => "record".to_owned(),
        None => "conf".to_owned(),
    }
}

fn json(inspected: &Inspected, tree: &Tree<'_>) -> Value {
    let mut out = rows::stored(&inspected.bundle);
    out["config"] = json!(inspected.bundle.manifest.config);
    out["layers"] = inspected
        .layers
        .iter()
        .map(|view| {
            json!({
                "digest": view.layer.digest,
                "size": view.layer.size,
                "cached": true,
                "diff_id": view.layer.diff_id,
                "source": view.source,
                "files": view.toc.files(),
                "unpacked_size": view.toc.unpacked_size(),
                "frames": view.toc.frames.len(),
                "shared_with": view.shared_with,
            })
        })
        .collect();
    out["artifacts"] = json!(inspected.record.artifacts);
    out["record"] = json!(inspected.record);
    out["entries"] = tree.entries().map(|(layer, entry)| entry_json(layer, entry)).collect();
    out
}

fn entry_json(layer: usize, entry: &Entry) -> Value {
    let mut out = json!({ "path": entry.path, "type": entry.node.kind(), "layer": layer });
    match &entry.node {
        Node::Directory => out["mode"] = json!("0755"),
        Node::File { mode, size, digest } => {
            out["mode"] = json!(format!("{mode:04o}"));
            out["size"] = json!(size);
            out["digest"] = json!(digest);
        }
        Node::Symlink { target } => out["target"] = json!(target),
        Node::HardLink { target } => out["target"] = json!(target),
    }
    out
}

fn text(inspected: &Inspected, tree: &Tree<'_>, files: bool) -> String {
    let (bundle, record) = (&inspected.bundle, &inspected.record);
    let tagged = &bundle.tagged;
    let mut out = format!(
        "{}:{}\n  digest    {}\n  size      {}, {} files, {} unpacked\n",
        tagged.role,
        tagged.version,
        tagged.digest,
        ByteSize(bundle.size()),
        bundle.manifest.files,
        ByteSize(bundle.manifest.unpacked_size),
    );
    if let Some(service) = &record.service {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "  service   {}: {}", service.kind.name(), service.start.join(" "));
    }
    for (what, list) in [
        ("persist", record.persist.iter().map(|persist| persist.name.clone()).collect::<Vec<_>>()),
        ("scratch", record.scratch.iter().map(ToString::to_string).collect()),
        ("rendered", record.templates.iter().map(ToString::to_string).collect()),
    ] {
        if !list.is_empty() {
            let _ = writeln!(out, "  {what:9} {}", list.join(", "));
        }
    }
    let mut layers = Table::new(&["LAYER", "DIGEST", "SIZE", "FILES", "UNPACKED", "FROM", "SHARED WITH"])
        .right(&[2, 3, 4]);
    for (index, view) in inspected.layers.iter().enumerate() {
        layers.row([
            index.to_string(),
            view.layer.digest.short(),
            ByteSize(view.layer.size).to_string(),
            view.toc.files().to_string(),
            ByteSize(view.toc.unpacked_size()).to_string(),
            view.source.clone(),
            view.shared_with.join(" "),
        ]);
    }
    let _ = write!(out, "\n{layers}");
    let mut artifacts = Table::new(&["ARTIFACT", "SIZE", "SHA256"]).right(&[1]);
    for artifact in &record.artifacts {
        artifacts.row([
            artifact.name.to_string(),
            ByteSize(artifact.size).to_string(),
            artifact.digest.hex(),
        ]);
    }
    if !record.artifacts.is_empty() {
        let _ = write!(out, "\n{artifacts}");
    }
    if files {
        let _ = write!(out, "\n{}", file_table(tree));
    }
    out
}

fn file_table(tree: &Tree<'_>) -> Table {
    let mut table = Table::new(&["MODE", "SIZE", "LAYER", "DIGEST", "PATH"]).right(&[1, 2]);
    for (layer, entry) in tree.entries() {
        let (mode, size, digest, path) = match &entry.node {
            Node::Directory => ("0755".to_owned(), "-".to_owned(), String::new(), format!("{}/", entry.path)),
            Node::File { mode, size, digest } => {
                (format!("{mode:04o}"), size.to_string(), digest.short(), entry.path.to_string())
            }
            Node::Symlink { target } => {
                ("-".to_owned(), "-".to_owned(), String::new(), format!("{} -> {target}", entry.path))
            }
            Node::HardLink { target } => {
                ("-".to_owned(), "-".to_owned(), String::new(), format!("{} = {target}", entry.path))
            }
        };
        table.row([mode, size, layer.to_string(), digest, path]);
    }
    table
}
