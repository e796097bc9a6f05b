//! Byte buffers that are used again.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that are used again: touching fresh memory costs more than filling it.
#[derive(Debug)]
pub struct Buffers {
    kept: Mutex<Vec<Vec<u8>>>,
    most: usize,
    largest: usize,
}

impl Default for Buffers {
    /// Keeps whatever is handed back.
    fn default() -> Self {
        Self::at_most(usize::MAX, usize::MAX)
    }
}

impl Buffers {
    /// Keeps at most so many, none of them with room for more than `largest` bytes.
    pub fn at_most(most: usize, largest: usize) -> Self {
        Self { kept: Mutex::default(), most, largest }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer, with the room of one used before if there is one.
    pub fn take(&self) -> Vec<u8> {
        self.kept().pop().unwrap_or_default()
    }

    /// Hands a buffer back.
    pub fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.kept();
        if buffer.capacity() <= self.largest && kept.len() < self.most {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_is_said_and_none_that_are_too_large() {
        let buffers = Buffers::at_most(1, 64);
        buffers.give(Vec::with_capacity(65));
        assert_eq!(buffers.take().capacity(), 0);
        buffers.give(Vec::with_capacity(10));
        buffers.give(Vec::with_capacity(20));
        assert_eq!((buffers.take().capacity(), buffers.take().capacity()), (10, 0));
        buffers.give(vec![1, 2, 3]);
        assert!(buffers.take().is_empty());
    }
}
