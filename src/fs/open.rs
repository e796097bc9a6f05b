//! Opening what others may have put there.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use camino::Utf8Path;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{IoError, IoResultExt, calls};

/// Opens a directory to work in; a symlink in its place is an error.
pub fn open_directory(path: &Utf8Path) -> Result<OwnedFd, IoError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    calls::open(path.as_std_path(), flags, Mode::empty()).at("open", path)
}

/// Opens `path` below `dir` for reading; no symlink is followed on the way and none at its end.
///
/// `shown` is the directory's name for messages.
pub fn open_beneath(dir: impl AsFd, shown: &Utf8Path, path: &str) -> Result<File, IoError> {
    beneath(dir, shown, path, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from)
}

/// Opens the directory `path` below `dir`, as [`open_beneath`] does.
pub fn open_directory_beneath(dir: impl AsFd, shown: &Utf8Path, path: &str) -> Result<OwnedFd, IoError> {
    beneath(dir, shown, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens `path` below `dir` as a place only, whatever its mode, as [`open_beneath`] does; a symlink is an error.
pub fn open_path_beneath(dir: impl AsFd, shown: &Utf8Path, path: &str) -> Result<OwnedFd, IoError> {
    beneath(dir, shown, path, OFlags::PATH)
}

fn beneath(dir: impl AsFd, shown: &Utf8Path, path: &str, flags: OFlags) -> Result<OwnedFd, IoError> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(&dir, path, flags, Mode::empty(), resolve) {
            // AGAIN: something on the way was renamed meanwhile.
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => break other.at("open", &shown.join(path)),
        }
    }
}
