//! Digests of what holds secrets, hidden: without the node's key they tell nothing, and they stay here.

use std::io::{Read as _, Seek as _, Write as _};

use super::layout::Root;
use crate::fs::{FileLock, IoError, IoResultExt as _};
use crate::model::Digest;

/// The node's key.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// Reads the key, making it if there is none yet.
    pub(super) fn open(root: &Root) -> Result<Self, IoError> {
        let path = root.key();
        let lock = loop {
            if let Some(lock) = FileLock::attempt(&path)? {
                break lock;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        let mut file = lock.file();
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.take(33).read_to_end(&mut bytes)).at("read", &path)?;
        if let Ok(key) = bytes.try_into() {
            return Ok(Self(key));
        }
        let mut key = [0; 32];
        let flags = rustix::rand::GetRandomFlags::empty();
        rustix::rand::getrandom(&mut key, flags).at("ask for random bytes for", &path)?;
        file.rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| file.write_all(&key))
            .and_then(|()| file.sync_all())
            .at("write", &path)?;
        Ok(Self(key))
    }

    /// Reads the key without making one; `None` if there is none, so that nothing was ever hidden by it.
    pub(super) fn read(root: &Root) -> Result<Option<Self>, IoError> {
        let path = root.key();
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => Ok(other.at("read", &path)?.try_into().ok().map(Self)),
        }
    }

    /// The hidden digest of a content.
    pub(super) fn hide(&self, content: &[u8]) -> Digest {
        self.hide_digest(&Digest::of(content))
    }

    /// The hidden form of a content's digest.
    pub(super) fn hide_digest(&self, digest: &Digest) -> Digest {
        Digest::of(&[&self.0[..], digest.as_bytes()].concat())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}
