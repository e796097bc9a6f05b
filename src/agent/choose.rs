//! How what a node lacks of a layer travels.

use std::ops::Range;

use crate::bundle::{Node, Toc, layout};

/// What to send of a layer, when patches are not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A frame as it is.
    Frame(usize),
    /// These entries, packed anew; together at most [`PIECE`](layout::PIECE) bytes.
    Packed(Vec<usize>),
}

/// Chooses how the missing entries of a layer travel: a frame as it is once a third of its bytes are wanted.
///
/// Choices stand in the layer's order, so that one read of the blob serves all.
pub fn choose(toc: &Toc, missing: &[(usize, usize)]) -> Vec<Choice> {
    let wanted = missing.iter().flat_map(|(start, end)| *start..*end.min(&toc.entries.len()));
    let mut choices = Vec::new();
    let mut by_frame: std::collections::BTreeMap<usize, Vec<usize>> = std::collections::BTreeMap::new();
    for entry in wanted {
        let Node::File { size, .. } = toc.entries[entry].node else { continue };
        for frame in frames_of(toc, toc.offsets[entry], size) {
            by_frame.entry(frame).or_default().push(entry);
        }
    }
    for (frame, entries) in by_frame {
        let bytes: u64 = entries.iter().map(|entry| toc.entries[*entry].size()).sum();
        let large = entries.iter().any(|entry| layout::is_large(toc.entries[*entry].size()));
        if large || bytes * 3 >= toc.frames[frame].tar_size {
            choices.push(Choice::Frame(frame));
        } else {
            choices.push(Choice::Packed(entries));
        }
    }
    choices
}

/// Which frames hold a range of the tar.
pub(super) fn frames_of(toc: &Toc, offset: u64, size: u64) -> Range<usize> {
    if size == 0 {
        return 0..0;
    }
    let start = toc.frames.partition_point(|frame| frame.tar_offset + frame.tar_size <= offset);
    let end = toc.frames.partition_point(|frame| frame.tar_offset < offset + size);
    start.min(end)..end
}
