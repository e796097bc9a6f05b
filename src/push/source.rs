//! A bundle of the store, opened once for all nodes that get it.

use std::os::unix::fs::FileExt as _;

use crate::agent::ObjectId;
use crate::bundle::manifest::MAX_MANIFEST;
use crate::bundle::{Entry, Manifest, Node};
use crate::fs::IoResultExt as _;
use crate::model::{Digest, Reference, Role};
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
    pub(super) layers: Vec<LayerReader>,
}

/// A file's place in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) layer: usize,
    pub(super) entry: usize,
}

impl Source {
    /// Opens a bundle and its layers' tables.
    pub fn open(store: &Store, digest: Digest) -> Result<Self, StoreError> {
        let bundle = store.bundle(&Reference::Digest(digest))?;
        let layers = bundle.manifest.layers.iter().map(|layer| store.layer(layer));
        Ok(Self {
            digest,
            role: bundle.tagged.role,
            manifest: store.read_blob(&digest, MAX_MANIFEST)?,
            config: store.read_blob(&bundle.manifest.config, MAX_MANIFEST)?,
            layers: layers.collect::<Result<_, _>>()?,
            described: bundle.manifest,
        })
    }

    /// Bytes of a layer's table of contents, as they are in its blob; appended to `out`.
    pub(super) fn read_table(
        &self,
        store: &Store,
        layer: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let described = &self.described.layers[layer];
        let start = out.len();
        out.resize(start + usize::try_from(described.place.size).unwrap_or(0), 0);
        let blob = store.open_blob(&described.digest)?;
        let path = store.blob_path(&described.digest);
        Ok(blob.read_exact_at(&mut out[start..], described.place.offset).at("read", &path)?)
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
