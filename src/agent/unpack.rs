//! Items of a push become objects, many at a time.
//!
//! # Invariants
//!
//! * Bytes held in memory stay within [`BUDGET`], whatever is sent, and however fast.
//! * Pieces of large files are written as they come, and hashed in their order.
//! * Only contents that are lacking are written, and only under their own digests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::bundles::object_of;
use super::error::AgentError;
use super::objects::{ObjectError, ObjectId, Objects, Pending};
use super::wire::{self, Item, MAX_PATCH, WireError};
use super::workers;
use crate::bundle::{Toc, frame, layout};
use crate::fs::{AlignedBuffer, IoResultExt as _};
use crate::model::{Buffers, Digest, Hasher};

/// Bytes of items, packed and unpacked, that are under way at a time.
const BUDGET: u64 = 96 << 20;

/// Buffers that are kept to be used again.
const MAX_KEPT: usize = 8;

const PIECE: usize = 4 << 20;
const _: () = assert!(PIECE as u64 == layout::PIECE);

/// Room for one unpacked frame, aligned as direct writing wants it.
struct Raw {
    room: AlignedBuffer,
    size: usize,
}

impl Raw {
    fn new() -> Self {
        Self { room: AlignedBuffer::new(PIECE), size: 0 }
    }

    /// Unpacks a frame of `size` bytes into it.
    fn unpack(&mut self, frame: &[u8], size: u64) -> std::io::Result<()> {
        self.size = usize::try_from(size).unwrap_or(usize::MAX).min(PIECE);
        frame::decompress_exact(frame, &mut self.room[..self.size])
    }

    /// Reads the next `size` bytes into it.
    fn fill(&mut self, from: &mut impl Read, size: u64) -> std::io::Result<()> {
        self.size = usize::try_from(size).unwrap_or(usize::MAX).min(PIECE);
        from.read_exact(&mut self.room[..self.size])
    }

    fn get(&self) -> &[u8] {
        &self.room[..self.size]
    }
}

/// What zstd has for itself while a patch is applied.
const SEARCHED: u64 = 256 << 10;

const OUT_OF_ORDER: &str = "the pieces of a large file are not in order";

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
        room: (Mutex::new(Room { left: BUDGET, running: 0 }), Condvar::new()),
        failure: Mutex::new(None),
        wire_bytes: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        buffers: Buffers::at_most(MAX_KEPT, 2 * PIECE),
        raws: Mutex::default(),
    };
    receiver.run(from)?;
    let left = lock(&receiver.lacking).len();
    let (bytes, wire_bytes) =
        (receiver.bytes.load(Ordering::Relaxed), receiver.wire_bytes.load(Ordering::Relaxed));
    Ok(Arrived { bytes, wire_bytes, left })
}

/// A large file, piece by piece.
struct Assembly<'a> {
    /// Shared with whoever is writing a piece; `None` once it is published.
    pending: Option<Arc<Pending<'a>>>,
    hasher: Hasher,
    next: u64,
    /// Where pieces begin that are there or being written.
    claimed: HashSet<u64>,
    /// Written, but not hashed yet, with the room that each takes.
    waiting: BTreeMap<u64, (Raw, u64)>,
}

impl<'a> Assembly<'a> {
    fn new(pending: Pending<'a>) -> Self {
        let (claimed, waiting) = (HashSet::new(), BTreeMap::new());
        Self { pending: Some(Arc::new(pending)), hasher: Hasher::new(), next: 0, claimed, waiting }
    }
}

/// What there is room for.
struct Room {
    /// Bytes.
    left: u64,
    /// Items that are being worked on, and will give back their room or hand it on to what they leave waiting.
    running: usize,
}

/// Part of a large file, unpacked.
struct Piece {
    key: (usize, usize),
    id: ObjectId,
    /// Bytes of the file.
    size: u64,
    /// Where in the file it begins.
    at: u64,
    raw: Raw,
}

/// Large files by layer and entry; each is locked by whoever writes its next piece.
type Assemblies<'a> = HashMap<(usize, usize), Arc<Mutex<Assembly<'a>>>>;

struct Receiver<'a> {
    tocs: &'a [Toc],
    objects: &'a Objects,
    lacking: Mutex<Lacking>,
    assemblies: Mutex<Assemblies<'a>>,
    room: (Mutex<Room>, Condvar),
    failure: Mutex<Option<AgentError>>,
    wire_bytes: AtomicU64,
    bytes: AtomicU64,
    buffers: Buffers,
    raws: Mutex<Vec<Raw>>,
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
                    Item::Patch { layer, entry, old_size, body, .. } => {
                        let size = self.file(*layer, *entry).map_or(0, |(_, size)| size);
                        // What is written is copied together once more, a large content piece by piece.
                        let copied = size.min(layout::PIECE);
                        body.len() as u64 + old_size + wire::memory_of(body, size) + copied + SEARCHED
                    }
                }
                .min(BUDGET);
                self.take_room(weight)?;
                scope.spawn(move |_| {
                    let back = self.item(item, weight).unwrap_or_else(|error| {
                        // The first is the one to tell; later ones may follow from it.
                        lock(&self.failure).get_or_insert(error);
                        weight
                    });
                    let mut room = lock(&self.room.0);
                    room.left += back;
                    room.running -= 1;
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

    /// Waits for room. What takes it all and waits itself, for a piece that was not sent before it, waits in vain.
    fn take_room(&self, weight: u64) -> Result<(), AgentError> {
        let mut room = lock(&self.room.0);
        while room.left < weight {
            if room.running == 0 {
                return Err(invalid(OUT_OF_ORDER));
            }
            room = self.room.1.wait(room).unwrap_or_else(PoisonError::into_inner);
        }
        room.left -= weight;
        room.running += 1;
        Ok(())
    }

    fn toc(&self, layer: u32) -> Result<(usize, &'a Toc), AgentError> {
        let index = layer as usize;
        self.tocs
            .get(index)
            .map(|toc| (index, toc))
            .ok_or_else(|| invalid(format!("there is no layer {layer}")))
    }

    /// Works on an item that takes `weight` of the room; says how much room there is again.
    fn item(&self, item: Item, weight: u64) -> Result<u64, AgentError> {
        match item {
            Item::End => {}
            Item::Frame { layer, frame, body } => {
                let raw = self.frame(layer, frame, &body)?;
                self.buffers.give(body);
                if let Some(piece) = raw {
                    return self.piece(piece, weight);
                }
            }
            Item::Packed { layer, entries, body } => self.packed(layer, &entries, &body)?,
            Item::Patch { layer, entry, old, old_size, body } => {
                self.patch(layer, entry, old, old_size, &body)?;
            }
        }
        Ok(weight)
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

    /// Adds the files of a frame; hands on the piece of a large one.
    fn frame(&self, layer: u32, number: u32, body: &[u8]) -> Result<Option<Piece>, AgentError> {
        let (index, toc) = self.toc(layer)?;
        let described = toc.frames.get(number as usize);
        let described = described.ok_or_else(|| invalid(format!("layer {layer} has no frame {number}")))?;
        let mut raw = self.raw();
        raw.unpack(body, described.tar_size).map_err(|source| WireError::Unpack {
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
            if to - from == size {
                let piece = usize::try_from(from - start).ok().zip(usize::try_from(to - start).ok());
                let piece = piece.and_then(|(from, to)| raw.get().get(from..to));
                self.add(id, piece.ok_or_else(|| invalid("a frame's place"))?)?;
            } else if (from, to) == (start, end) {
                return Ok(Some(Piece { key: (index, at), id, size, at: from - offset, raw }));
            } else {
                return Err(invalid("part of a file in a frame of other files"));
            }
        }
        self.keep(raw);
        Ok(None)
    }

    fn raw(&self) -> Raw {
        let kept = lock(&self.raws).pop();
        kept.unwrap_or_else(Raw::new)
    }

    fn keep(&self, raw: Raw) {
        let mut raws = lock(&self.raws);
        if raws.len() < MAX_KEPT {
            raws.push(raw);
        }
    }

    /// Writes a piece of a large file, and hashes it and those that wait for it once it is its turn; says how much
    /// room there is again.
    fn piece(&self, piece: Piece, weight: u64) -> Result<u64, AgentError> {
        let Piece { key, id, size, at, raw } = piece;
        let assembly = {
            let mut assemblies = lock(&self.assemblies);
            if let Some(assembly) = assemblies.get(&key) {
                Arc::clone(assembly)
            } else {
                let new = Assembly::new(self.objects.begin_large(id)?);
                Arc::clone(assemblies.entry(key).or_insert_with(|| Arc::new(Mutex::new(new))))
            }
        };
        let pending = {
            let mut assembly = lock(&assembly);
            // Nothing is written over what may have been hashed already.
            if !assembly.claimed.insert(at) {
                return Err(invalid(OUT_OF_ORDER));
            }
            let Some(pending) = assembly.pending.clone() else { return Ok(weight) };
            pending
        };
        pending.write_at(raw.get(), at)?;
        drop(pending);
        let mut assembly = lock(&assembly);
        let assembly = &mut *assembly;
        assembly.waiting.insert(at, (raw, weight));
        let mut back = 0;
        while let Some((raw, weight)) = assembly.waiting.remove(&assembly.next) {
            assembly.hasher.update(raw.get());
            assembly.next += raw.get().len() as u64;
            back += weight;
            self.keep(raw);
        }
        // All pieces were written: each that is hashed was let go of by its writer before.
        if assembly.next == size
            && let Some(pending) = assembly.pending.take().and_then(Arc::into_inner)
        {
            pending.publish(std::mem::take(&mut assembly.hasher).finish())?;
            self.arrived(id, size);
            lock(&self.assemblies).remove(&key);
        }
        Ok(back)
    }

    fn packed(&self, layer: u32, entries: &[u32], body: &[u8]) -> Result<(), AgentError> {
        let files = entries.iter().map(|entry| self.file(layer, *entry));
        let files: Vec<(ObjectId, u64)> = files.collect::<Result<_, _>>()?;
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
        let (id, size) = self.file(layer, entry)?;
        if old_size > MAX_PATCH || size > MAX_PATCH {
            return Err(invalid("a patch of too large a file"));
        }
        if !self.is_lacking(id) {
            return Ok(());
        }
        // What comes of it is hashed: the old content is only if that is not what it should be, to tell whose fault it is.
        let content = self.objects.read_unchecked(old, old_size)?;
        let add = || {
            let parts = wire::patched(&content, body, size).map_err(|source| WireError::Unpack {
                what: format!("the patch of entry {entry}"),
                source,
            })?;
            if layout::is_large(size) {
                self.add_large(id, size, &parts.each_ref().map(|part| &**part))
            } else {
                self.add(id, &parts.concat())
            }
        };
        add().map_err(|error: AgentError| match Digest::of(&content) {
            found if found == old.digest => error,
            found => ObjectError::Content { wanted: old.digest, found }.into(),
        })
    }

    /// Adds a large content, which `parts` make one after another: hashed and written at the same time.
    fn add_large(&self, id: ObjectId, size: u64, parts: &[&[u8]; 3]) -> Result<(), AgentError> {
        let pending = self.objects.begin_large(id)?;
        let hash = || {
            let mut hasher = Hasher::new();
            for part in parts {
                hasher.update(part);
            }
            hasher.finish()
        };
        let write = || -> Result<(), AgentError> {
            let mut from = parts[0].chain(parts[1]).chain(parts[2]);
            let mut raw = self.raw();
            for piece in layout::data_pieces(size) {
                raw.fill(&mut from, piece.end - piece.start).at("write", self.objects.path())?;
                pending.write_at(raw.get(), piece.start)?;
            }
            self.keep(raw);
            Ok(())
        };
        let (found, written) = rayon::join(hash, write);
        written?;
        pending.publish(found)?;
        self.arrived(id, size);
        Ok(())
    }

    /// The object of a layer's entry, and its size.
    fn file(&self, layer: u32, entry: u32) -> Result<(ObjectId, u64), AgentError> {
        let (_, toc) = self.toc(layer)?;
        let file = toc.entries.get(entry as usize).and_then(|entry| object_of(&entry.node));
        file.ok_or_else(|| invalid(format!("entry {entry} of layer {layer} is no file")))
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;
    use crate::agent::layout::Root;
    use crate::bundle::{Entry, Frame, Node};
    use crate::model::{BundlePath, Digest};

    /// More than there is room for at a time.
    const SIZE: usize = 26 * PIECE + 5000;

    struct Large {
        content: Vec<u8>,
        id: ObjectId,
        toc: Toc,
    }

    impl Large {
        /// A large file, the only one of its layer; what stands before its data is of no interest here.
        fn new() -> Self {
            let content: Vec<u8> = (0..=250u8).cycle().flat_map(|byte| [byte; 999]).take(SIZE).collect();
            let id = ObjectId { digest: Digest::of(&content), executable: false };
            let node = Node::File { mode: 0o644, size: SIZE as u64, digest: id.digest };
            let frames = layout::data_pieces(SIZE as u64).map(|range| Frame {
                offset: 0,
                size: 0,
                tar_offset: 512 + range.start,
                tar_size: range.end - range.start,
            });
            let toc = Toc {
                entries: vec![Entry { path: BundlePath::new("large").unwrap(), node }],
                offsets: vec![512],
                frames: frames.collect(),
            };
            Self { content, id, toc }
        }

        /// The items of these frames, and the end.
        fn stream(&self, frames: impl IntoIterator<Item = usize>) -> Vec<u8> {
            let mut stream = Vec::new();
            for number in frames {
                let piece = self.content.chunks(PIECE).nth(number).unwrap();
                let mut body = Vec::new();
                frame::compress_data(piece, 1, &mut body).unwrap();
                let frame = u32::try_from(number).unwrap();
                Item::Frame { layer: 0, frame, body }.write(&mut stream).unwrap();
            }
            Item::End.write(&mut stream).unwrap();
            stream
        }

        fn receive(&self, stream: &[u8], objects: &Objects) -> Result<Arrived, AgentError> {
            let lacking = Lacking::from([(self.id, (0, 0, SIZE as u64))]);
            unpack(std::slice::from_ref(&self.toc), objects, lacking, &mut &stream[..])
        }
    }

    fn root() -> (tempfile::TempDir, Root) {
        // Not on a file system in memory, where nothing can be written past the page cache.
        let temporary = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().join("root")).unwrap();
        (temporary, Root::create(&path, 0o700).unwrap())
    }

    #[test]
    fn a_large_file_is_whole_in_whatever_order_its_pieces_come() {
        let (_keep, root) = root();
        let large = Large::new();
        for order in [(0..27).collect::<Vec<_>>(), [3, 1, 2, 0, 26].into_iter().chain(4..26).collect()] {
            let objects = Objects::open_to_add(&root).unwrap();
            let arrived = large.receive(&large.stream(order), &objects).unwrap();
            assert_eq!((arrived.left, arrived.bytes), (0, SIZE as u64));
            assert!(objects.has(large.id, SIZE as u64));
            assert!(objects.read(large.id, SIZE as u64).unwrap() == large.content);
        }
    }

    #[test]
    fn a_piece_that_never_comes_is_not_waited_for() {
        let (_keep, root) = root();
        let large = Large::new();
        let objects = Objects::open_to_add(&root).unwrap();
        let said = |stream: &[u8]| large.receive(stream, &objects).unwrap_err().to_string();
        assert!(large.receive(&large.stream([1, 2]), &objects).unwrap().left == 1);
        // The others wait for the first, and take all the room meanwhile.
        assert!(said(&large.stream((1..27).chain([0]))).contains(OUT_OF_ORDER));
        assert!(said(&large.stream([0, 1, 2, 2])).contains(OUT_OF_ORDER));
        assert!(!objects.has(large.id, SIZE as u64));
    }
}
