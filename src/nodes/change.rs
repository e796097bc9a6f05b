//! How much a bundle differs from what a node has: files, and bytes that have to travel.

use std::collections::BTreeMap;

use crate::bundle::{Node, PersistDir, RECORD_PATH, Record, Tree};
use crate::model::{BundlePath, Digest};
use crate::rollout::Change;
use crate::store::{LayerReader, StoredBundle};

/// A bundle's files, by path, and what travels besides them.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    files: BTreeMap<String, Content>,
    /// Bytes of the tables of contents, by layer.
    tables: BTreeMap<Digest, u64>,
    /// Bytes of manifest and config.
    head: u64,
    /// What its artifacts made, and where it keeps what it writes.
    base: Option<Base>,
}

/// What of a bundle a process that runs never reads again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Base {
    layers: Vec<Digest>,
    persist: Vec<PersistDir>,
    scratch: Vec<BundlePath>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    File { mode: u16, digest: Digest, packed: u64 },
    Link(String),
}

impl Contents {
    /// Those of a bundle with these layers and this record.
    pub(super) fn of(bundle: &StoredBundle, layers: &[LayerReader], record: Option<&Record>) -> Self {
        // Trees of bundles in the store were checked when they were built.
        let Ok(tree) = Tree::new(layers.iter().map(|layer| layer.toc.entries.as_slice())) else {
            return Self::default();
        };
        let packed = |layer: usize, size: u64| {
            let toc = &layers[layer].toc;
            let (frames, whole) = (u128::from(toc.frames_size()), u128::from(toc.tar_size().max(1)));
            u64::try_from(u128::from(size) * frames / whole).unwrap_or(u64::MAX)
        };
        let content = |(layer, entry)| match &tree.content_of((layer, entry)).node {
            Node::File { mode, size, digest } => {
                Some(Content::File { mode: *mode, digest: *digest, packed: packed(layer, *size) })
            }
            Node::Symlink { target } => Some(Content::Link(target.clone())),
            Node::Directory | Node::HardLink { .. } => None,
        };
        let paths = tree.entries().filter_map(|at| Some((at.1.path.to_string(), content(at)?)));
        let tables = bundle.manifest.layers.iter().map(|layer| (layer.digest, layer.place.size));
        Self {
            files: paths.collect(),
            tables: tables.collect(),
            head: bundle.tagged.size + bundle.manifest.config_size,
            base: record.map(|record| {
                let made = |layer: usize| record.artifacts.iter().any(|artifact| artifact.layer == layer);
                let layers = bundle.manifest.layers.iter().enumerate();
                Base {
                    layers: layers.filter(|(at, _)| made(*at)).map(|(_, layer)| layer.digest).collect(),
                    persist: record.persist.clone(),
                    scratch: record.scratch.clone(),
                }
            }),
        }
    }

    /// Whether it differs from `from` by conf alone: the artifacts are the same, and no program has changed.
    pub(super) fn is_other_conf(&self, from: &Self) -> bool {
        if self.base.is_none() || self.base != from.base {
            return false;
        }
        let paths: std::collections::BTreeSet<&String> =
            self.shown().chain(from.shown()).map(|(path, _)| path).collect();
        let program = |content: Option<&Content>| {
            content.is_some_and(|one| match one {
                Content::File { mode, .. } => mode & 0o111 != 0,
                Content::Link(_) => true,
            })
        };
        let harmless = |path: &&String| {
            let (new, old) = (self.files.get(*path), from.files.get(*path));
            let same = matches!((new, old), (Some(new), Some(old)) if new.is(old));
            same || !(program(new) || program(old))
        };
        paths.iter().all(harmless)
    }

    /// Those that are not windlass's own.
    fn shown(&self) -> impl Iterator<Item = (&String, &Content)> {
        self.files.iter().filter(|(path, _)| path.as_str() != RECORD_PATH)
    }

    /// What changes from `from` to this, on a node that has the contents of `known`.
    pub(super) fn change(&self, from: &Self, known: &[&Self]) -> Change {
        let mut change = Change::default();
        for (path, content) in self.shown() {
            match from.files.get(path) {
                None => change.files_added += 1,
                Some(old) if !old.is(content) => change.files_changed += 1,
                Some(_) => {}
            }
        }
        change.files_removed =
            from.shown().filter(|(path, _)| !self.files.contains_key(*path)).count() as u64;
        let there: std::collections::BTreeSet<Digest> =
            known.iter().flat_map(|known| known.files.values().filter_map(Content::digest)).collect();
        let mut wanted: BTreeMap<Digest, u64> = BTreeMap::new();
        for content in self.files.values() {
            if let Content::File { digest, packed, .. } = content
                && !there.contains(digest)
            {
                wanted.insert(*digest, *packed);
            }
        }
        let tables: u64 = self
            .tables
            .iter()
            .filter(|(layer, _)| !known.iter().any(|known| known.tables.contains_key(layer)))
            .map(|(_, size)| size)
            .sum();
        change.bytes_to_send = wanted.values().sum::<u64>() + tables + self.head;
        change
    }
}

impl Content {
    fn digest(&self) -> Option<Digest> {
        match self {
            Self::File { digest, .. } => Some(*digest),
            Self::Link(_) => None,
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { mode, digest, .. }, Self::File { mode: other_mode, digest: other, .. }) => {
                mode == other_mode && digest == other
            }
            (Self::Link(target), Self::Link(other)) => target == other,
            (Self::File { .. }, Self::Link(_)) | (Self::Link(_), Self::File { .. }) => false,
        }
    }
}
