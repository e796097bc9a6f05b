//! Advisory locks on directories.
//!
//! `flock` on the directory itself: nothing to create, nothing left behind, and the kernel lets go when
//! the holder dies, however it dies.

use std::fs::File;
use std::io;
use std::time::Duration;

use camino::Utf8Path;
use rustix::fs::FlockOperation;

use super::{IoError, IoResultExt};
use crate::model::Cancel;

/// Whether others may hold the lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// With other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// Between two attempts; holders are other builds, which take seconds.
const PAUSE: Duration = Duration::from_millis(20);

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct DirLock {
    _dir: File,
}

impl DirLock {
    /// Waits until the directory's lock can be had, or the work is asked to stop.
    pub fn wait(dir: &Utf8Path, kind: LockKind, cancel: &Cancel) -> Result<Self, IoError> {
        loop {
            if let Some(lock) = Self::attempt(dir, kind)? {
                return Ok(lock);
            }
            if cancel.is_set() {
                return Err(io::Error::from(io::ErrorKind::Interrupted)).at("lock", dir);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes the lock if nobody holds it; `None` if somebody does.
    pub fn attempt(dir: &Utf8Path, kind: LockKind) -> Result<Option<Self>, IoError> {
        let file = File::open(dir).at("open", dir)?;
        let operation = match kind {
            LockKind::Shared => FlockOperation::NonBlockingLockShared,
            LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Some(Self { _dir: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).at("lock", dir),
        }
    }
}
