//! What turns an old bundle's files into a new one's: made once for both, kept in the store's cache.
//!
//! A file `out/cache/patches/<old>-<new>` holds the patches one after another, then their index as JSON, then the
//! index's length in 8 bytes, little-endian. Where a patch did not pay, a small content is there itself, so that its frame
//! need not be unpacked again to send it; a larger one is in no index.
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
use crate::agent::wire::{Item, make_patch, pack};
use crate::bundle::layout;
use crate::fs::{IoResultExt as _, Staged, calls};
use crate::model::{Buffers, Cancel, Digest};
use crate::store::{LayerReader, Store, StoreError};

/// The version of the file.
const FORMAT: u32 = 2;

const LEVEL: i32 = 3;

/// Bytes of contents that patches are being made of at a time.
const BUDGET: u64 = 256 << 20;

/// Patches, or contents, are sent together up to so many bytes.
const BATCH: usize = 1 << 20;

/// An item's bytes besides the patch.
const HEAD: u64 = 17 + 41;

/// The largest content that is kept where its patch does not pay.
const SMALL: usize = 16 << 10;

/// Frames of a bundle that a unit of work keeps unpacked.
const FRAMES: usize = 2;

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
    /// It is the content itself.
    whole: bool,
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
            spare: Buffers::default(),
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
        self.made.values().filter(|made| !made.whole).count()
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.made.values().filter(|made| !made.whole).map(|made| made.size).sum()
    }

    fn find(&self, at: At, whole: bool) -> Option<&Made> {
        self.made.get(&at).filter(|made| made.whole == whole)
    }

    /// Bytes that a content's patch has in the stream; `None` if there is none.
    pub(super) fn size(&self, at: At) -> Option<u64> {
        Some(self.find(at, false)?.size + HEAD)
    }

    fn body(&self, made: &Made) -> Option<Vec<u8>> {
        let mut body = vec![0; usize::try_from(made.size).ok()?];
        self.file.read_exact_at(&mut body, made.at).ok()?;
        (Digest::of(&body) == made.digest).then_some(body)
    }

    /// Patches of the first of some places, as the stream has them.
    pub(super) fn some_patches(&self, places: &[At]) -> Batch {
        let mut batch = Batch::default();
        for at in places {
            batch.count += 1;
            if !self.append(*at, &mut batch) {
                batch.left.push(*at);
            }
            if batch.items.len() >= BATCH {
                break;
            }
        }
        batch
    }

    /// Contents of the first of some places, packed as the stream has them; those of one layer go together.
    pub(super) fn some_contents(&self, places: &[At]) -> Result<Batch, PushError> {
        let (mut batch, mut entries, mut contents) = (Batch::default(), Vec::new(), Vec::new());
        let layer = places.first().map_or(0, |at| at.layer);
        for at in places.iter().take_while(|at| at.layer == layer) {
            batch.count += 1;
            match self.find(*at, true).and_then(|made| self.body(made)) {
                Some(content) => {
                    entries.push(number(at.entry));
                    contents.extend_from_slice(&content);
                }
                None => batch.left.push(*at),
            }
            if contents.len() >= BATCH {
                break;
            }
        }
        if !entries.is_empty() {
            let body = pack(&contents, LEVEL).at("pack", &Utf8PathBuf::from("small files"))?;
            batch.append(&Item::Packed { layer: number(layer), entries, body });
        }
        Ok(batch)
    }

    /// Appends a content's patch, as the stream has it; false if there is none, or none that can be used.
    fn append(&self, at: At, batch: &mut Batch) -> bool {
        let Some(made) = self.find(at, false) else { return false };
        let Some(body) = self.body(made) else { return false };
        batch.append(&Item::Patch {
            layer: number(at.layer),
            entry: number(at.entry),
            old: ObjectId { digest: made.old, executable: made.old_executable },
            old_size: made.old_size,
            body,
        });
        true
    }
}

/// Items for the first of some places.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// How many places.
    pub(super) count: usize,
    /// The items, as the stream has them.
    pub(super) items: Vec<u8>,
    /// Those of the places that have none.
    pub(super) left: Vec<At>,
}

impl Batch {
    fn append(&mut self, item: &Item) {
        self.items.extend_from_slice(&item.head());
        self.items.extend_from_slice(item.body());
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
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
    /// What earlier frames were unpacked into: touching fresh memory takes a good part of unpacking's time.
    spare: Buffers,
}

/// Frames by layer and number, unpacked.
type Frames = Vec<((usize, usize), Vec<u8>)>;

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
        let (mut new_frames, mut old_frames) = (Frames::new(), Frames::new());
        for pair in pairs {
            self.cancel.check().map_err(StoreError::Cancelled)?;
            let new = self.content(self.new, pair.new, &mut new_frames)?;
            let old = self.content(self.old, pair.old, &mut old_frames)?;
            made.extend(self.patch(pair, &old, &new)?);
        }
        for (_, raw) in new_frames.into_iter().chain(old_frames) {
            self.spare.give(raw);
        }
        Ok(made)
    }

    /// A patch that pays, or the content if that is small, written down.
    fn patch(&self, pair: &Pair, old: &[u8], new: &[u8]) -> Result<Option<Made>, PushError> {
        let path = Utf8PathBuf::from("a patch");
        let patch = make_patch(old, new, LEVEL).at("make", &path)?;
        let whole = (patch.len() as u64 + HEAD) * 5 >= self.new.packed_share(pair.new) * 4;
        if whole && new.len() > SMALL {
            return Ok(None);
        }
        let body = if whole { new } else { &patch };
        let size = body.len() as u64;
        let at = self.end.fetch_add(size, Ordering::Relaxed);
        self.file.write_all_at(body, at).at("write", &path)?;
        Ok(Some(Made {
            layer: pair.new.layer,
            entry: pair.new.entry,
            old: pair.old_id.digest,
            old_executable: pair.old_id.executable,
            old_size: pair.old_size,
            whole,
            at,
            size,
            digest: Digest::of(body),
        }))
    }

    /// A file's content; frames that hold small files stay in `frames` for the next one.
    fn content(&self, source: &Source, at: At, frames: &mut Frames) -> Result<Vec<u8>, StoreError> {
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
            let mut raw = if frames.len() >= FRAMES { frames.remove(0).1 } else { self.spare.take() };
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
}
