//! The store's folder: opening it, its blobs and its index.

use std::fs::File;
use std::io::{Read as _, Write as _};

use camino::{Utf8Path, Utf8PathBuf};

use super::{Index, StoreError};
use crate::fs::{
    DirLock, IoError, IoResultExt as _, LockKind, Staged, calls, clear_leftovers, replace, sync_dir,
};
use crate::model::{Cancel, Digest};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An OCI image layout in a folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: Utf8PathBuf,
    /// Ends waiting for locks.
    cancel: Cancel,
}

impl Store {
    /// Opens the store at `root` for writing, making it if it is not there.
    ///
    /// If nobody else is at work there, what killed runs left goes. Waits for gc to end.
    pub fn create(root: &Utf8Path, cancel: &Cancel) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned(), cancel: cancel.clone() };
        for dir in [store.blobs(), store.cache().join("layers"), store.cache().join("bundles")] {
            calls::create_dir_all(&dir).at("create", &dir)?;
        }
        let alone = DirLock::attempt(root, LockKind::Exclusive)?;
        if alone.is_some() {
            store.clear_leftovers()?;
        }
        drop(alone);
        // Whoever clears leftovers must not take what is being made here for one.
        let _in_use = store.lock(LockKind::Shared)?;
        let layout = store.layout_file();
        if layout.exists() {
            store.check_layout()?;
        } else {
            replace(&layout, LAYOUT.as_bytes())?;
        }
        Ok(store)
    }

    /// Opens the store at `root`.
    pub fn open(root: &Utf8Path, cancel: &Cancel) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned(), cancel: cancel.clone() };
        if !store.layout_file().exists() {
            return Err(StoreError::Absent(root.to_owned()));
        }
        store.check_layout()?;
        Ok(store)
    }

    fn layout_file(&self) -> Utf8PathBuf {
        self.root.join("oci-layout")
    }

    fn check_layout(&self) -> Result<(), StoreError> {
        #[derive(serde::Deserialize)]
        struct Layout {
            #[serde(rename = "imageLayoutVersion")]
            version: String,
        }
        let path = self.layout_file();
        let text = std::fs::read(&path).at("read", &path)?;
        match serde_json::from_slice::<Layout>(&text) {
            Ok(layout) if layout.version == "1.0.0" => Ok(()),
            Ok(layout) => Err(StoreError::Layout { path, found: layout.version }),
            Err(source) => Err(StoreError::Json { path, source }),
        }
    }

    /// Its folder.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// Where the caches are.
    pub fn cache(&self) -> Utf8PathBuf {
        self.root.join("cache")
    }

    /// Where patches between two bundles are kept.
    pub fn patches(&self) -> Utf8PathBuf {
        self.cache().join("patches")
    }

    /// Where blobs are.
    pub fn blobs(&self) -> Utf8PathBuf {
        self.root.join("blobs/sha256")
    }

    /// A blob's file.
    pub fn blob_path(&self, digest: &Digest) -> Utf8PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Whether a blob of that size is there. Its content is trusted; `verify` reads it.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        self.blob_path(digest).metadata().is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Opens a blob.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(StoreError::NoBlob { digest: *digest, dir: self.blobs() })
            }
            other => Ok(other.at("open", &path)?),
        }
    }

    /// Reads a small blob and checks its digest.
    pub fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        self.open_blob(digest)?.take(max + 1).read_to_end(&mut bytes).at("read", &path)?;
        if bytes.len() as u64 > max {
            let what = format!("it has more than {max} bytes, too many for its kind");
            return Err(StoreError::Damaged { digest: *digest, what });
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => {
                Err(StoreError::Damaged { digest: *digest, what: format!("its content has digest {found}") })
            }
        }
    }

    /// Brings a small blob to the disk, still without a name; `None` if it is there already.
    pub fn stage_blob(&self, bytes: &[u8]) -> Result<Option<(Digest, Staged)>, IoError> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest, bytes.len() as u64) {
            return Ok(None);
        }
        let staged = Staged::new_in(&self.blobs())?;
        staged.file().write_all(bytes).at("write", &self.blob_path(&digest))?;
        staged.sync()?;
        Ok(Some((digest, staged)))
    }

    /// Publishes a finished, synced blob; [`Store::sync_blobs`] makes the name durable.
    pub fn publish(&self, staged: Staged, digest: &Digest) -> Result<(), IoError> {
        staged.publish(&self.blob_path(digest))
    }

    /// Waits until published names are on the disk.
    pub fn sync_blobs(&self) -> Result<(), IoError> {
        sync_dir(&self.blobs())
    }

    /// Held by whoever relies on what is in the store; [`LockKind::Exclusive`] by gc.
    pub fn lock(&self, kind: LockKind) -> Result<DirLock, IoError> {
        DirLock::wait(&self.root, kind, &self.cancel)
    }

    /// Held from reading the index to replacing it.
    pub fn lock_index(&self) -> Result<DirLock, IoError> {
        DirLock::wait(&self.root.join("blobs"), LockKind::Exclusive, &self.cancel)
    }

    /// The index; an empty one where there is none yet.
    pub fn index(&self) -> Result<Index, StoreError> {
        let path = self.root.join("index.json");
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Index::default()),
            other => other.at("read", &path)?,
        };
        serde_json::from_slice(&text).map_err(|source| StoreError::Json { path, source })
    }

    /// Replaces the index. The caller holds [`Store::lock_index`].
    pub fn replace_index(&self, index: &Index) -> Result<(), StoreError> {
        let path = self.root.join("index.json");
        let bytes =
            serde_json::to_vec(index).map_err(|source| StoreError::Json { path: path.clone(), source })?;
        Ok(replace(&path, &bytes)?)
    }

    /// Removes what killed builds left. The caller holds the store alone.
    fn clear_leftovers(&self) -> Result<(), IoError> {
        let layers = self.cache().join("layers");
        let mut dirs = vec![self.root.clone(), self.blobs(), self.cache(), self.cache().join("bundles")];
        for entry in layers.read_dir_utf8().at("read", &layers)? {
            let entry = entry.at("read", &layers)?;
            if entry.file_type().at("read", entry.path())?.is_dir() {
                dirs.push(entry.into_path());
            }
        }
        dirs.iter().try_for_each(|dir| clear_leftovers(dir))
    }
}
