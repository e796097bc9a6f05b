//! What turns an old bundle's files into a new one's: made once for both, kept in the store's cache.
//!
//! A file `out/cache/patches/<old>-<new>` holds the patches one after another, then their index as JSON, then the
//! index's length in 8 bytes, little-endian. What was tried and did not pay is in no index.
//!
//! # Invariants
//!
//! * A patch that is read has the sha256 of its index, or is taken for one that was never made.
//! * Old and new contents in memory stay within [`BUDGET`], beside one pair that is larger.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::PushError;
use super::pairs::Pair;
use super::source::{At, Source};
use crate::agent::ObjectId;
use crate::agent::wire::{Item, make_patch};
use crate::bundle::layout;
use crate::fs::{IoResultExt as _, Staged, calls};
use crate::model::{Cancel, Digest};
use crate::store::{LayerReader, Store, StoreError};

/// The version of the file.
const FORMAT: u32 = 1;

const LEVEL: i32 = 3;

/// Bytes of contents that patches are being made of at a time.
const BUDGET: u64 = 256 << 20;

/// An item's bytes besides the patch.
const HEAD: u64 = 17 + 41;

/// Old frames that a thread keeps unpacked.
const OLD_FRAMES: usize = 2;

/// Patches between two bundles.
#[derive(Debug)]
pub(super) struct Patches {
    file: File,
    made: HashMap<At, Made>,
    /// How long making them took; zero where they were there.
    pub(super) took: Duration,
}

/// A patch in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    layer: usize,
    entry: usize,
    old: Digest,
    old_executable: bool,
    old_size: u64,
    at: u64,
    size: u64,
    digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    format: u32,
    patches: Vec<Made>,
}

/// Where two bundles' patches are kept.
fn path(store: &Store, old: &Digest, new: &Digest) -> Utf8PathBuf {
    store.patches().join(format!("{}-{}", old.hex(), new.hex()))
}

impl Patches {
    /// The patches between two bundles: those that are kept, or new ones. Takes the processor for a while.
    pub(super) fn get(
        store: &Store,
        old: &Source,
        new: &Source,
        pairs: &[Pair],
        cancel: &Cancel,
    ) -> Result<Self, PushError> {
        let path = path(store, &old.digest, &new.digest);
        if let Some(kept) = File::open(&path).ok().and_then(Self::read) {
            return Ok(kept);
        }
        let started = Instant::now();
        let dir = store.patches();
        calls::create_dir_all(&dir).at("create", &dir)?;
        let staged = Staged::new_in(&dir)?;
        let maker = Maker {
            old,
            new,
            cancel,
            file: staged.file(),
            end: AtomicU64::new(0),
            room: (Mutex::new(BUDGET), Condvar::new()),
        };
        let made: Vec<Made> = maker.all(pairs)?;
        let (end, index) = (maker.end.load(Ordering::Relaxed), Index { format: FORMAT, patches: made });
        let mut tail = serde_json::to_vec(&index).map_err(|error| PushError::Internal(error.to_string()))?;
        tail.extend_from_slice(&(tail.len() as u64).to_le_bytes());
        staged.file().write_all_at(&tail, end).at("write", &path)?;
        let file = staged.file().try_clone().at("open", &path)?;
        // A cache: after a power cut it is found torn, and made again.
        match staged.publish(&path) {
            // Another push made the same.
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let made = index.patches.into_iter().map(|made| (made.place(), made)).collect();
        Ok(Self { file, made, took: started.elapsed() })
    }

    /// What a file holds; `None` if it is not one of ours, or torn.
    fn read(file: File) -> Option<Self> {
        let size = file.metadata().ok()?.len();
        let mut length = [0; 8];
        file.read_exact_at(&mut length, size.checked_sub(8)?).ok()?;
        let length = u64::from_le_bytes(length);
        let start = size.checked_sub(8)?.checked_sub(length)?;
        let mut index = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut index, start).ok()?;
        let index: Index = serde_json::from_slice(&index).ok()?;
        let sane = |made: &Made| made.at.checked_add(made.size).is_some_and(|end| end <= start);
        if index.format != FORMAT || !index.patches.iter().all(sane) {
            return None;
        }
        let made = index.patches.into_iter().map(|made| (made.place(), made)).collect();
        Some(Self { file, made, took: Duration::ZERO })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.made.len()
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.made.values().map(|made| made.size).sum()
    }

    /// Bytes that a content's patch has in the stream; `None` if there is none.
    pub(super) fn size(&self, at: At) -> Option<u64> {
        Some(self.made.get(&at)?.size + HEAD)
    }

    /// Appends a content's patch, as the stream has it; false if there is none, or none that can be used.
    pub(super) fn append(&self, at: At, out: &mut Vec<u8>) -> bool {
        let Some(made) = self.made.get(&at) else { return false };
        let mut body = vec![0; usize::try_from(made.size).unwrap_or(0)];
        if self.file.read_exact_at(&mut body, made.at).is_err() || Digest::of(&body) != made.digest {
            return false;
        }
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let item = Item::Patch {
            layer: number(at.layer),
            entry: number(at.entry),
            old: ObjectId { digest: made.old, executable: made.old_executable },
            old_size: made.old_size,
            body,
        };
        out.extend_from_slice(&item.head());
        out.extend_from_slice(item.body());
        true
    }
}

impl Made {
    fn place(&self) -> At {
        At { layer: self.layer, entry: self.entry }
    }
}

/// Makes patches on all of the pool's threads.
struct Maker<'a> {
    old: &'a Source,
    new: &'a Source,
    cancel: &'a Cancel,
    file: &'a File,
    end: AtomicU64,
    room: (Mutex<u64>, Condvar),
}

/// Frames by layer and number, unpacked.
type OldFrames = Vec<((usize, usize), Vec<u8>)>;

impl Maker<'_> {
    /// A unit of work is a frame's small files, or a large file: a frame is unpacked once.
    fn all(&self, pairs: &[Pair]) -> Result<Vec<Made>, PushError> {
        let mut small: BTreeMap<(usize, usize), Vec<Pair>> = BTreeMap::new();
        let mut units: Vec<(u64, Vec<Pair>)> = Vec::new();
        for pair in pairs {
            let size = self.new.entry(pair.new).size();
            if layout::is_large(size) || layout::is_large(pair.old_size) {
                units.push((size + pair.old_size, vec![*pair]));
            } else {
                let frame = self.new.frames_of(pair.new).start;
                small.entry((pair.new.layer, frame)).or_default().push(*pair);
            }
        }
        units.extend(small.into_values().map(|pairs| (4 * layout::PIECE, pairs)));
        // The largest first, so that none is left to run alone at the end.
        units.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let made: Vec<Vec<Made>> = units
            .into_par_iter()
            .with_max_len(1)
            .map(|(weight, pairs)| {
                let weight = weight.min(BUDGET);
                self.take_room(weight);
                let made = self.unit(&pairs);
                *self.room.0.lock().unwrap_or_else(PoisonError::into_inner) += weight;
                self.room.1.notify_all();
                made
            })
            .collect::<Result<_, PushError>>()?;
        Ok(made.concat())
    }

    fn take_room(&self, weight: u64) {
        let mut left = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *left < weight {
            left = self.room.1.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        *left -= weight;
    }

    fn unit(&self, pairs: &[Pair]) -> Result<Vec<Made>, PushError> {
        let mut made = Vec::new();
        let (mut new_frames, mut old_frames) = (OldFrames::new(), OldFrames::new());
        for pair in pairs {
            self.cancel.check().map_err(StoreError::Cancelled)?;
            let new = content(self.new, pair.new, &mut new_frames)?;
            let old = content(self.old, pair.old, &mut old_frames)?;
            made.extend(self.patch(pair, &old, &new)?);
        }
        Ok(made)
    }

    /// A patch that pays, written down.
    fn patch(&self, pair: &Pair, old: &[u8], new: &[u8]) -> Result<Option<Made>, PushError> {
        let path = Utf8PathBuf::from("a patch");
        let body = make_patch(old, new, LEVEL).at("make", &path)?;
        let size = body.len() as u64;
        if (size + HEAD) * 5 >= self.new.packed_share(pair.new) * 4 {
            return Ok(None);
        }
        let at = self.end.fetch_add(size, Ordering::Relaxed);
        self.file.write_all_at(&body, at).at("write", &path)?;
        Ok(Some(Made {
            layer: pair.new.layer,
            entry: pair.new.entry,
            old: pair.old_id.digest,
            old_executable: pair.old_id.executable,
            old_size: pair.old_size,
            at,
            size,
            digest: Digest::of(&body),
        }))
    }
}

/// A file's content; frames that hold small files stay in `frames` for the next one.
fn content(source: &Source, at: At, frames: &mut OldFrames) -> Result<Vec<u8>, StoreError> {
    let reader: &LayerReader = &source.layers[at.layer];
    let size = source.entry(at).size();
    let numbers = source.frames_of(at);
    if layout::is_large(size) || numbers.len() != 1 {
        let mut out = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        reader.visit_file(at.entry, |bytes| out.extend_from_slice(bytes))?;
        return Ok(out);
    }
    let key = (at.layer, numbers.start);
    let frame = &reader.toc.frames[numbers.start];
    if !frames.iter().any(|(one, _)| *one == key) {
        // Files next to each other in the new bundle mostly are in the old one.
        let mut raw = if frames.len() >= OLD_FRAMES { frames.remove(0).1 } else { Vec::new() };
        reader.read_frame(frame, &mut raw)?;
        frames.push((key, raw));
    }
    let raw = frames.iter().find(|(one, _)| *one == key).map(|(_, raw)| raw);
    let start = usize::try_from(reader.toc.offsets[at.entry] - frame.tar_offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
    let content = raw.and_then(|raw| raw.get(start..end));
    content.map(<[u8]>::to_vec).ok_or_else(|| StoreError::Damaged {
        digest: reader.digest(),
        what: "a file is not where its table says".to_owned(),
    })
}
