//! What goes into the stream for what a node lacks, and the bytes of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::source::{At, Source};
use crate::agent::ObjectId;
use crate::agent::wire::{Choice, Item, Missing, choose, pack};
use crate::bundle::layout;
use crate::model::Digest;
use crate::store::StoreError;

/// The level at which a few files of a frame are packed anew.
const LEVEL: i32 = 3;

/// A part of the stream that more than one node may want.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    /// A frame as it is.
    Frame { layer: usize, frame: usize },
    /// A few files of one frame.
    Packed { layer: usize, entries: Vec<usize> },
}

/// A piece, whichever bundle it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PieceKey {
    blob: Digest,
    /// It is part of the item's head.
    layer: usize,
    piece: Piece,
}

impl Piece {
    pub(super) fn key(&self, source: &Source) -> PieceKey {
        let (Self::Frame { layer, .. } | Self::Packed { layer, .. }) = self;
        PieceKey { blob: source.layers[*layer].digest(), layer: *layer, piece: self.clone() }
    }

    /// Bytes that its item has, at most; for a frame exactly, but for the head.
    pub(super) fn bound(&self, source: &Source) -> u64 {
        match self {
            Self::Frame { layer, frame } => source.layers[*layer].toc.frames[*frame].size + 64,
            Self::Packed { layer, entries } => {
                let toc = &source.layers[*layer].toc;
                entries.iter().map(|entry| toc.entries[*entry].size() + 8).sum::<u64>() + 1024
            }
        }
    }

    /// Bytes that it will probably have, for progress.
    pub(super) fn estimate(&self, source: &Source) -> u64 {
        match self {
            Self::Frame { .. } => self.bound(source),
            Self::Packed { layer, entries } => {
                entries.iter().map(|entry| source.packed_share(At { layer: *layer, entry: *entry })).sum()
            }
        }
    }

    /// Its item, as the stream has it, into an empty buffer. Reads the store.
    pub(super) fn read(&self, source: &Source, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let item = match self {
            Self::Frame { layer, frame } => {
                let reader = &source.layers[*layer];
                let described = &reader.toc.frames[*frame];
                let size = u32::try_from(described.size).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&Item::frame_head(number(*layer), number(*frame), size));
                return reader.append_packed(described, bytes);
            }
            Self::Packed { layer, entries } => {
                let contents = contents(source, *layer, entries)?;
                let body = pack(&contents, LEVEL).map_err(|error| StoreError::Damaged {
                    digest: source.layers[*layer].digest(),
                    what: format!("files cannot be packed: {error}"),
                })?;
                let entries = entries.iter().map(|entry| number(*entry)).collect();
                Item::Packed { layer: number(*layer), entries, body }
            }
        };
        bytes.extend_from_slice(&item.head());
        bytes.extend_from_slice(item.body());
        Ok(())
    }
}

/// The contents of entries that stand in one frame, one after another.
fn contents(source: &Source, layer: usize, entries: &[usize]) -> Result<Vec<u8>, StoreError> {
    let reader = &source.layers[layer];
    let Some(first) = entries.first() else { return Ok(Vec::new()) };
    let frames = source.frames_of(At { layer, entry: *first });
    let frame = reader.toc.frames[frames.start];
    reader.with_frame(&frame, |raw| {
        let mut out = Vec::new();
        for entry in entries {
            let start = reader.toc.offsets[*entry].checked_sub(frame.tar_offset);
            let size = reader.toc.entries[*entry].size();
            let range = start
                .and_then(|start| Some(usize::try_from(start).ok()?..usize::try_from(start + size).ok()?));
            let content = range.and_then(|range| raw.get(range));
            out.extend_from_slice(content.ok_or_else(|| StoreError::Damaged {
                digest: reader.digest(),
                what: "a file is not where its table says".to_owned(),
            })?);
        }
        Ok(out)
    })
}

/// What a node lacks, as places and objects.
pub(super) struct Lacking {
    by_place: HashMap<At, ObjectId>,
}

impl Lacking {
    /// From the node's answer; places that the bundle does not have are left out.
    pub(super) fn new(source: &Source, missing: &Missing) -> Self {
        let inside = |at: &At| {
            let ranges = missing.layers.get(at.layer);
            ranges.is_some_and(|ranges| {
                let next = ranges.partition_point(|(start, _)| *start <= at.entry);
                next > 0 && at.entry < ranges[next - 1].1
            })
        };
        let by_place = source.files().filter(|(at, ..)| inside(at)).map(|(at, _, id)| (at, id)).collect();
        Self { by_place }
    }

    /// These places of a bundle.
    pub(super) fn of(source: &Source, places: &[At]) -> Self {
        let wanted: HashSet<&At> = places.iter().collect();
        let found = source.files().filter(|(at, ..)| wanted.contains(at));
        Self { by_place: found.map(|(at, _, id)| (at, id)).collect() }
    }

    pub(super) fn has(&self, at: At) -> bool {
        self.by_place.contains_key(&at)
    }

    pub(super) fn remove(&mut self, at: At) {
        self.by_place.remove(&at);
    }

    /// Pieces that hold all of it, in the order of the blobs.
    pub(super) fn pieces(&self, source: &Source) -> Vec<Piece> {
        let mut ranges: Vec<Vec<(usize, usize)>> = vec![Vec::new(); source.layers.len()];
        for at in self.by_place.keys().collect::<BTreeSet<_>>() {
            match ranges[at.layer].last_mut() {
                Some((_, end)) if *end == at.entry => *end += 1,
                _ => ranges[at.layer].push((at.entry, at.entry + 1)),
            }
        }
        let mut pieces = Vec::new();
        for (layer, ranges) in ranges.iter().enumerate() {
            pieces.extend(choose(&source.layers[layer].toc, ranges).into_iter().map(|choice| match choice {
                Choice::Frame(frame) => Piece::Frame { layer, frame },
                Choice::Packed(entries) => Piece::Packed { layer, entries },
            }));
        }
        pieces
    }

    /// Small files that stand in frames that travel as they are: they come for nothing.
    pub(super) fn covered(source: &Source, pieces: &[Piece]) -> BTreeSet<(usize, usize)> {
        let frames = pieces.iter().filter_map(|piece| match piece {
            Piece::Frame { layer, frame } => Some((*layer, *frame)),
            Piece::Packed { .. } => None,
        });
        frames.filter(|(layer, frame)| source.layers[*layer].toc.frames.len() > *frame).collect()
    }
}

/// Whether a file stands in a frame of `frames`, and in no other.
pub(super) fn is_covered(source: &Source, frames: &BTreeSet<(usize, usize)>, at: At) -> bool {
    !layout::is_large(source.entry(at).size())
        && source.frames_of(at).all(|frame| frames.contains(&(at.layer, frame)))
}
