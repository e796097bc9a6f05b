//! Digests of artifacts, remembered so that an unchanged file is not read again.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::fs::{IoError, IoResultExt as _, replace};
use crate::model::Digest;

/// What tells that a file was not changed. The change time is part of it: unlike the modification time it
/// cannot be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
    inode: u64,
    device: u64,
}

/// Two changes closer than this may carry the same time.
const TICK: Duration = Duration::from_millis(20);

impl Stamp {
    /// The stamp of the file at `path`.
    pub fn of(path: &Utf8Path) -> Result<Self, IoError> {
        let meta = path.metadata().at("read", path)?;
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Ok(Self {
            size: meta.len(),
            mtime_ns: nanos(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: nanos(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
        })
    }

    /// The stamp of a file that is about to be read, old enough that any later change shows in it.
    pub fn settled(path: &Utf8Path) -> Result<Self, IoError> {
        let stamp = Self::of(path)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let age = i128::try_from(now).unwrap_or(i128::MAX) - stamp.ctime_ns;
        let tick = TICK.as_nanos().cast_signed();
        if (0..tick).contains(&age) {
            std::thread::sleep(TICK);
        }
        Self::of(path)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    format: u32,
    artifacts: BTreeMap<Utf8PathBuf, Known>,
}

impl File {
    /// What cannot be read counts as empty.
    fn read(path: &Utf8Path) -> Self {
        std::fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|file| file.format == FORMAT)
            .unwrap_or_default()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    digest: Digest,
}

/// The cache's format; another one is ignored, as is a damaged file.
const FORMAT: u32 = 1;

/// Digests of artifacts by path and stamp.
#[derive(Debug)]
pub struct ArtifactCache {
    path: Utf8PathBuf,
    file: File,
    /// What was learnt since it was loaded.
    new: BTreeMap<Utf8PathBuf, Known>,
}

impl ArtifactCache {
    /// The cache of a store. What cannot be read counts as empty.
    pub fn load(store: &Store) -> Self {
        let path = store.cache().join("artifacts.json");
        Self { file: File::read(&path), path, new: BTreeMap::new() }
    }

    /// The digest of a file, if it is known and the file is the same.
    pub fn get(&self, path: &Utf8Path, stamp: &Stamp) -> Option<Digest> {
        self.new
            .get(path)
            .or_else(|| self.file.artifacts.get(path))
            .filter(|known| known.stamp == *stamp)
            .map(|known| known.digest)
    }

    /// Remembers a digest.
    pub fn set(&mut self, path: &Utf8Path, stamp: Stamp, digest: Digest) {
        self.new.insert(path.to_owned(), Known { stamp, digest });
    }

    /// Adds what was learnt to the cache's file; artifacts that are gone are forgotten.
    ///
    /// The caller holds [`Store::lock_index`], so that builds at the same time lose nothing of each other's.
    pub fn save(&mut self) -> Result<(), IoError> {
        if self.new.is_empty() {
            return Ok(());
        }
        self.file = File::read(&self.path);
        self.file.format = FORMAT;
        self.file.artifacts.append(&mut self.new);
        self.file.artifacts.retain(|path, _| path.exists());
        let bytes = serde_json::to_vec(&self.file).at("write", &self.path)?;
        replace(&self.path, &bytes)
    }
}
