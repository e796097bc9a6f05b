//! How much memory a build may hold, and what happens to what does not fit.
//!
//! Two kinds of memory are counted. What is *kept* until a layer is put together (its small files, and
//! large files' frames) goes to the layer's spill file once the share for it is used up. What is *in flight*
//! (pieces on their way through the compressor) makes the reader help out with compressing before it
//! reads on. The rest (contexts, buffers, tables) is small and is allowed for.

use std::sync::atomic::{AtomicU64, Ordering};

use super::writer::CHUNK;
use crate::bundle::layout::PIECE;

/// The least budget that a build is promised to work with: 64 MiB.
pub(super) const LEAST: u64 = 64 << 20;

/// Shares of a build's memory.
#[derive(Debug)]
pub(super) struct Budget {
    keep: u64,
    flight: u64,
    /// Pieces that one layer being put together holds at a time, at least 1.
    pub batch: usize,
    /// Layers that are worked on at the same time, at least 1.
    pub layers: usize,
    /// Chunks on their way to the disk, at least one for each layer.
    pub chunks: usize,
    kept: AtomicU64,
    flying: AtomicU64,
}

impl Budget {
    /// Divides `memory` bytes among `jobs` threads.
    pub(super) fn new(memory: u64, jobs: usize) -> Self {
        let memory = memory.max(LEAST);
        let rest = memory - memory.min(32 << 20) / 2 - (memory / 4).min(32 << 20);
        // A layer in work takes two batches of raw and compressed pieces.
        let each = 4 * PIECE;
        let layers = usize::try_from(rest / 2 / each).unwrap_or(1).clamp(1, jobs);
        let batch = usize::try_from(rest / 4 / (each * layers as u64)).unwrap_or(1).clamp(1, 2 * jobs.max(1));
        let assembling = each * (layers * batch) as u64;
        let flight = (rest / 6).clamp(2 * PIECE, 16 * PIECE * layers as u64);
        let chunks = layers + usize::try_from(memory >> 26).unwrap_or(8).clamp(1, 8);
        // What a layer's reader reads into.
        let reading = PIECE * layers as u64;
        let keep = rest.saturating_sub(assembling + flight + reading + (chunks * CHUNK) as u64);
        Self { keep, flight, batch, layers, chunks, kept: AtomicU64::new(0), flying: AtomicU64::new(0) }
    }

    /// Takes `bytes` of the share for what is kept; `false` when they must be spilled.
    ///
    /// Frames leave three eighths of it to small files, which cost more to spill.
    pub(super) fn keep(&self, bytes: usize, frame: bool) -> bool {
        take(&self.kept, bytes as u64, if frame { self.keep / 8 * 5 } else { self.keep })
    }

    /// Gives back what [`Budget::keep`] took.
    pub(super) fn release(&self, bytes: usize) {
        self.kept.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Takes `bytes` of the share in flight; `false` when some must land first.
    pub(super) fn take_off(&self, bytes: usize) -> bool {
        take(&self.flying, bytes as u64, self.flight)
    }

    /// Gives back what [`Budget::take_off`] took.
    pub(super) fn land(&self, bytes: usize) {
        self.flying.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

fn take(counter: &AtomicU64, bytes: u64, limit: u64) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now + bytes <= limit).then_some(now + bytes)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for memory in [1 << 20, 64 << 20, 128 << 20, 512 << 20, 8 << 30] {
            for jobs in [1, 2, 8, 64] {
                let budget = Budget::new(memory, jobs);
                let memory = memory.max(LEAST);
                let used = budget.keep + budget.flight + 4 * PIECE * (budget.layers * budget.batch) as u64;
                assert!(used <= memory, "{memory} {jobs}: {used} {budget:?}");
                assert!(budget.flight >= PIECE && budget.layers >= 1 && budget.batch >= 1);
            }
        }
    }

    #[test]
    fn takes_and_gives_back() {
        let budget = Budget::new(LEAST, 1);
        let all = usize::try_from(budget.keep).unwrap();
        assert!(!budget.keep(all, true) && budget.keep(all / 8 * 5, true));
        budget.release(all / 8 * 5);
        assert!(budget.keep(all, false));
        assert!(!budget.keep(1, false));
        budget.release(1);
        assert!(!budget.keep(1, true) && budget.keep(1, false));
    }
}
