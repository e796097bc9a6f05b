//! How much a bundle differs from what a node has: files, and bytes that have to travel.

use std::collections::BTreeMap;

use crate::bundle::{Node, RECORD_PATH, Tree};
use crate::model::Digest;
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    File { mode: u16, digest: Digest, packed: u64 },
    Link(String),
}

impl Contents {
    /// Those of a bundle with these layers.
    pub(super) fn of(bundle: &StoredBundle, layers: &[LayerReader]) -> Self {
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
        }
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
