//! Byte buffers that are used again.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that are used again: touching fresh memory costs more than filling it.
#[derive(Debug)]
pub struct Buffers {
    kept: Mutex<Vec<Vec<u8>>>,
    most: usize,
    largest: usize,
    size: usize,
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
        Self { kept: Mutex::default(), most, largest, size: 0 }
    }

    /// Keeps whatever is handed back; new ones have room for `size` bytes.
    pub fn sized(size: usize) -> Self {
        Self { size, ..Self::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> Vec<u8> {
        let used = self.kept().pop();
        used.unwrap_or_else(|| Vec::with_capacity(self.size))
    }

    /// An empty buffer, with the room of one used before if there is one.
    pub fn take(&self) -> Vec<u8> {
        let mut buffer = self.used();
        buffer.clear();
        buffer
    }

    /// A buffer of `length` bytes, to be overwritten: what they are is not said.
    pub fn take_filled(&self, length: usize) -> Vec<u8> {
        let mut buffer = self.used();
        buffer.resize(length, 0);
        buffer
    }

    /// Hands a buffer back.
    pub fn give(&self, buffer: Vec<u8>) {
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
        buffers.give(vec![1, 2, 3]);
        assert_eq!(buffers.take_filled(4).len(), 4);
        assert_eq!(Buffers::sized(100).take().capacity(), 100);
    }
}
