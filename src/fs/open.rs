//! Opening what others may have put there.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use camino::Utf8Path;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{IoError, IoResultExt};

/// Opens a directory to work in; a symlink in its place is an error.
pub fn open_directory(path: &Utf8Path) -> Result<OwnedFd, IoError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path.as_std_path(), flags, Mode::empty()).at("open", path)
}

/// Opens `path` below `dir` for reading; no symlink is followed on the way and none at its end.
///
/// `shown` is the directory's name for messages.
pub fn open_beneath(dir: impl AsFd, shown: &Utf8Path, path: &str) -> Result<File, IoError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(&dir, path, flags, Mode::empty(), resolve) {
            // AGAIN: something on the way was renamed meanwhile.
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => break other.map(File::from).at("open", &shown.join(path)),
        }
    }
}
