//! A layer's table of contents: which files it holds and in which frames.
//!
//! Written as columns of variable-length numbers (LEB128) and bytes, compressed as one zstd frame;
//! `docs/format.md` has the layout. What can be computed is not stored: a file's place in the tar
//! follows from the entries before it.
//!
//! # Invariants
//!
//! * Decoding trusts nothing: every count, length, path and total is checked, and memory stays within
//!   a small multiple of the bytes given.
//! * Decoding what was encoded gives the same table, and encoding is a function of the table alone.

use std::io::Read as _;

use super::{Entry, Node, layout, tar};
use crate::model::{BundlePath, Digest};

/// The version of the table's layout; a reader refuses others.
pub const TOC_FORMAT: u64 = 1;

/// zstd level of the table: small, made once, read often.
const LEVEL: i32 = 9;

/// The most bytes a table may unpack to: 1 GiB, some ten million files.
const MAX_UNPACKED: u64 = 1 << 30;

/// One zstd frame of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it starts in the blob.
    pub offset: u64,
    /// Its bytes in the blob.
    pub size: u64,
    /// Where its content starts in the tar.
    pub tar_offset: u64,
    /// Bytes of the tar in it; the frame's content size.
    pub tar_size: u64,
}

/// A layer's table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toc {
    /// In path order.
    pub entries: Vec<Entry>,
    /// Where each entry's data starts in the tar (for one without data: where it would).
    pub offsets: Vec<u64>,
    /// In order; they cover the tar.
    pub frames: Vec<Frame>,
}

/// Why bytes are no table of contents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TocError {
    /// A newer windlass wrote it.
    #[error("the table of contents has format {0}; this windlass reads format {TOC_FORMAT}")]
    Newer(u64),
    /// Not zstd, or too large.
    #[error("the table of contents cannot be unpacked")]
    Unpack(#[source] std::io::Error),
    /// The columns end early, or bytes are left over.
    #[error("the table of contents is cut short or has bytes left over")]
    Length,
    /// A value that no layer has.
    #[error("the table of contents is not valid: {0}")]
    Invalid(String),
}

impl Toc {
    /// The table for `entries`, cut as [`layout::pieces`] cuts them, with each frame's size in the blob.
    pub fn new(entries: Vec<Entry>, sizes: impl IntoIterator<Item = u64>) -> Self {
        let pieces = layout::pieces(&entries);
        Self::of_pieces(entries, &pieces, sizes)
    }

    fn of_pieces(
        entries: Vec<Entry>,
        pieces: &[layout::Piece],
        sizes: impl IntoIterator<Item = u64>,
    ) -> Self {
        let (mut offset, mut tar_offset) = (0, 0);
        let frames = pieces
            .iter()
            .zip(sizes)
            .map(|(piece, size)| {
                let frame = Frame { offset, size, tar_offset, tar_size: piece.size() };
                offset += size;
                tar_offset += piece.size();
                frame
            })
            .collect();
        let offsets = data_offsets(&entries);
        Self { entries, offsets, frames }
    }

    /// Which entry has this path.
    pub fn find(&self, path: &BundlePath) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()
    }

    /// Bytes of all regular files' content; other names of a file do not count again.
    pub fn unpacked_size(&self) -> u64 {
        self.entries.iter().map(Entry::size).sum()
    }

    /// Regular files and hard links.
    pub fn files(&self) -> u64 {
        self.entries
            .iter()
            .filter(|entry| matches!(entry.node, Node::File { .. } | Node::HardLink { .. }))
            .count() as u64
    }

    /// Bytes of the tar stream.
    pub fn tar_size(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.tar_offset + frame.tar_size)
    }

    /// Bytes of all frames, which is where the table itself begins in the blob.
    pub fn frames_size(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.offset + frame.size)
    }

    /// The frames that hold `size` bytes of the tar from `offset` on.
    pub fn frames_of(&self, offset: u64, size: u64) -> &[Frame] {
        if size == 0 {
            return &[];
        }
        let start = self.frames.partition_point(|frame| frame.tar_offset + frame.tar_size <= offset);
        let end = self.frames.partition_point(|frame| frame.tar_offset < offset + size);
        &self.frames[start.min(end)..end]
    }

    /// The compressed bytes of the table.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut columns = Columns::default();
        let mut before = "";
        for (index, entry) in self.entries.iter().enumerate() {
            columns.push(before, entry, &self.entries[..index]);
            before = entry.path.as_str();
        }
        let mut raw = Vec::new();
        number(&mut raw, TOC_FORMAT);
        number(&mut raw, self.entries.len() as u64);
        number(&mut raw, self.frames.len() as u64);
        for column in columns.0 {
            number(&mut raw, column.len() as u64);
            raw.extend_from_slice(&column);
        }
        for frame in &self.frames {
            number(&mut raw, frame.size);
        }
        zstd::bulk::compress(&raw, LEVEL)
    }

    /// Reads and checks a table.
    pub fn decode(bytes: &[u8]) -> Result<Self, TocError> {
        let mut raw = Vec::new();
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(bytes).map_err(TocError::Unpack)?.single_frame();
        decoder.by_ref().take(MAX_UNPACKED + 1).read_to_end(&mut raw).map_err(TocError::Unpack)?;
        if raw.len() as u64 > MAX_UNPACKED || !decoder.finish().is_empty() {
            return Err(TocError::Length);
        }
        Reader(&raw).toc()
    }
}

/// Where each entry's data starts in the tar.
fn data_offsets(entries: &[Entry]) -> Vec<u64> {
    let mut at = 0;
    entries
        .iter()
        .map(|entry| {
            let start = at + tar::header_len(entry);
            at = start + entry.size() + tar::padding(entry.size());
            start
        })
        .collect()
}

/// kinds, path prefix lengths, path suffix lengths, path suffixes, sizes, modes, digests, link lengths,
/// links, hard link targets.
#[derive(Default)]
struct Columns([Vec<u8>; 10]);

impl Columns {
    fn push(&mut self, before: &str, entry: &Entry, earlier: &[Entry]) {
        let [kinds, prefixes, lengths, suffixes, sizes, modes, digests, link_lengths, links, targets] =
            &mut self.0;
        let path = entry.path.as_str();
        let shared = before.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
        number(prefixes, shared as u64);
        number(lengths, (path.len() - shared) as u64);
        suffixes.extend_from_slice(&path.as_bytes()[shared..]);
        kinds.push(match &entry.node {
            Node::Directory => 0,
            Node::File { mode: 0o644, .. } => 1,
            Node::File { mode: 0o755, .. } => 2,
            Node::File { .. } => 3,
            Node::Symlink { .. } => 4,
            Node::HardLink { .. } => 5,
        });
        match &entry.node {
            Node::Directory => {}
            Node::File { mode, size, digest } => {
                number(sizes, *size);
                digests.extend_from_slice(digest.as_bytes());
                if !matches!(mode, 0o644 | 0o755) {
                    number(modes, u64::from(*mode));
                }
            }
            Node::Symlink { target } => {
                number(link_lengths, target.len() as u64);
                links.extend_from_slice(target.as_bytes());
            }
            Node::HardLink { target } => {
                // The layer's maker puts a file before its other names; an absent one encodes as itself,
                // which decoding refuses.
                let at = earlier.binary_search_by(|entry| entry.path.cmp(target)).unwrap_or(earlier.len());
                number(targets, at as u64);
            }
        }
    }
}

/// Appends a number as LEB128.
fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// What is left of a column.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: u64) -> Result<&'a [u8], TocError> {
        let count = usize::try_from(count).map_err(|_| TocError::Length)?;
        let (head, rest) = self.0.split_at_checked(count).ok_or(TocError::Length)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, TocError> {
        Ok(self.bytes(1)?[0])
    }

    fn number(&mut self) -> Result<u64, TocError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // One way to write each number, so that one table has one encoding.
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(invalid("a number is too large or not written in its shortest form"))
    }

    fn done(&self) -> Result<(), TocError> {
        if self.0.is_empty() { Ok(()) } else { Err(TocError::Length) }
    }

    fn toc(mut self) -> Result<Toc, TocError> {
        let format = self.number()?;
        if format != TOC_FORMAT {
            return Err(TocError::Newer(format));
        }
        let (count, frame_count) = (self.number()?, self.number()?);
        let mut columns: [Reader<'_>; 10] = std::array::from_fn(|_| Reader(&[]));
        for column in &mut columns {
            let length = self.number()?;
            *column = Reader(self.bytes(length)?);
        }
        if columns[0].0.len() as u64 != count || frame_count > self.0.len() as u64 {
            return Err(TocError::Length);
        }
        let entries = read_entries(&mut columns)?;
        columns.iter().try_for_each(Reader::done)?;
        let sizes = (0..frame_count).map(|_| self.number()).collect::<Result<Vec<_>, _>>()?;
        self.done()?;
        // Asked first, so that a lying size cannot ask for a table of millions of pieces.
        let data: u64 = entries.iter().map(Entry::size).sum();
        let pieces = if data / layout::PIECE > frame_count { Vec::new() } else { layout::pieces(&entries) };
        if pieces.len() != sizes.len() {
            return Err(invalid("its frames are not those that its files make"));
        }
        let total = sizes.iter().try_fold(0u64, |sum, size| sum.checked_add(*size));
        if sizes.contains(&0) || total.is_none() {
            return Err(invalid("a frame's size is impossible"));
        }
        Ok(Toc::of_pieces(entries, &pieces, sizes))
    }
}

fn invalid(what: impl Into<String>) -> TocError {
    TocError::Invalid(what.into())
}

fn read_entries(columns: &mut [Reader<'_>; 10]) -> Result<Vec<Entry>, TocError> {
    let [kinds, prefixes, lengths, suffixes, sizes, modes, digests, link_lengths, links, targets] = columns;
    let mut entries: Vec<Entry> = Vec::with_capacity(kinds.0.len());
    let mut total = 0u64;
    while !kinds.0.is_empty() {
        let before = entries.last().map_or("", |entry| entry.path.as_str());
        let shared = usize::try_from(prefixes.number()?).unwrap_or(usize::MAX);
        let head = before.as_bytes().get(..shared).ok_or_else(|| invalid("a path shares too much"))?;
        let tail = suffixes.bytes(lengths.number()?)?;
        let text = String::from_utf8([head, tail].concat()).map_err(|_| invalid("a path is not UTF-8"))?;
        let path = BundlePath::plain(text).map_err(|text| match BundlePath::new(&text) {
            Ok(_) => invalid(format!("`{text}` is not in its plain form")),
            Err(error) => invalid(format!("`{text}`: {error}")),
        })?;
        if !entries.is_empty() && before >= path.as_str() {
            return Err(invalid(format!("`{path}` is not in path order")));
        }
        let node = match kinds.byte()? {
            0 => Node::Directory,
            kind @ 1..=3 => {
                let mode = match kind {
                    1 => 0o644,
                    2 => 0o755,
                    _ => special_mode(modes.number()?)?,
                };
                let mut digest = [0; 32];
                digest.copy_from_slice(digests.bytes(32)?);
                let size = sizes.number()?;
                total = total
                    .checked_add(size)
                    .filter(|total| *total < 1 << 48)
                    .ok_or_else(|| invalid("its files' sizes are impossible"))?;
                Node::File { mode, size, digest: Digest::from_bytes(digest) }
            }
            4 => {
                let target = std::str::from_utf8(links.bytes(link_lengths.number()?)?)
                    .map_err(|_| invalid("a link is not UTF-8"))?;
                if target.is_empty() || target.len() > 4095 || target.contains('\0') {
                    return Err(invalid(format!("`{path}` links to nothing that can be")));
                }
                Node::Symlink { target: target.to_owned() }
            }
            5 => {
                let at = usize::try_from(targets.number()?).unwrap_or(usize::MAX);
                match entries.get(at) {
                    Some(Entry { path: of, node: Node::File { .. } }) => {
                        Node::HardLink { target: of.clone() }
                    }
                    _ => return Err(invalid(format!("`{path}` is another name of no earlier file"))),
                }
            }
            kind => return Err(invalid(format!("`{path}` has the unknown kind {kind}"))),
        };
        entries.push(Entry { path, node });
    }
    Ok(entries)
}

fn special_mode(mode: u64) -> Result<u16, TocError> {
    u16::try_from(mode)
        .ok()
        .filter(|mode| matches!(mode & 0o777, 0o644 | 0o755) && mode & !0o6755 == 0 && mode & 0o6000 != 0)
        .ok_or_else(|| invalid(format!("{mode:o} is no mode of a file")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<Entry> {
        let entry = |path: &str, node| Entry { path: BundlePath::new(path).unwrap(), node };
        let file = |mode, size| Node::File { mode, size, digest: Digest::of(&[1]) };
        vec![
            entry("a", Node::Directory),
            entry("a/b", file(0o755, 12)),
            entry("a/c", Node::HardLink { target: BundlePath::new("a/b").unwrap() }),
            entry("a/d", Node::Symlink { target: "b".to_owned() }),
            entry("big", file(0o644, 9 << 20)),
            entry("s", file(0o4755, 3)),
        ]
    }

    #[test]
    fn there_and_back() {
        let toc = Toc::new(sample(), [10, 20, 30, 40, 50]);
        assert_eq!(toc.frames.len(), 5);
        let bytes = toc.encode().unwrap();
        assert_eq!(Toc::decode(&bytes).unwrap(), toc);
        assert_eq!(toc.files(), 4);
        assert_eq!(toc.unpacked_size(), 12 + (9 << 20) + 3);
        assert_eq!(toc.frames_of(toc.offsets[4], 9 << 20).len(), 3);
        assert_eq!(toc.frames_of(toc.offsets[4] + (4 << 20), 1), &toc.frames[2..3]);
    }

    proptest! {
        #[test]
        fn damage_is_refused_or_harmless(at in 0usize..400, value: u8) {
            let toc = Toc::new(sample(), [10, 20, 30, 40, 50]);
            let mut raw = zstd::bulk::decompress(&toc.encode().unwrap(), 1 << 20).unwrap();
            let at = at % raw.len();
            raw[at] = value;
            // Whatever still reads as a table is written the same way again.
            if let Ok(read) = Toc::decode(&zstd::bulk::compress(&raw, 1).unwrap()) {
                let again = zstd::bulk::decompress(&read.encode().unwrap(), 1 << 20).unwrap();
                prop_assert_eq!(again, raw);
            }
        }
    }
}
