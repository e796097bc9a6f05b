//! The push stream: what both ends say. `docs/push.md` has it in full.
//!
//! The node has the bundle's tables of contents before the first file is sent, so an item only names places in
//! them: no digest and no path is sent twice.
//!
//! # Invariants
//!
//! * Every length is checked against a limit before anything is allocated for it.
//! * A change of the format changes [`PUSH_FORMAT`], which the header carries.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

pub use super::choose::{Choice, choose};
use super::objects::ObjectId;
pub use super::patch::{MAX_PATCH, apply_patch, make_patch, memory_of, pack, patched};
use crate::bundle::layout::PIECE;
use crate::fs::IoError;
use crate::model::Digest;

/// The version of the stream.
pub const PUSH_FORMAT: u32 = 2;

/// Bytes before an item's head and body.
const HEADER: usize = 17;

/// A packed item's list: as many files as a piece can hold, 512 bytes each in a tar.
const MAX_PACKED: u32 = 4 * 8192;

/// A patch's head: a digest, a flag and a size.
const PATCH_HEAD: u32 = 32 + 1 + 8;

/// The first line of a push; the manifest's, the config's and some tables' bytes follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiveHeader {
    /// [`PUSH_FORMAT`].
    pub format: u32,
    /// Which bundle.
    pub bundle: Digest,
    /// Bytes of its manifest, which come first.
    pub manifest: u64,
    /// Bytes of its config, which come next.
    pub config: u64,
    /// Layers whose tables of contents come then, unasked; the manifest says how long they are.
    #[serde(default)]
    pub tocs: Vec<usize>,
    /// Tables of contents that come after those, each as what differs from one that the node should have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patched_tocs: Vec<PatchedToc>,
    /// The lock's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}

/// A table of contents that travels as a patch, made as a file's is. Where the node cannot use it, it asks for the
/// table as any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchedToc {
    /// Of which layer.
    pub layer: usize,
    /// The table that it differs from.
    pub from: Digest,
    /// Bytes of the patch.
    pub size: u64,
}

/// The node's lines during a push, in this order; the last is `done`, or an error instead of any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushLine {
    /// Layers whose tables of contents the node still wants, in the order in which they are to be sent.
    Tocs(Vec<usize>),
    /// What is to be sent.
    Missing(Missing),
    /// Everything has arrived.
    Done(Received),
}

/// What a node lacks of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Contents.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By layer: ranges of entries whose contents are missing. What is no file counts for nothing in them.
    pub layers: Vec<Vec<(usize, usize)>>,
    /// Bundles that the node has; their contents can be patched from.
    pub bundles: Vec<Digest>,
}

/// What came of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Contents that arrived and were written.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the items.
    pub wire_bytes: u64,
    /// Contents that were here before.
    pub reused: u64,
}

/// Why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It ended, or could not be read.
    #[error("the stream broke off")]
    Broken(#[source] io::Error),
    /// It says what cannot be.
    #[error("the stream is not valid: {0}")]
    Invalid(String),
    /// A piece cannot be unpacked.
    #[error("{what} cannot be unpacked")]
    Unpack {
        /// Which.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Everything was sent, and something was not.
    #[error("{0} of the missing contents were not sent")]
    Short(usize),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// One item of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A frame of a layer, as it is in the bundle. A large file's come in order.
    Frame {
        /// Which layer.
        layer: u32,
        /// Which of its frames.
        frame: u32,
        /// The frame.
        body: Vec<u8>,
    },
    /// A few small files of a layer, packed anew.
    Packed {
        /// Which layer.
        layer: u32,
        /// Which of its entries.
        entries: Vec<u32>,
        /// One zstd frame: their contents, one after another.
        body: Vec<u8>,
    },
    /// A file, as what differs from an object that the node has.
    Patch {
        /// Which layer.
        layer: u32,
        /// Which of its entries.
        entry: u32,
        /// What it differs from.
        old: ObjectId,
        /// Its bytes.
        old_size: u64,
        /// One zstd frame that needs the old content as prefix.
        body: Vec<u8>,
    },
    /// Nothing follows.
    End,
}

fn invalid(what: impl Into<String>) -> WireError {
    WireError::Invalid(what.into())
}

impl Item {
    /// Everything before the body.
    pub fn head(&self) -> Vec<u8> {
        let (kind, a, b, head, body): (u8, u32, u32, Vec<u8>, &[u8]) = match self {
            Self::End => (0, 0, 0, Vec::new(), &[]),
            Self::Frame { layer, frame, body } => (1, *layer, *frame, Vec::new(), body),
            Self::Packed { layer, entries, body } => {
                (2, *layer, 0, entries.iter().flat_map(|entry| entry.to_le_bytes()).collect(), body)
            }
            Self::Patch { layer, entry, old, old_size, body } => {
                let mut head = old.digest.as_bytes().to_vec();
                head.push(u8::from(old.executable));
                head.extend_from_slice(&old_size.to_le_bytes());
                (3, *layer, *entry, head, body)
            }
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = Vec::with_capacity(HEADER + head.len());
        out.push(kind);
        for number in [a.to_le_bytes(), b.to_le_bytes(), length(&head), length(body)] {
            out.extend_from_slice(&number);
        }
        out.extend_from_slice(&head);
        out
    }

    /// What stands before the body of a frame of so many bytes.
    pub fn frame_head(layer: u32, frame: u32, size: u32) -> Vec<u8> {
        let mut head = Self::Frame { layer, frame, body: Vec::new() }.head();
        head[HEADER - 4..].copy_from_slice(&size.to_le_bytes());
        head
    }

    /// What comes after the head.
    pub fn body(&self) -> &[u8] {
        match self {
            Self::End => &[],
            Self::Frame { body, .. } | Self::Packed { body, .. } | Self::Patch { body, .. } => body,
        }
    }

    /// Bytes in the stream.
    pub fn wire_size(&self) -> u64 {
        (self.head().len() + self.body().len()) as u64
    }

    /// Writes the item.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.head())?;
        out.write_all(self.body())
    }

    /// Reads an item.
    pub fn read(from: &mut impl Read) -> Result<Self, WireError> {
        Self::read_into(from, Vec::new)
    }

    /// Reads an item; `buffer` gives what its body is read into.
    pub fn read_into(from: &mut impl Read, buffer: impl FnOnce() -> Vec<u8>) -> Result<Self, WireError> {
        let mut header = [0; HEADER];
        from.read_exact(&mut header).map_err(WireError::Broken)?;
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (a, b, head, body) = (number(1), number(5), number(9), number(13));
        let (head_fits, max_body) = match header[0] {
            0 => (head == 0, 0),
            1 => (head == 0, 2 * PIECE),
            2 => (head <= MAX_PACKED && head % 4 == 0, 2 * PIECE),
            3 => (head == PATCH_HEAD, MAX_PATCH),
            kind => return Err(invalid(format!("there is no item of kind {kind}"))),
        };
        if !head_fits || u64::from(body) > max_body {
            return Err(invalid(format!("an item of kind {} has impossible lengths", header[0])));
        }
        let head = read_bytes(from, head.into())?;
        let body = match header[0] {
            0 => Vec::new(),
            // It has a limit that is small enough to make room for all of it at once.
            1 | 2 => {
                let mut filled = buffer();
                fill(from, body.into(), body as usize, &mut filled)?;
                filled
            }
            _ => read_bytes(from, body.into())?,
        };
        Ok(match header[0] {
            0 => Self::End,
            1 => Self::Frame { layer: a, frame: b, body },
            2 => {
                let entry = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                Self::Packed { layer: a, entries: head.chunks_exact(4).map(entry).collect(), body }
            }
            _ => {
                let (digest, rest) = head.split_at(32);
                let digest = digest.try_into().map(Digest::from_bytes).map_err(|_| invalid("a digest"))?;
                let size = rest[1..].try_into().map(u64::from_le_bytes).map_err(|_| invalid("a size"))?;
                let old = ObjectId { digest, executable: rest[0] != 0 };
                Self::Patch { layer: a, entry: b, old, old_size: size, body }
            }
        })
    }
}

/// Reads exactly that many bytes; memory grows with what arrives, not with what was announced.
pub fn read_bytes(from: &mut impl Read, count: u64) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    fill(from, count, usize::try_from(count.min(1 << 20)).unwrap_or(0), &mut bytes)?;
    Ok(bytes)
}

/// Reads exactly that many bytes into an empty buffer, making room for `room` of them first.
fn fill(from: &mut impl Read, count: u64, room: usize, bytes: &mut Vec<u8>) -> Result<(), WireError> {
    bytes.reserve(room);
    from.take(count).read_to_end(bytes).map_err(WireError::Broken)?;
    if (bytes.len() as u64) < count {
        return Err(WireError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items() -> Vec<Item> {
        let old = ObjectId { digest: Digest::of(b"old"), executable: true };
        vec![
            Item::Frame { layer: 1, frame: 2, body: vec![1, 2, 3] },
            Item::Packed { layer: 0, entries: vec![7, 9], body: pack(b"abc", 3).unwrap() },
            Item::Packed { layer: 0, entries: (0..8192).collect(), body: pack(b"", 3).unwrap() },
            Item::Patch { layer: 3, entry: 4, old, old_size: 5, body: vec![9; 100] },
            Item::End,
        ]
    }

    #[test]
    fn items_read_back() {
        assert_eq!(Item::frame_head(1, 2, 3), items()[0].head());
        let mut bytes = Vec::new();
        for item in items() {
            item.write(&mut bytes).unwrap();
        }
        let mut from = &bytes[..];
        for item in items() {
            assert_eq!(Item::read(&mut from).unwrap(), item);
        }
        assert!(from.is_empty());
    }

    #[test]
    fn lying_lengths_are_refused_before_anything_is_allocated() {
        for kind in 0..=4u8 {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(&[0xff; 16]);
            assert!(matches!(Item::read(&mut &bytes[..]), Err(WireError::Invalid(_))), "{kind}");
        }
        let mut long = vec![3u8, 0, 0, 0, 0, 0, 0, 0, 0, 41, 0, 0, 0];
        long.extend_from_slice(&(100u32 << 20).to_le_bytes());
        assert!(matches!(Item::read(&mut &long[..]), Err(WireError::Broken(_))));
    }

    proptest! {
        #[test]
        fn damage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut from = &bytes[..];
            while let Ok(item) = Item::read(&mut from) {
                if item == Item::End { break }
            }
        }
    }
}
