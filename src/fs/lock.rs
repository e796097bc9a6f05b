//! Advisory locks on directories, and on files that say who holds them.
//!
//! `flock` on the directory itself: nothing to create, nothing left behind, and the kernel lets go when
//! the holder dies, however it dies.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::{IoError, IoResultExt, calls};
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
        match calls::flock(&file, operation) {
            Ok(()) => Ok(Some(Self { _dir: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).at("lock", dir),
        }
    }

    /// Waits for the lock, but no longer than `patience`; `None` if somebody still holds it then.
    pub fn wait_for(dir: &Utf8Path, kind: LockKind, patience: Duration) -> Result<Option<Self>, IoError> {
        let until = Instant::now() + patience;
        // Who only looks holds it for a moment; who works, for seconds.
        let mut pause = Duration::from_micros(100);
        loop {
            match Self::attempt(dir, kind)? {
                Some(lock) => return Ok(Some(lock)),
                None if Instant::now() >= until => return Ok(None),
                None => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }
}

/// A lock on a file of its own, whose content may say who holds it; dropping it lets go.
///
/// The file stays: removing it would let two processes hold locks on two files of one name.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

/// What [`FileLock::look`] found.
#[derive(Debug)]
pub enum Look {
    /// There is no such file.
    Missing,
    /// Somebody has it alone.
    Held,
    /// Nobody has it alone until this is dropped.
    Free(FileLock),
}

impl FileLock {
    /// Takes the lock if nobody holds it; `None` if somebody does.
    pub fn attempt(path: &Utf8Path) -> Result<Option<Self>, IoError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = calls::open(path.as_std_path(), flags, Mode::from_raw_mode(0o600)).at("open", path)?;
        match calls::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file: File::from(fd) })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).at("lock", path),
        }
    }

    /// Whether somebody holds the lock; a file that is not there is held by nobody.
    pub fn is_held(path: &Utf8Path) -> Result<bool, IoError> {
        Ok(matches!(Self::look(path)?, Look::Held))
    }

    /// Opens the file for reading, while nobody has it alone.
    pub fn look(path: &Utf8Path) -> Result<Look, IoError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = match calls::open(path.as_std_path(), flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(Look::Missing),
            other => other.at("open", path)?,
        };
        match calls::flock(&fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Look::Free(Self { file: File::from(fd) })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Look::Held),
            Err(errno) => Err(errno).at("lock", path),
        }
    }

    /// Takes over the lock of a file that came open from the process that started this one: it is the same
    /// lock, held as long as either has the file open. `None` if it is another file than `path`, or not locked.
    pub fn adopt(file: File, path: &Utf8Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let (own, named) = (file.metadata().ok()?, path.metadata().ok()?);
        let same = (own.dev(), own.ino()) == (named.dev(), named.ino());
        let locked = same && calls::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        locked.then_some(Self { file })
    }

    /// The open file, whose lock lives on in whatever process has it open.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Lets go now, whatever else has the file open.
    pub fn release(self, path: &Utf8Path) -> Result<(), IoError> {
        calls::flock(&self.file, FlockOperation::Unlock).at("unlock", path)
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.file
    }
}
