//! Memory for what layers keep: blocks of one size that byte strings are put into one after another.
//!
//! Blocks are used again and again, for buffers too: fresh memory costs more to touch than to fill, and
//! memory that is given to the allocator and taken from it in other sizes falls to pieces.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Budget;
use crate::bundle::layout::PIECE;
use crate::model::Buffers;

/// Bytes of a block, and of every buffer: the largest frame of a piece that does not compress.
#[expect(clippy::cast_possible_truncation, reason = "4 MiB and a little")]
pub(super) const BLOCK: usize = PIECE as usize + (PIECE as usize >> 8) + 64;

/// Blocks of one layer.
#[derive(Debug)]
pub(super) struct Blocks {
    budget: Arc<Budget>,
    buffers: Arc<Buffers>,
    /// The one that is being filled.
    open: Mutex<Option<Arc<Block>>>,
}

#[derive(Debug)]
struct Block {
    bytes: RwLock<Vec<u8>>,
    budget: Arc<Budget>,
    buffers: Arc<Buffers>,
}

/// Bytes in blocks, which are given back when nothing in them is held any more.
#[derive(Debug)]
pub(super) struct Held {
    first: Option<Part>,
    /// What did not fit into the first block.
    rest: Option<Part>,
}

#[derive(Debug)]
struct Part {
    block: Arc<Block>,
    start: usize,
    size: usize,
}

impl Blocks {
    pub(super) fn new(budget: Arc<Budget>, buffers: Arc<Buffers>) -> Self {
        Self { budget, buffers, open: Mutex::default() }
    }

    /// Holds a copy of at most [`BLOCK`] bytes if the budget has room for it; a frame leaves some to others.
    pub(super) fn hold(&self, bytes: &[u8], frame: bool) -> Option<Held> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = open.as_ref().map_or(0, |block| BLOCK - block.len());
        let (here, there) = bytes.split_at(bytes.len().min(left));
        let new = if there.is_empty() { None } else { Some(self.block(frame)?) };
        let first = open.as_ref().filter(|_| !here.is_empty()).map(|block| Block::append(block, here));
        let rest = new.map(|new| Block::append(open.insert(new), there));
        Some(Held { first, rest })
    }

    /// Holds a buffer that is nearly full as it is, or gives it back.
    pub(super) fn hold_whole(&self, bytes: Vec<u8>) -> Result<Held, Vec<u8>> {
        if !self.budget.keep(BLOCK, true) {
            return Err(bytes);
        }
        let size = bytes.len();
        Ok(Held { first: Some(Part { block: self.of(bytes), start: 0, size }), rest: None })
    }

    /// A new block, if the budget has one.
    fn block(&self, frame: bool) -> Option<Arc<Block>> {
        self.budget.keep(BLOCK, frame).then(|| self.of(self.buffers.take()))
    }

    /// A block that the budget knows of.
    fn of(&self, bytes: Vec<u8>) -> Arc<Block> {
        let (budget, buffers) = (Arc::clone(&self.budget), Arc::clone(&self.buffers));
        Arc::new(Block { bytes: RwLock::new(bytes), budget, buffers })
    }
}

impl Block {
    fn len(&self) -> usize {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn append(block: &Arc<Self>, bytes: &[u8]) -> Part {
        let mut all = block.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let start = all.len();
        all.extend_from_slice(bytes);
        Part { block: Arc::clone(block), start, size: bytes.len() }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut *self.bytes.write().unwrap_or_else(PoisonError::into_inner));
        self.buffers.give(bytes);
        self.budget.release(BLOCK);
    }
}

impl Held {
    /// Appends the bytes to `out`.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        for part in self.first.iter().chain(&self.rest) {
            let bytes = part.block.bytes.read().unwrap_or_else(PoisonError::into_inner);
            out.extend_from_slice(&bytes[part.start..][..part.size]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_run_over_into_the_next_block_and_all_is_given_back() {
        let budget = Arc::new(Budget::new(512 << 20, 1));
        let buffers = Arc::new(Buffers::sized(BLOCK));
        let blocks = Blocks::new(Arc::clone(&budget), Arc::clone(&buffers));
        let strings: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; usize::from(n) * 30_000]).collect();
        let held: Vec<Held> = strings.iter().map(|string| blocks.hold(string, false).unwrap()).collect();
        let whole = blocks.hold_whole(vec![9; 5]).unwrap();
        let mut out = Vec::new();
        for one in &held {
            one.append(&mut out);
        }
        whole.append(&mut out);
        assert!(out == [strings.concat(), vec![9; 5]].concat());
        assert!(held.iter().any(|held| held.rest.is_some()));
        drop((held, whole, blocks));
        let room = |budget: &Budget| std::iter::from_fn(|| budget.keep(BLOCK, false).then_some(())).count();
        assert_eq!(room(&budget), room(&Budget::new(512 << 20, 1)));
    }
}
