//! A bundle of the store, opened once for all nodes that get it.
//!
//! Bundles of one role share most of their layers, and reading a layer's table is most of opening a bundle: each layer
//! is opened once, whichever bundles have it.

use std::collections::HashMap;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use crate::agent::ObjectId;
use crate::bundle::manifest::{Layer, MAX_MANIFEST};
use crate::bundle::{Entry, Manifest, Node};
use crate::fs::IoResultExt as _;
use crate::model::{BundlePath, Digest, Reference, Role};
use crate::store::{LayerReader, Store, StoreError};

/// A bundle of the store, opened.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub digest: Digest,
    pub(super) role: Role,
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) described: Manifest,
    pub(super) layers: Vec<Arc<LayerReader>>,
}

/// Layers that are open, by the digests of their blobs and of their tables.
#[derive(Debug, Default)]
pub struct Layers(Mutex<HashMap<(Digest, Digest), Arc<LayerReader>>>);

impl Layers {
    fn open(&self, store: &Store, layer: &Layer) -> Result<Arc<LayerReader>, StoreError> {
        let key = (layer.digest, layer.place.digest);
        let open = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = open().get(&key) {
            return Ok(Arc::clone(reader));
        }
        // Who asks for the same one meanwhile opens it too; one of the two stays.
        let reader = Arc::new(store.layer(layer)?);
        Ok(Arc::clone(open().entry(key).or_insert(reader)))
    }
}

/// A file's place in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) layer: usize,
    pub(super) entry: usize,
}

/// Bytes of a layer's table of contents, as they are in its blob.
pub(super) fn read_table(store: &Store, layer: &Layer) -> Result<Vec<u8>, StoreError> {
    let mut table = vec![0; usize::try_from(layer.place.size).unwrap_or(0)];
    let blob = store.open_blob(&layer.digest)?;
    blob.read_exact_at(&mut table, layer.place.offset).at("read", &store.blob_path(&layer.digest))?;
    Ok(table)
}

impl Source {
    /// Opens a bundle and its layers' tables.
    pub fn open(store: &Store, digest: Digest, layers: &Layers) -> Result<Self, StoreError> {
        let bundle = store.bundle(&Reference::Digest(digest))?;
        let layers = bundle.manifest.layers.iter().map(|layer| layers.open(store, layer));
        Ok(Self {
            digest,
            role: bundle.tagged.role,
            manifest: store.read_blob(&digest, MAX_MANIFEST)?,
            config: store.read_blob(&bundle.manifest.config, MAX_MANIFEST)?,
            layers: layers.collect::<Result<_, _>>()?,
            described: bundle.manifest,
        })
    }

    /// The files that have a content of their own, with the object that each becomes.
    pub(super) fn files(&self) -> impl Iterator<Item = (At, &Entry, ObjectId)> {
        self.layers.iter().enumerate().flat_map(|(layer, reader)| {
            reader.toc.entries.iter().enumerate().filter_map(move |(entry, file)| match &file.node {
                Node::File { mode, size, digest } if *size > 0 => {
                    let id = ObjectId { digest: *digest, executable: mode & 0o111 != 0 };
                    Some((At { layer, entry }, file, id))
                }
                Node::File { .. } | Node::Directory | Node::Symlink { .. } | Node::HardLink { .. } => None,
            })
        })
    }

    /// The uppermost of its files with a content of its own at a path.
    pub(super) fn find(&self, path: &BundlePath) -> Option<At> {
        let at =
            |(layer, reader): (usize, &Arc<LayerReader>)| Some(At { layer, entry: reader.toc.find(path)? });
        let mut found = self.layers.iter().enumerate().rev().filter_map(at);
        found.find(|at| matches!(self.entry(*at).node, Node::File { size: 1.., .. }))
    }

    pub(super) fn entry(&self, at: At) -> &Entry {
        &self.layers[at.layer].toc.entries[at.entry]
    }

    /// Which frames hold a file, as numbers of its layer's.
    pub(super) fn frames_of(&self, at: At) -> std::ops::Range<usize> {
        let toc = &self.layers[at.layer].toc;
        let (offset, size) = (toc.offsets[at.entry], toc.entries[at.entry].size());
        let start = toc.frames.partition_point(|frame| frame.tar_offset + frame.tar_size <= offset);
        let end = toc.frames.partition_point(|frame| frame.tar_offset < offset + size);
        start..end.max(start)
    }

    /// A file's share of its frames' bytes.
    pub(super) fn packed_share(&self, at: At) -> u64 {
        let toc = &self.layers[at.layer].toc;
        let size = self.entry(at).size();
        let frames = &toc.frames[self.frames_of(at)];
        let (packed, raw) =
            frames.iter().fold((0, 0), |(packed, raw), frame| (packed + frame.size, raw + frame.tar_size));
        if raw == 0 {
            size
        } else {
            u64::try_from(u128::from(packed) * u128::from(size) / u128::from(raw)).unwrap_or(size)
        }
    }
}
