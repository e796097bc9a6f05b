//! Which objects a power cut may have torn.
//!
//! Syncing each of 14,000 files takes 16 s, one `syncfs` a tenth of one. Until that call an object has its
//! name while its bytes may be in memory only. So whoever adds objects leaves a marker, `objects/.unsynced-*`,
//! which says in which boot it was made. Only a reboot loses what is in memory: a marker of an earlier boot
//! means that objects made since it was written are hashed again, and those that are not whole are removed.
//!
//! A marker also tells of processes that were killed: whoever ends by itself makes it executable, which leaves its
//! time as it is. One that nobody holds and that is not means that half written objects may be there, under
//! temporary names.
//!
//! # Invariants
//!
//! * The marker is on the disk before the first object it stands for is made.
//! * It goes after a `syncfs` that came after the last of them.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;

use super::boot;
use super::objects::ObjectId;
use super::workers;
use crate::fs::{DirLock, FileLock, IoError, IoResultExt as _, LockKind, calls, clear_leftovers, sync_dir};
use crate::model::Hasher;

const PREFIX: &str = ".unsynced-";

/// Set in the mode of a marker whose process left nothing half written.
const ENDED: u32 = 0o100;

/// Held while objects are added.
#[derive(Debug)]
pub(super) struct Unsynced {
    held: FileLock,
    path: Utf8PathBuf,
    /// Something was, or is being, added.
    used: AtomicBool,
}

/// A marker that is there.
struct Marker {
    path: Utf8PathBuf,
    /// Only a reboot loses what was written.
    of_this_boot: bool,
    /// Its process was killed, or is still adding.
    open: bool,
}

impl Unsynced {
    /// Leaves a marker that stays until [`Unsynced::clear`], whatever happens to this process.
    pub(super) fn mark(objects: &Utf8Path) -> Result<Self, IoError> {
        for attempt in 0.. {
            let path = objects.join(format!("{PREFIX}{}-{attempt}", std::process::id()));
            let fresh = !path.exists();
            let Some(held) = FileLock::attempt(&path)? else { continue };
            // One that a process of this number left stands for what that one added: leave it alone.
            if fresh {
                std::io::Write::write_all(&mut held.file(), boot::id().as_bytes()).at("write", &path)?;
                held.file().sync_all().at("write", &path)?;
                sync_dir(objects)?;
                return Ok(Self { held, path, used: AtomicBool::new(false) });
            }
        }
        unreachable!("some number is free")
    }

    /// Something is about to be added.
    pub(super) fn used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Removes the marker and those of dead processes of this boot; the file system was synced just before.
    pub(super) fn clear(self, objects: &Utf8Path) -> Result<(), IoError> {
        drop(self);
        for marker in markers(objects)? {
            // A held one belongs to a process that is still adding; an open one tells whoever adds next to look.
            let done = marker.of_this_boot && !marker.open;
            if done && FileLock::attempt(&marker.path)?.is_some() {
                calls::remove_file(&marker.path).at("remove", &marker.path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Unsynced {
    fn drop(&mut self) {
        // Where that is refused, the next looks in vain.
        let _ = if self.used.load(Ordering::Relaxed) {
            end(self.held.file())
        } else {
            calls::remove_file(&self.path)
        };
    }
}

fn end(marker: &File) -> std::io::Result<()> {
    marker.set_permissions(std::fs::Permissions::from_mode(0o600 | ENDED))
}

/// Whether a process that is not adding any more left a marker: what it added was not synced yet.
pub(super) fn are_there(objects: &Utf8Path) -> Result<bool, IoError> {
    Ok(markers(objects)?.iter().any(|marker| !marker.open))
}

fn markers(objects: &Utf8Path) -> Result<Vec<Marker>, IoError> {
    let mut found = Vec::new();
    for entry in objects.read_dir_utf8().at("read", objects)? {
        let path = entry.at("read", objects)?.into_path();
        if path.file_name().is_some_and(|name| name.starts_with(PREFIX)) {
            let text = match std::fs::read_to_string(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.at("read", &path)?,
            };
            let open = path.metadata().is_ok_and(|meta| meta.mode() & ENDED == 0);
            found.push(Marker { path, of_this_boot: text == boot::id(), open });
        }
    }
    Ok(found)
}

/// Removes what killed processes left half written, if there were any and nobody uses the store now.
pub(super) fn clear_after_kill(objects: &Utf8Path) -> Result<(), IoError> {
    let mut killed = Vec::new();
    for marker in markers(objects)?.into_iter().filter(|marker| marker.open) {
        killed.extend(FileLock::attempt(&marker.path)?.map(|lock| (lock, marker.path)));
    }
    if killed.is_empty() {
        return Ok(());
    }
    let Some(_alone) = DirLock::attempt(objects, LockKind::Exclusive)? else { return Ok(()) };
    for shard in objects.read_dir_utf8().at("read", objects)? {
        let shard = shard.at("read", objects)?;
        if shard.file_name().len() == 2 {
            clear_leftovers(shard.path())?;
        }
    }
    for (lock, path) in killed {
        end(lock.file()).at("change the mode of", &path)?;
    }
    Ok(())
}

/// Hashes what was added in an earlier boot and may not have reached the disk; removes what is torn.
pub(super) fn check_after_reboot(objects: &Utf8Path) -> Result<(), IoError> {
    let mut oldest: Option<(i64, i64)> = None;
    let mut stale = Vec::new();
    for Marker { path, of_this_boot, .. } in markers(objects)? {
        if of_this_boot {
            continue;
        }
        let meta = path.metadata().at("read", &path)?;
        let since = (meta.mtime(), meta.mtime_nsec());
        oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
        stale.push(path);
    }
    let Some(oldest) = oldest else { return Ok(()) };
    let mut suspects = Vec::new();
    for shard in objects.read_dir_utf8().at("read", objects)? {
        let shard = shard.at("read", objects)?;
        if shard.file_name().len() != 2 {
            continue;
        }
        for entry in shard.path().read_dir_utf8().at("read", shard.path())? {
            let entry = entry.at("read", shard.path())?;
            let meta = entry.metadata().at("read", entry.path())?;
            // The second of grace is for file systems that round times down.
            if (meta.ctime() + 1, meta.ctime_nsec()) >= oldest
                && let Some(id) = ObjectId::from_path(shard.file_name(), entry.file_name())
            {
                suspects.push((entry.into_path(), id));
            }
        }
    }
    workers::start().at("start threads to read", objects)?;
    suspects.par_iter().try_for_each(|(path, id)| {
        if hash(path)? == id.digest { Ok(()) } else { calls::remove_file(path).at("remove", path) }
    })?;
    crate::fs::sync_file_system(objects)?;
    for path in stale {
        match calls::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.at("remove", &path)?,
        }
    }
    Ok(())
}

/// The digest of a file's content.
pub(super) fn hash(path: &Utf8Path) -> Result<crate::model::Digest, IoError> {
    hash_file(File::open(path).at("open", path)?, path)
}

/// The digest of what an open file still holds.
pub(super) fn hash_file(mut file: File, path: &Utf8Path) -> Result<crate::model::Digest, IoError> {
    let mut hasher = Hasher::new();
    hasher.read_all(&mut file).at("read", path)?;
    Ok(hasher.finish())
}
