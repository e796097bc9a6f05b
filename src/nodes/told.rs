//! What a bundle in the store tells checks: its record, its templates, and the conf files that nobody renders.

use std::collections::{BTreeMap, BTreeSet};

use super::target::TargetError;
use crate::bundle::{Node, Record};
use crate::check::ConfFile;
use crate::model::{BundlePath, Digest, Reference, Version};
use crate::store::{LayerReader, Store};

/// Files that say something, by name.
const NAMES: [&str; 8] = [
    "elasticsearch.yml",
    "opensearch.yml",
    "jvm.options",
    "server.properties",
    "zoo.cfg",
    "myid",
    "release",
    "plugin-descriptor.properties",
];

/// The most bytes of such a file.
const MAX_FILE: u64 = 1 << 20;

/// A bundle, as far as checks care.
#[derive(Debug)]
pub(super) struct Told {
    pub version: Version,
    pub digest: Digest,
    pub record: Record,
    pub templates: BTreeMap<BundlePath, String>,
    /// Those that are not rendered.
    pub files: Vec<ConfFile>,
    /// Its contents and their sizes.
    pub contents: BTreeMap<Digest, u64>,
    pub directories: u64,
}

impl Told {
    pub(super) fn read(store: &Store, reference: &Reference) -> Result<Self, TargetError> {
        let bundle = store.bundle(reference)?;
        let record = store.record(&bundle)?;
        let layers =
            bundle.manifest.layers.iter().map(|layer| store.layer(layer)).collect::<Result<Vec<_>, _>>()?;
        let mut told = Self {
            version: bundle.tagged.version.clone(),
            digest: bundle.tagged.digest,
            templates: BTreeMap::new(),
            files: Vec::new(),
            contents: BTreeMap::new(),
            directories: 0,
            record,
        };
        let templates: BTreeSet<&BundlePath> = told.record.templates.iter().collect();
        let mut seen: BTreeSet<BundlePath> = BTreeSet::new();
        // A later layer covers an earlier one.
        for layer in layers.iter().rev() {
            for entry in &layer.toc.entries {
                match &entry.node {
                    Node::Directory => told.directories += 1,
                    Node::File { digest, size, .. } => {
                        told.contents.insert(*digest, *size);
                    }
                    Node::HardLink { .. } | Node::Symlink { .. } => {}
                }
                let is_template = templates.contains(&entry.path);
                if !is_template && !says_something(&entry.path) || !seen.insert(entry.path.clone()) {
                    continue;
                }
                let Some(text) = text(layer, &entry.path, is_template)? else { continue };
                if is_template {
                    told.templates.insert(entry.path.clone(), text);
                } else {
                    told.files.push(ConfFile { path: entry.path.to_string(), text, rendered: false });
                }
            }
        }
        Ok(told)
    }
}

fn says_something(path: &BundlePath) -> bool {
    let path = path.as_str();
    let name = path.rsplit('/').next().unwrap_or(path);
    NAMES.contains(&name) || path.contains("/jvm.options.d/")
}

fn text(layer: &LayerReader, path: &BundlePath, whole: bool) -> Result<Option<String>, TargetError> {
    let Some(at) = layer.toc.find(path) else { return Ok(None) };
    let Some((index, entry)) = layer.content_of(&layer.toc.entries[at]) else { return Ok(None) };
    if !whole && entry.size() > MAX_FILE {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&layer.read_file(index)?).into_owned()))
}
