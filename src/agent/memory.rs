//! What one process knows of the journals it read, so that it reads only what was added since.
//!
//! A `node call` serves a whole rollout, and a guard looks at its journal twice a second: neither should pay
//! for the journal's length each time.
//!
//! # Invariants
//!
//! * What is remembered is used only if the file is the same one, not shorter, its last known line still stands
//!   where it stood, and nothing was changed without anything being added.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};

use super::journal::{JournalError, Replay};
use super::layout::{RoleDir, Root};
use super::state::State;
use crate::fs::IoResultExt as _;

/// The journals that this process read; clones share what they know.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<HashMap<Utf8PathBuf, Remembered>>>);

/// A journal as it was when it was read.
#[derive(Clone, Debug)]
struct Remembered {
    replay: Replay,
    stamp: Stamp,
}

/// What tells a file's state from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            file: (meta.dev(), meta.ino()),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl Memory {
    /// Everything that a journal says; one that is not there is empty.
    pub(super) fn read(&self, path: &Utf8Path) -> Result<Replay, JournalError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Replay::default()),
            other => other.at("read", path)?,
        };
        let stamp = Stamp::of(&file).at("read", path)?;
        let mut replay = match self.take(path) {
            Some(known) if known.stamp == stamp => known.replay,
            Some(known) if known.stamp.file == stamp.file && stands(&file, &known, stamp) => known.replay,
            _ => Replay::default(),
        };
        let more = stamp.length.saturating_sub(replay.length());
        let mut bytes = vec![0; usize::try_from(more).unwrap_or(0)];
        file.read_exact_at(&mut bytes, replay.length()).at("read", path)?;
        replay.extend(path, &bytes, |_| {})?;
        self.keep(path, Remembered { replay: replay.clone(), stamp });
        Ok(replay)
    }

    /// Remembers a journal that this process added to, as it is now.
    pub(super) fn store(&self, path: &Utf8Path, file: &File, replay: Replay) {
        if let Ok(stamp) = Stamp::of(file)
            && stamp.length == replay.length()
        {
            self.keep(path, Remembered { replay, stamp });
        }
    }

    fn take(&self, path: &Utf8Path) -> Option<Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(path)
    }

    fn keep(&self, path: &Utf8Path, what: Remembered) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), what);
    }
}

impl Root {
    /// What a role's journal says; nothing is locked, so it may have said more by now.
    pub(super) fn state_of(&self, dir: &RoleDir) -> Result<State, JournalError> {
        Ok(self.memory().read(&dir.journal())?.into_state())
    }
}

/// Whether a file that changed was only added to, as far as its last known line tells.
fn stands(file: &File, known: &Remembered, now: Stamp) -> bool {
    let last = known.replay.last_line();
    let mut bytes = vec![0; last.len()];
    let Some(start) = known.replay.length().checked_sub(last.len() as u64) else { return false };
    now.length > known.stamp.length && file.read_exact_at(&mut bytes, start).is_ok() && bytes == last
}
