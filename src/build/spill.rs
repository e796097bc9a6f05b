//! What a layer keeps until it is put together, in memory or in a nameless file beside the store.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use camino::Utf8PathBuf;

use super::Budget;
use super::blocks::{BLOCK, Blocks, Held};
use crate::fs::{IoError, IoResultExt as _, Staged};
use crate::model::Buffers;

/// Keeps byte strings for one layer.
#[derive(Debug)]
pub(super) struct Keeper {
    blocks: Blocks,
    buffers: Arc<Buffers>,
    dir: Utf8PathBuf,
    file: OnceLock<Staged>,
    end: AtomicU64,
}

/// A byte string kept by a [`Keeper`].
#[derive(Debug)]
pub(super) enum Kept {
    /// As it is.
    Memory(Held),
    /// In the spill file.
    Spilled {
        /// Where.
        offset: u64,
        /// Bytes in the file.
        size: usize,
        /// Compressed on the way, from this many bytes.
        packed_from: Option<usize>,
    },
}

impl Keeper {
    /// A keeper that spills into `dir`.
    pub(super) fn new(budget: Arc<Budget>, buffers: Arc<Buffers>, dir: Utf8PathBuf) -> Self {
        let blocks = Blocks::new(budget, Arc::clone(&buffers));
        Self { blocks, buffers, dir, file: OnceLock::new(), end: AtomicU64::new(0) }
    }

    /// Keeps plain bytes; they are compressed lightly if they must be spilled.
    pub(super) fn keep_plain(&self, bytes: &[u8]) -> Result<Kept, IoError> {
        if let Some(held) = self.blocks.hold(bytes, false) {
            return Ok(Kept::Memory(held));
        }
        let packed = zstd::bulk::compress(bytes, 1).at("spill to", &self.dir)?;
        Ok(Kept::Spilled { offset: self.spill(&packed)?, size: packed.len(), packed_from: Some(bytes.len()) })
    }

    /// Keeps a frame in one of the build's buffers.
    pub(super) fn keep_frame(&self, mut frame: Vec<u8>) -> Result<Kept, IoError> {
        // One that is nearly full is not worth a copy.
        if frame.len() > BLOCK / 8 * 7 {
            match self.blocks.hold_whole(frame) {
                Ok(held) => return Ok(Kept::Memory(held)),
                Err(back) => frame = back,
            }
        } else if let Some(held) = self.blocks.hold(&frame, true) {
            self.buffers.give(frame);
            return Ok(Kept::Memory(held));
        }
        let kept = Kept::Spilled { offset: self.spill(&frame)?, size: frame.len(), packed_from: None };
        self.buffers.give(frame);
        Ok(kept)
    }

    fn spill(&self, bytes: &[u8]) -> Result<u64, IoError> {
        let offset = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file()?.write_all_at(bytes, offset).at("spill to", &self.dir)?;
        Ok(offset)
    }

    fn file(&self) -> Result<&File, IoError> {
        if self.file.get().is_none() {
            // Of two that race here one file stays; the other was never written to.
            let _ = self.file.set(Staged::new_in(&self.dir)?);
        }
        self.file
            .get()
            .map(Staged::file)
            .ok_or_else(|| io::Error::other("no spill file"))
            .at("spill to", &self.dir)
    }

    /// Appends what was kept to `out`.
    pub(super) fn append(&self, kept: &Kept, out: &mut Vec<u8>) -> Result<(), IoError> {
        match kept {
            Kept::Memory(held) => held.append(out),
            Kept::Spilled { offset, size, packed_from } => {
                let start = out.len();
                let mut packed = Vec::new();
                let target = if packed_from.is_some() { &mut packed } else { &mut *out };
                let from = target.len();
                target.resize(from + size, 0);
                self.file()?
                    .read_exact_at(&mut target[from..], *offset)
                    .at("read what was spilled to", &self.dir)?;
                if let Some(raw) = packed_from {
                    let bytes =
                        zstd::bulk::decompress(&packed, *raw).at("read what was spilled to", &self.dir)?;
                    out.truncate(start);
                    out.extend_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spilled_or_not_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let budget = Arc::new(Budget::new(0, 1));
        while budget.keep(1 << 20, false) {}
        let keeper = Keeper::new(budget, Arc::new(Buffers::sized(BLOCK)), path.clone());
        let plain = keeper.keep_plain(&vec![7; 3 << 20]).unwrap();
        let frame = keeper.keep_frame(vec![9; 2 << 20]).unwrap();
        assert!(matches!(plain, Kept::Spilled { packed_from: Some(_), .. }));
        assert!(matches!(frame, Kept::Spilled { packed_from: None, .. }));
        let mut out = vec![1];
        keeper.append(&plain, &mut out).unwrap();
        keeper.append(&frame, &mut out).unwrap();
        assert!(out[0] == 1 && out[1..=3 << 20].iter().all(|b| *b == 7) && out.ends_with(&vec![9; 2 << 20]));
        assert_eq!(out.len(), 1 + (5 << 20));
        assert_eq!(path.read_dir_utf8().unwrap().count(), 0, "the spill file has no name");
    }
}
