//! Reading a bundle out of the store.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::{Store, StoreError, Tagged};
use crate::bundle::manifest::MAX_MANIFEST;
use crate::bundle::{Entry, Frame, Layer, Manifest, Node, RECORD_PATH, Record, Toc, frame, layout};
use crate::fs::IoResultExt as _;
use crate::model::{Digest, Reference};

/// The most bytes of a compressed table of contents; a larger one is refused before it is read.
const MAX_TOC: u64 = 256 << 20;

/// A bundle in the store.
#[derive(Clone, Debug)]
pub struct StoredBundle {
    /// Its name.
    pub tagged: Tagged,
    /// What its manifest and config say.
    pub manifest: Manifest,
}

impl StoredBundle {
    /// Bytes of all its blobs.
    pub fn size(&self) -> u64 {
        let layers: u64 = self.manifest.layers.iter().map(|layer| layer.size).sum();
        self.tagged.size + self.manifest.config_size + layers
    }
}

impl Store {
    /// Finds and reads the bundle that a reference names.
    pub fn bundle(&self, reference: &Reference) -> Result<StoredBundle, StoreError> {
        let index = self.index()?;
        let tagged = index.find(reference).ok_or_else(|| StoreError::NoBundle {
            reference: reference.clone(),
            near: index.near(reference),
        })?;
        self.load(tagged)
    }

    /// Reads a bundle's manifest and config.
    pub fn load(&self, tagged: Tagged) -> Result<StoredBundle, StoreError> {
        let damaged = |source| StoreError::Manifest { digest: tagged.digest, source };
        let manifest = self.read_blob(&tagged.digest, MAX_MANIFEST)?;
        let (config, _) = Manifest::config_of(&manifest).map_err(damaged)?;
        let config = self.read_blob(&config, MAX_MANIFEST)?;
        let manifest = Manifest::parse(&manifest, &config).map_err(damaged)?;
        Ok(StoredBundle { tagged, manifest })
    }

    /// Opens a layer and reads its table of contents.
    pub fn layer(&self, layer: &Layer) -> Result<LayerReader, StoreError> {
        let file = self.open_blob(&layer.digest)?;
        let path = self.blob_path(&layer.digest);
        let damaged = |what: String| StoreError::Damaged { digest: layer.digest, what };
        let size = file.metadata().at("read", &path)?.len();
        if size != layer.size {
            return Err(damaged(format!("it has {size} bytes; its manifest says {}", layer.size)));
        }
        let place = layer.place;
        if place.size > MAX_TOC || place.offset.checked_add(place.size).is_none_or(|end| end > size) {
            return Err(damaged("its table of contents is not inside it".to_owned()));
        }
        let mut bytes = vec![0; usize::try_from(place.size).unwrap_or(0)];
        file.read_exact_at(&mut bytes, place.offset).at("read", &path)?;
        if Digest::of(&bytes) != place.digest {
            return Err(damaged(
                "its table of contents has another digest than the manifest says".to_owned(),
            ));
        }
        let toc = Toc::decode(&bytes).map_err(|source| StoreError::Toc { digest: layer.digest, source })?;
        if toc.frames_size() > place.offset {
            return Err(damaged("its frames reach into its table of contents".to_owned()));
        }
        Ok(LayerReader { digest: layer.digest, file, toc })
    }

    /// Reads a bundle's own record out of its last layer.
    pub fn record(&self, bundle: &StoredBundle) -> Result<Record, StoreError> {
        let damaged = |what: String| StoreError::Damaged { digest: bundle.tagged.digest, what };
        let last = bundle.manifest.layers.last().ok_or_else(|| damaged("it has no layers".to_owned()))?;
        let reader = self.layer(last)?;
        let index = reader
            .toc
            .entries
            .iter()
            .position(|entry| entry.path.as_str() == RECORD_PATH)
            .ok_or_else(|| damaged(format!("its last layer has no {RECORD_PATH}")))?;
        let bytes = reader.read_file(index)?;
        Record::parse(&bytes)
            .map_err(|error| StoreError::Manifest { digest: bundle.tagged.digest, source: error.into() })
    }
}

thread_local! {
    /// A frame as it is in its blob, and unpacked.
    static PACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static RAW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A layer's blob with its table.
#[derive(Debug)]
pub struct LayerReader {
    digest: Digest,
    file: File,
    /// The table of contents.
    pub toc: Toc,
}

impl LayerReader {
    /// Of the blob.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads a frame as it is.
    pub fn read_packed(&self, frame: &Frame) -> Result<Vec<u8>, StoreError> {
        let mut packed = Vec::new();
        self.read_packed_into(frame, &mut packed)?;
        Ok(packed)
    }

    fn read_packed_into(&self, frame: &Frame, packed: &mut Vec<u8>) -> Result<(), StoreError> {
        packed.clear();
        self.append_packed(frame, packed)
    }

    /// Reads a frame as it is and adds it to `out`.
    pub fn append_packed(&self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), StoreError> {
        if frame.size > 2 * layout::PIECE {
            return Err(self.damaged("a frame is too large"));
        }
        let start = out.len();
        out.resize(start + usize::try_from(frame.size).unwrap_or(0), 0);
        self.file
            .read_exact_at(&mut out[start..], frame.offset)
            .map_err(|error| self.damaged(&format!("a frame cannot be read: {error}")))
    }

    fn unpack_frame(&self, frame: &Frame, packed: &[u8], out: &mut Vec<u8>) -> Result<(), StoreError> {
        frame::decompress(packed, frame.tar_size, out).map_err(|error| {
            self.damaged(&format!("the frame at byte {} cannot be unpacked: {error}", frame.offset))
        })
    }

    /// Reads and unpacks a frame into `out`, which is cleared first.
    pub fn read_frame(&self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), StoreError> {
        PACKED.with_borrow_mut(|packed| {
            self.read_packed_into(frame, packed)?;
            self.unpack_frame(frame, packed, out)
        })
    }

    /// Unpacks a frame into a buffer that the thread uses again and again, and hands it over.
    ///
    /// Touching fresh memory for every frame would cost more than unpacking it.
    pub fn with_frame<T>(
        &self,
        frame: &Frame,
        visit: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        RAW.with_borrow_mut(|raw| {
            self.read_frame(frame, raw)?;
            visit(raw)
        })
    }

    /// Reads a regular file whole; its digest is not checked.
    pub fn read_file(&self, index: usize) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::new();
        self.visit_file(index, |bytes| out.extend_from_slice(bytes))?;
        Ok(out)
    }

    /// Hands a regular file's content over in pieces.
    pub fn visit_file(&self, index: usize, mut visit: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let (Some(entry), Some(start)) = (self.toc.entries.get(index), self.toc.offsets.get(index)) else {
            return Ok(());
        };
        let end = start + entry.size();
        let mut raw = Vec::new();
        for frame in self.toc.frames_of(*start, entry.size()) {
            self.read_frame(frame, &mut raw)?;
            let within = |at: u64| usize::try_from(at.saturating_sub(frame.tar_offset)).unwrap_or(usize::MAX);
            let range = within(*start)..within(end).min(raw.len());
            visit(raw.get(range).ok_or_else(|| self.damaged("a file is not where its table says"))?);
        }
        Ok(())
    }

    /// The entry that holds the content of `entry`: itself, or what it is another name of.
    pub fn content_of<'a>(&'a self, entry: &'a Entry) -> Option<(usize, &'a Entry)> {
        let path = match &entry.node {
            Node::HardLink { target } => target,
            Node::File { .. } => &entry.path,
            Node::Directory | Node::Symlink { .. } => return None,
        };
        let index = self.toc.find(path)?;
        Some((index, &self.toc.entries[index]))
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { digest: self.digest, what: what.to_owned() }
    }
}
