//! What was read or packed for one node, kept for the others that want it a moment later.
//!
//! # Invariants
//!
//! * All that the pool gave out and somebody still holds, and all that it keeps, is within its size. Who wants
//!   more waits until the least recently wanted is let go of.
//! * A node that falls behind finds its piece gone and reads it for itself: it holds up nobody.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// What a permit stands for.
const UNIT: u64 = 1 << 10;

/// Pieces by key.
#[derive(Debug)]
pub(super) struct Pool<K> {
    room: Arc<Semaphore>,
    units: u32,
    kept: Mutex<Kept<K>>,
    spare: Spare,
}

/// Buffers that were used before: touching fresh memory costs more than reading into it.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// Buffers that wait to be used again.
const SPARE: usize = 8;

#[derive(Debug)]
struct Kept<K> {
    pieces: HashMap<K, Slot>,
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    piece: Arc<OnceCell<Bytes>>,
    wanted: u64,
}

/// A piece's bytes, with the room that they take.
struct Held {
    bytes: Vec<u8>,
    spare: Spare,
    _room: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE {
            let mut buffer = std::mem::take(&mut self.bytes);
            buffer.clear();
            spare.push(buffer);
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<K: Clone + Eq + Hash> Pool<K> {
    /// A pool of so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX >> 4);
        let kept = Mutex::new(Kept { pieces: HashMap::new(), clock: 0 });
        Self { room: Arc::new(Semaphore::new(units as usize)), units, kept, spare: Spare::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept<K>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The piece of that key, made by `make` in the buffer that it is given, where it is not kept; it has at most `bytes` bytes.
    pub(super) async fn get<E>(
        &self,
        key: K,
        bytes: u64,
        make: impl AsyncFnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<Bytes, E> {
        let cell = {
            let mut kept = self.kept();
            kept.clock += 1;
            let wanted = kept.clock;
            let slot = kept.pieces.entry(key).or_insert_with(|| Slot { piece: Arc::default(), wanted });
            slot.wanted = wanted;
            Arc::clone(&slot.piece)
        };
        let piece = cell.get_or_try_init(async || {
            let room = self.room_for(bytes).await;
            let spare = Arc::clone(&self.spare);
            let buffer = spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let bytes = make(buffer).await?;
            Ok(Bytes::from_owner(Held { bytes, spare, _room: room }))
        });
        Ok(piece.await?.clone())
    }

    async fn room_for(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(self.units).min(self.units);
        loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
                return room;
            }
            if !self.let_go() {
                break;
            }
        }
        // All of it is on its way to nodes; who waits is served in turn.
        match Arc::clone(&self.room).acquire_many_owned(units).await {
            Ok(room) => room,
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Forgets the piece that was wanted least recently; false if there is none.
    fn let_go(&self) -> bool {
        let mut kept = self.kept();
        let made = kept.pieces.iter().filter(|(_, slot)| slot.piece.initialized());
        let Some(oldest) = made.min_by_key(|(_, slot)| slot.wanted).map(|(key, _)| key.clone()) else {
            return false;
        };
        kept.pieces.remove(&oldest).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_piece_is_made_once_and_room_is_bounded() {
        let pool = Pool::new(64 << 10);
        let made = AtomicU64::new(0);
        let piece = async |key: u32| {
            let make = async |_| {
                made.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(vec![u8::try_from(key).unwrap(); 32 << 10])
            };
            pool.get(key, 32 << 10, make).await.unwrap()
        };
        let (one, same) = tokio::join!(piece(1), piece(1));
        assert!(one == same && made.load(Ordering::Relaxed) == 1);
        let two = piece(2).await;
        // Both are held: a third has to wait until one of them is let go of.
        let third = tokio::time::timeout(std::time::Duration::from_millis(20), piece(3)).await;
        assert!(third.is_err());
        drop((one, same, two));
        assert_eq!(piece(3).await[0], 3);
        assert_eq!(piece(1).await[0], 1);
        assert_eq!(made.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn what_could_not_be_made_is_tried_again() {
        let pool = Pool::new(1 << 20);
        assert_eq!(pool.get(1, 10, async |_| Err::<Vec<u8>, _>("no")).await, Err("no"));
        assert_eq!(pool.get(1, 10, async |_| Ok::<_, &str>(vec![1])).await.unwrap()[0], 1);
    }
}
