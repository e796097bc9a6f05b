//! Files that get their name only when they are complete.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU64, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{IoError, IoResultExt, calls};

/// A file being written that has no name yet, or a temporary one where the file system knows no
/// nameless files. Dropped without [`Staged::publish`], it is gone.
#[derive(Debug)]
pub struct Staged {
    file: File,
    dir: Utf8PathBuf,
    /// Set where `O_TMPFILE` is not supported.
    temporary: Option<Utf8PathBuf>,
}

/// Makes temporary names unique within the process; the pid makes them so on the machine.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The start of every temporary name, so that leftovers of a killed process can be told.
const TEMPORARY: &str = ".tmp-";

/// A name in `dir` that nothing has and that says that it is temporary: [`clear_leftovers`] removes it.
pub fn temporary_name(dir: &Utf8Path) -> Utf8PathBuf {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    dir.join(format!("{TEMPORARY}{}-{count}", std::process::id()))
}

impl Staged {
    /// Starts a file that will be published into `dir` or elsewhere on its file system.
    pub fn new_in(dir: &Utf8Path) -> Result<Self, IoError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        match calls::open(dir.as_std_path(), flags | OFlags::TMPFILE, mode) {
            Ok(fd) => Ok(Self { file: File::from(fd), dir: dir.to_owned(), temporary: None }),
            // EISDIR: a kernel that does not know the flag; the others: a file system that does not.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let path = temporary_name(dir);
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                let fd = calls::open(path.as_std_path(), flags, mode).at("create", &path)?;
                Ok(Self { file: File::from(fd), dir: dir.to_owned(), temporary: Some(path) })
            }
            Err(errno) => Err(errno).at("create a file in", dir),
        }
    }

    /// A file that nothing can be written to, for tests of failures.
    #[cfg(test)]
    pub(crate) fn unwritable(dir: &Utf8Path) -> Self {
        let file = File::open("/dev/null").unwrap_or_else(|error| panic!("/dev/null: {error}"));
        Self { file, dir: dir.to_owned(), temporary: None }
    }

    /// The open file, for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The directory it was started in, for messages.
    pub fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// Waits until the content is on the disk.
    pub fn sync(&self) -> Result<(), IoError> {
        self.file.sync_all().at("write", &self.dir)
    }

    /// Gives the synced file its name, replacing what has it. The directory is not synced.
    pub fn publish(mut self, path: &Utf8Path) -> Result<(), IoError> {
        if let Some(temporary) = self.temporary.take() {
            return rename_or_remove(&temporary, path);
        }
        // linkat does not replace: link beside it, then rename over it.
        match self.link(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let beside = temporary_name(path.parent().unwrap_or(Utf8Path::new(".")));
                self.link(&beside).at("create", &beside)?;
                rename_or_remove(&beside, path)
            }
            Err(error) => Err(error).at("create", path),
        }
    }

    fn link(&self, path: &Utf8Path) -> io::Result<()> {
        let fd = format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd());
        Ok(calls::linkat(CWD, &*fd, CWD, path.as_std_path(), AtFlags::SYMLINK_FOLLOW)?)
    }
}

/// Renames a temporary file; one that cannot be is gone.
fn rename_or_remove(temporary: &Utf8Path, path: &Utf8Path) -> Result<(), IoError> {
    let renamed = calls::rename(temporary, path).at("rename a file to", path);
    if renamed.is_err() {
        // The failure to tell is the first; the next run clears leftovers.
        let _ = calls::remove_file(temporary);
    }
    renamed
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = self.temporary.take() {
            // Nothing can be done about a failure here; the next run clears leftovers.
            let _ = calls::remove_file(&path);
        }
    }
}

/// Replaces `path` by `bytes`, atomically and durably.
pub fn replace(path: &Utf8Path, bytes: &[u8]) -> Result<(), IoError> {
    replace_with_mode(path, bytes, 0o644)
}

/// Replaces `path` by `bytes`, atomically and durably; nobody whom `mode` keeps out ever sees them.
pub fn replace_with_mode(path: &Utf8Path, bytes: &[u8], mode: u32) -> Result<(), IoError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_str().is_empty() => dir,
        _ => Utf8Path::new("."),
    };
    let staged = Staged::new_in(dir)?;
    calls::fchmod(&staged.file, Mode::from_raw_mode(mode)).at("change the mode of", path)?;
    (&staged.file).write_all(bytes).at("write", path)?;
    staged.file.sync_all().at("write", path)?;
    staged.publish(path)?;
    sync_dir(dir)
}

/// Waits until a directory's entries are on the disk.
pub fn sync_dir(dir: &Utf8Path) -> Result<(), IoError> {
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// Removes what killed processes left in `dir`. The caller holds the lock that says none is running.
pub fn clear_leftovers(dir: &Utf8Path) -> Result<(), IoError> {
    for entry in dir.read_dir_utf8().at("read", dir)? {
        let entry = entry.at("read", dir)?;
        if is_leftover(entry.path()) {
            calls::remove_file(entry.path()).at("remove", entry.path())?;
        }
    }
    Ok(())
}

/// Whether a name is one that only unfinished files have.
pub fn is_leftover(path: &Utf8Path) -> bool {
    path.file_name().is_some_and(|name| name.starts_with(TEMPORARY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    #[test]
    fn a_dropped_file_leaves_nothing_and_a_published_one_replaces() {
        let (_keep, dir) = folder();
        let staged = Staged::new_in(&dir).unwrap();
        staged.file().write_all(b"x").unwrap();
        drop(staged);
        assert_eq!(dir.read_dir_utf8().unwrap().count(), 0);
        replace(&dir.join("a"), b"one").unwrap();
        replace(&dir.join("a"), b"two").unwrap();
        assert_eq!(std::fs::read(dir.join("a")).unwrap(), b"two");
        assert_eq!(dir.read_dir_utf8().unwrap().count(), 1);
    }

    #[test]
    fn a_lock_excludes() {
        let (_keep, dir) = folder();
        let held =
            DirLockTest::wait(&dir, super::super::LockKind::Exclusive, &crate::model::Cancel::new()).unwrap();
        assert!(DirLockTest::attempt(&dir, super::super::LockKind::Shared).unwrap().is_none());
        drop(held);
        assert!(DirLockTest::attempt(&dir, super::super::LockKind::Shared).unwrap().is_some());
    }

    use super::super::DirLock as DirLockTest;
}
