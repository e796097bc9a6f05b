//! Items of a push become objects, many at a time.
//!
//! # Invariants
//!
//! * Bytes held in memory stay within [`BUDGET`], whatever is sent, and however fast.
//! * Only contents that are lacking are written, and only under their own digests.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::bundles::object_of;
use super::error::AgentError;
use super::objects::{ObjectId, Objects, Pending};
use super::wire::{self, Item, MAX_PATCH, WireError};
use super::workers;
use crate::bundle::{Toc, frame, layout};
use crate::fs::IoResultExt as _;
use crate::model::{Buffers, Hasher};

/// Bytes of items, packed and unpacked, that are under way at a time.
const BUDGET: u64 = 96 << 20;

/// Buffers that are kept to be used again.
const MAX_KEPT: usize = 8;

/// Pieces of a large file that may wait for the one before them.
const MAX_WAITING: usize = 32;

fn invalid(what: impl Into<String>) -> AgentError {
    WireError::Invalid(what.into()).into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is lacking: its layer, entry and size.
pub(super) type Lacking = HashMap<ObjectId, (usize, usize, u64)>;

/// What came in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    /// Bytes of contents that were written.
    pub bytes: u64,
    /// Bytes of the items.
    pub wire_bytes: u64,
    /// Contents that are still lacking.
    pub left: usize,
}

/// Reads items to their end and writes what they hold.
pub(super) fn unpack(
    tocs: &[Toc],
    objects: &Objects,
    lacking: Lacking,
    from: &mut impl Read,
) -> Result<Arrived, AgentError> {
    workers::start().at("start threads to write", objects.path())?;
    let receiver = Receiver {
        tocs,
        objects,
        lacking: Mutex::new(lacking),
        assemblies: Mutex::new(HashMap::new()),
        room: (Mutex::new(BUDGET), Condvar::new()),
        failure: Mutex::new(None),
        wire_bytes: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        buffers: Buffers::at_most(MAX_KEPT, usize::try_from(2 * layout::PIECE).unwrap_or(usize::MAX)),
    };
    receiver.run(from)?;
    let left = lock(&receiver.lacking).len();
    let (bytes, wire_bytes) =
        (receiver.bytes.load(Ordering::Relaxed), receiver.wire_bytes.load(Ordering::Relaxed));
    Ok(Arrived { bytes, wire_bytes, left })
}

/// A large file, piece by piece.
struct Assembly<'a> {
    pending: Option<Pending<'a>>,
    hasher: Hasher,
    next: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
}

/// Large files by layer and entry; each is locked by whoever writes its next piece.
type Assemblies<'a> = HashMap<(usize, usize), Arc<Mutex<Assembly<'a>>>>;

struct Receiver<'a> {
    tocs: &'a [Toc],
    objects: &'a Objects,
    lacking: Mutex<Lacking>,
    assemblies: Mutex<Assemblies<'a>>,
    room: (Mutex<u64>, Condvar),
    failure: Mutex<Option<AgentError>>,
    wire_bytes: AtomicU64,
    bytes: AtomicU64,
    buffers: Buffers,
}

impl<'a> Receiver<'a> {
    fn run(&self, from: &mut impl Read) -> Result<(), AgentError> {
        let read = rayon::in_place_scope(|scope| -> Result<(), AgentError> {
            loop {
                if lock(&self.failure).is_some() {
                    return Ok(());
                }
                let item = Item::read_into(from, || self.buffers.take())?;
                self.wire_bytes.fetch_add(item.wire_size(), Ordering::Relaxed);
                let weight = match &item {
                    Item::End => return Ok(()),
                    Item::Frame { body, .. } | Item::Packed { body, .. } => body.len() as u64 + layout::PIECE,
                    Item::Patch { body, old_size, .. } => body.len() as u64 + old_size + MAX_PATCH / 4,
                }
                .min(BUDGET);
                self.take_room(weight);
                scope.spawn(move |_| {
                    if let Err(error) = self.item(item) {
                        // The first is the one to tell; later ones may follow from it.
                        lock(&self.failure).get_or_insert(error);
                    }
                    *lock(&self.room.0) += weight;
                    self.room.1.notify_all();
                });
            }
        });
        // What an item was is the better answer than that the stream ended.
        match lock(&self.failure).take() {
            Some(error) => Err(error),
            None => read,
        }
    }

    fn take_room(&self, weight: u64) {
        let mut left = lock(&self.room.0);
        while *left < weight {
            left = self.room.1.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        *left -= weight;
    }

    fn toc(&self, layer: u32) -> Result<(usize, &'a Toc), AgentError> {
        let index = layer as usize;
        self.tocs
            .get(index)
            .map(|toc| (index, toc))
            .ok_or_else(|| invalid(format!("there is no layer {layer}")))
    }

    fn item(&self, item: Item) -> Result<(), AgentError> {
        match item {
            Item::End => Ok(()),
            Item::Frame { layer, frame, body } => {
                self.frame(layer, frame, &body)?;
                self.buffers.give(body);
                Ok(())
            }
            Item::Packed { layer, entries, body } => self.packed(layer, &entries, &body),
            Item::Patch { layer, entry, old, old_size, body } => {
                self.patch(layer, entry, old, old_size, &body)
            }
        }
    }

    /// Whether an object is still wanted.
    fn is_lacking(&self, id: ObjectId) -> bool {
        lock(&self.lacking).contains_key(&id)
    }

    fn arrived(&self, id: ObjectId, size: u64) {
        if lock(&self.lacking).remove(&id).is_some() {
            self.bytes.fetch_add(size, Ordering::Relaxed);
        }
    }

    fn add(&self, id: ObjectId, content: &[u8]) -> Result<(), AgentError> {
        if self.is_lacking(id) {
            self.objects.add(id, content)?;
            self.arrived(id, content.len() as u64);
        }
        Ok(())
    }

    fn frame(&self, layer: u32, number: u32, body: &[u8]) -> Result<(), AgentError> {
        let (index, toc) = self.toc(layer)?;
        let described = toc.frames.get(number as usize);
        let described = described.ok_or_else(|| invalid(format!("layer {layer} has no frame {number}")))?;
        let mut raw = self.buffers.take();
        frame::decompress(body, described.tar_size, &mut raw).map_err(|source| WireError::Unpack {
            what: format!("frame {number} of layer {layer}"),
            source,
        })?;
        let (start, end) = (described.tar_offset, described.tar_offset + described.tar_size);
        // A large file's data begins before the frame that holds its later pieces.
        let first = toc.offsets.partition_point(|offset| *offset < start).saturating_sub(1);
        for at in first..toc.entries.len() {
            let offset = toc.offsets[at];
            if offset >= end {
                break;
            }
            let Some((id, size)) = object_of(&toc.entries[at].node) else { continue };
            let (from, to) = (offset.max(start), (offset + size).min(end));
            if from >= to || !self.is_lacking(id) {
                continue;
            }
            let piece = usize::try_from(from - start).ok().zip(usize::try_from(to - start).ok());
            let piece =
                piece.and_then(|(from, to)| raw.get(from..to)).ok_or_else(|| invalid("a frame's place"))?;
            if to - from == size {
                self.add(id, piece)?;
            } else {
                self.piece((index, at), id, size, from - offset, piece)?;
            }
        }
        self.buffers.give(raw);
        Ok(())
    }

    fn piece(
        &self,
        key: (usize, usize),
        id: ObjectId,
        size: u64,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), AgentError> {
        let assembly = {
            let mut assemblies = lock(&self.assemblies);
            if let Some(assembly) = assemblies.get(&key) {
                Arc::clone(assembly)
            } else {
                let pending = Some(self.objects.begin(id)?);
                let new = Assembly { pending, hasher: Hasher::new(), next: 0, waiting: BTreeMap::new() };
                Arc::clone(assemblies.entry(key).or_insert_with(|| Arc::new(Mutex::new(new))))
            }
        };
        let mut assembly = lock(&assembly);
        let assembly = &mut *assembly;
        let Some(pending) = &assembly.pending else { return Ok(()) };
        if at != assembly.next {
            if at > assembly.next && assembly.waiting.len() < MAX_WAITING {
                assembly.waiting.insert(at, bytes.to_vec());
                return Ok(());
            }
            return Err(invalid("the pieces of a large file are not in order"));
        }
        let mut take = |bytes: &[u8]| -> Result<u64, AgentError> {
            pending.write_at(bytes, assembly.next)?;
            assembly.hasher.update(bytes);
            assembly.next += bytes.len() as u64;
            Ok(assembly.next)
        };
        let mut next = take(bytes)?;
        while let Some(bytes) = assembly.waiting.remove(&next) {
            next = take(&bytes)?;
        }
        if assembly.next == size
            && let Some(pending) = assembly.pending.take()
        {
            pending.publish(std::mem::take(&mut assembly.hasher).finish())?;
            self.arrived(id, size);
            lock(&self.assemblies).remove(&key);
        }
        Ok(())
    }

    fn packed(&self, layer: u32, entries: &[u32], body: &[u8]) -> Result<(), AgentError> {
        let (_, toc) = self.toc(layer)?;
        let file = |entry: &u32| {
            let node = toc.entries.get(*entry as usize).and_then(|entry| object_of(&entry.node));
            node.ok_or_else(|| invalid(format!("entry {entry} of layer {layer} is no file")))
        };
        let files: Vec<(ObjectId, u64)> = entries.iter().map(file).collect::<Result<_, _>>()?;
        let total = files.iter().fold(0u64, |total, (_, size)| total.saturating_add(*size));
        let mut raw = self.buffers.take();
        frame::decompress(body, total, &mut raw)
            .map_err(|source| WireError::Unpack { what: format!("files of layer {layer}"), source })?;
        let mut rest = &raw[..];
        for (id, size) in files {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let (content, after) = rest.split_at_checked(size).ok_or_else(|| invalid("packed files"))?;
            rest = after;
            self.add(id, content)?;
        }
        self.buffers.give(raw);
        Ok(())
    }

    fn patch(
        &self,
        layer: u32,
        entry: u32,
        old: ObjectId,
        old_size: u64,
        body: &[u8],
    ) -> Result<(), AgentError> {
        let (_, toc) = self.toc(layer)?;
        let file = toc.entries.get(entry as usize).and_then(|entry| object_of(&entry.node));
        let (id, size) = file.ok_or_else(|| invalid(format!("entry {entry} of layer {layer} is no file")))?;
        if old_size > MAX_PATCH || size > MAX_PATCH {
            return Err(invalid("a patch of too large a file"));
        }
        if !self.is_lacking(id) {
            return Ok(());
        }
        let old = self.objects.read(old, old_size)?;
        let new = wire::apply_patch(&old, body, size)
            .map_err(|source| WireError::Unpack { what: format!("the patch of entry {entry}"), source })?;
        self.add(id, &new)
    }
}
