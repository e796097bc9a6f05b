//! Where a layer's tar stream is cut into pieces, each of which becomes one zstd frame.
//!
//! Entries stand in path order. A file of [`LARGE`] bytes and more is cut every [`PIECE`] bytes from its
//! own start, so its frames depend on its content alone. Everything between large files (headers, small
//! files, padding) forms runs; a run ends at a large file, after a file whose digest says so, or before
//! it would exceed [`PIECE`] bytes. A digest says so when its first 8 bytes, as a big-endian fraction of
//! 2^64, are below the entry's bytes in the tar over twice [`PIECE`]: on average every 8 MiB, wherever the
//! run began. So an edit moves cuts no further than to the next such file.
//!
//! # Invariants
//!
//! * Pieces cover the tar stream without gap or overlap, in order.
//! * The cuts are a function of the entries alone.

use std::ops::Range;

use super::{Entry, Node, tar};

/// Raised whenever the same files would make other bytes: cuts, headers, levels, tables. Layers that were
/// built before are then built again.
pub const REVISION: u32 = 1;

/// The most bytes of tar stream in one piece.
pub const PIECE: u64 = 4 << 20;

/// Files from this size on have pieces of their own.
///
/// A quarter of a piece: such a file compresses as well alone, can be compressed while its archive is
/// still being read, and its frames serve any bundle that holds the file.
pub const LARGE: u64 = 1 << 20;

/// One piece of a layer's tar stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Part of a large file's data.
    Data {
        /// Index of the file in the entries.
        entry: usize,
        /// Which bytes of the file.
        range: Range<u64>,
    },
    /// What stands between: padding of the large file before, then whole entries; a large file at the
    /// end counts with its header only; `end` says whether the tar's end follows.
    Run {
        /// Zero bytes that end the large file before.
        padding: u64,
        /// Indices of the entries.
        entries: Range<usize>,
        /// The two zero blocks that end the tar stand here.
        end: bool,
        /// Bytes in all.
        size: u64,
    },
}

impl Piece {
    /// Bytes of the tar stream in it.
    pub fn size(&self) -> u64 {
        match self {
            Self::Data { range, .. } => range.end - range.start,
            Self::Run { size, .. } => *size,
        }
    }
}

/// The zstd level of a run of `entries` entries in `size` bytes, where `level` is asked for.
///
/// Runs of very small files are compressed two levels harder: there the table of contents weighs most
/// (some 40 bytes a file), and this pays for it.
pub fn run_level(level: i32, entries: usize, size: u64) -> i32 {
    let tiny = size < entries as u64 * 6144;
    if tiny && (3..=17).contains(&level) { level + 2 } else { level }
}

/// Whether a file has pieces of its own.
pub fn is_large(size: u64) -> bool {
    size >= LARGE
}

/// A large file's pieces, as ranges of its bytes.
pub fn data_pieces(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(PIECE)).map(move |n| n * PIECE..((n + 1) * PIECE).min(size))
}

/// Cuts the tar stream of `entries`, which stand in path order.
pub fn pieces(entries: &[Entry]) -> Vec<Piece> {
    let mut cutter = Cutter::default();
    for (index, entry) in entries.iter().enumerate() {
        cutter.push(index, entry);
    }
    cutter.finish(entries.len())
}

#[derive(Default)]
struct Cutter {
    pieces: Vec<Piece>,
    /// Of the run that is open.
    padding: u64,
    start: usize,
    size: u64,
}

impl Cutter {
    fn push(&mut self, index: usize, entry: &Entry) {
        let header = tar::header_len(entry);
        let (data, digest) = match &entry.node {
            Node::File { size, digest, .. } => (*size, Some(digest)),
            Node::Directory | Node::Symlink { .. } | Node::HardLink { .. } => (0, None),
        };
        let large = is_large(data);
        let here = if large { header } else { header + data + tar::padding(data) };
        if self.size > 0 && self.size + here > PIECE {
            self.close(index);
        }
        self.size += here;
        if large {
            self.close(index + 1);
            self.pieces.extend(data_pieces(data).map(|range| Piece::Data { entry: index, range }));
            self.padding = tar::padding(data);
            self.size = self.padding;
        } else if digest.is_some_and(|digest| ends_run(digest.as_bytes(), here)) {
            self.close(index + 1);
        }
    }

    fn close(&mut self, end: usize) {
        if self.size > 0 {
            let entries = self.start..end;
            self.pieces.push(Piece::Run { padding: self.padding, entries, end: false, size: self.size });
        }
        (self.padding, self.start, self.size) = (0, end, 0);
    }

    fn finish(mut self, count: usize) -> Vec<Piece> {
        if self.size > 0 && self.size + tar::END > PIECE {
            self.close(count);
        }
        let (padding, entries, size) = (self.padding, self.start..count, self.size + tar::END);
        self.pieces.push(Piece::Run { padding, entries, end: true, size });
        self.pieces
    }
}

/// Whether a run ends after a file with this digest that takes `size` bytes of the tar.
fn ends_run(digest: &[u8; 32], size: u64) -> bool {
    let fraction = digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    u128::from(fraction) * u128::from(2 * PIECE) < u128::from(size) << 64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{BundlePath, Digest};

    fn file(name: &str, size: u64, seed: u64) -> Entry {
        let digest = Digest::of(format!("{name} {seed}").as_bytes());
        Entry { path: BundlePath::new(name).unwrap(), node: Node::File { mode: 0o644, size, digest } }
    }

    fn cuts(entries: &[Entry]) -> Vec<String> {
        let name = |n: usize| entries.get(n).map_or("end", |entry| entry.path.as_str()).to_owned();
        pieces(entries)
            .iter()
            .map(|piece| match piece {
                Piece::Data { entry, range } => format!("{} {range:?}", name(*entry)),
                Piece::Run { entries, .. } => name(entries.start),
            })
            .collect()
    }

    #[test]
    fn pieces_cover_the_stream_and_stay_small() {
        let sizes = [0, 1, 511, 512, 70_000, LARGE - 1, LARGE, PIECE, PIECE + 1, 3 * PIECE + 77, 5];
        let entries: Vec<_> =
            (0..200).map(|n| file(&format!("f{n:04}"), sizes[n % sizes.len()], 0)).collect();
        let pieces = pieces(&entries);
        let total: u64 = entries
            .iter()
            .map(|e| match e.node {
                Node::File { size, .. } => 512 + size.next_multiple_of(512),
                _ => 0,
            })
            .sum();
        assert_eq!(pieces.iter().map(Piece::size).sum::<u64>(), total + tar::END);
        assert!(pieces.iter().all(|piece| piece.size() <= PIECE && piece.size() > 0));
    }

    #[test]
    fn an_edit_moves_only_the_cuts_next_to_it() {
        let entries: Vec<_> = (0..20_000).map(|n| file(&format!("f{n:05}"), 3_000 + n % 7_000, 0)).collect();
        let before = cuts(&entries);
        for edited in [10, 777, 10_000, 19_990] {
            let mut changed = entries.clone();
            changed[edited] = file(entries[edited].path.as_str(), 5_000, 1);
            let after = cuts(&changed);
            let gone = before.iter().filter(|cut| !after.contains(cut)).count();
            assert!(gone <= 8, "{gone} of {} cuts moved", before.len());
        }
    }

    fn sizes() -> impl Strategy<Value = Vec<u64>> {
        let size = prop_oneof![8 => 0u64..20_000, 3 => 100_000..LARGE, 1 => LARGE..3 * PIECE];
        prop::collection::vec(size, 1..400)
    }

    fn numbered(sizes: &[u64]) -> Vec<Entry> {
        sizes.iter().enumerate().map(|(n, size)| file(&format!("f{n:04}"), *size, 0)).collect()
    }

    proptest! {
        /// Cuts before the edited entry's own piece stay, and from the first cut behind it that both have
        /// in common, all do.
        #[test]
        fn cuts_are_local(sizes in sizes(), at: prop::sample::Index, size in 0..2 * LARGE, removed: bool) {
            let entries = numbered(&sizes);
            let mut changed = entries.clone();
            let edited = at.index(entries.len());
            let path = entries[edited].path.as_str();
            if removed && entries.len() > 1 {
                changed.remove(edited);
            } else {
                changed[edited] = file(path, size, 1);
            }
            let (before, after) = (cuts(&entries), cuts(&changed));
            let head = before.iter().take_while(|cut| cut.as_str() < path).count().saturating_sub(1);
            prop_assert_eq!(&before[..head], &after[..head.min(after.len())]);
            let behind = |cut: &&String| cut.split(' ').next().is_some_and(|name| name > path && name != "end");
            if let Some(common) = before.iter().filter(behind).find(|cut| after.contains(cut)) {
                let tail = |cuts: &[String]| -> Vec<String> {
                    cuts.iter().skip_while(|cut| *cut != common).cloned().collect()
                };
                prop_assert_eq!(tail(&before), tail(&after));
            }
        }

        #[test]
        fn pieces_cover_the_stream(sizes in sizes()) {
            let pieces = pieces(&numbered(&sizes));
            let total: u64 = sizes.iter().map(|size| 512 + size.next_multiple_of(512)).sum();
            prop_assert_eq!(pieces.iter().map(Piece::size).sum::<u64>(), total + tar::END);
            prop_assert!(pieces.iter().all(|piece| piece.size() <= PIECE && piece.size() > 0));
        }
    }
}
