//! System calls that change names, modes and locks, made again when a signal interrupts them.
//!
//! The standard library and rustix leave that to the caller for all but reading, writing, opening and syncing. On a
//! local disk none of these is interrupted; on a network's file system or one that a process serves any may be.

use std::os::fd::{AsFd, OwnedFd};

use camino::Utf8Path;
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Timestamps, Uid};
use rustix::io::{Result, retry_on_intr as again};
use rustix::path::Arg;

/// Opens a file.
pub fn open(path: impl Arg + Copy, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    again(|| rustix::fs::open(path, flags, mode))
}

/// Opens a file below a directory.
pub fn openat(dir: impl AsFd, path: impl Arg + Copy, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    again(|| rustix::fs::openat(&dir, path, flags, mode))
}

/// How a file is open.
pub fn fcntl_getfl(file: impl AsFd) -> Result<OFlags> {
    again(|| rustix::fs::fcntl_getfl(&file))
}

/// Changes how a file is open.
pub fn fcntl_setfl(file: impl AsFd, flags: OFlags) -> Result<()> {
    again(|| rustix::fs::fcntl_setfl(&file, flags))
}

/// Locks or unlocks an open file.
pub fn flock(file: impl AsFd, operation: FlockOperation) -> Result<()> {
    again(|| rustix::fs::flock(&file, operation))
}

/// Writes out a file system.
pub fn syncfs(file: impl AsFd) -> Result<()> {
    again(|| rustix::fs::syncfs(&file))
}

/// Gives a file one more name.
pub fn linkat(
    from: impl AsFd,
    old: impl Arg + Copy,
    to: impl AsFd,
    new: impl Arg + Copy,
    flags: AtFlags,
) -> Result<()> {
    again(|| rustix::fs::linkat(&from, old, &to, new, flags))
}

/// Makes a symbolic link.
pub fn symlinkat(target: impl Arg + Copy, dir: impl AsFd, path: impl Arg + Copy) -> Result<()> {
    again(|| rustix::fs::symlinkat(target, &dir, path))
}

/// Renames, over whatever has the new name.
pub fn renameat(from: impl AsFd, old: impl Arg + Copy, to: impl AsFd, new: impl Arg + Copy) -> Result<()> {
    again(|| rustix::fs::renameat(&from, old, &to, new))
}

/// Renames, as the flags say.
pub fn renameat_with(
    from: impl AsFd,
    old: impl Arg + Copy,
    to: impl AsFd,
    new: impl Arg + Copy,
    flags: RenameFlags,
) -> Result<()> {
    again(|| rustix::fs::renameat_with(&from, old, &to, new, flags))
}

/// Removes a name.
pub fn unlinkat(dir: impl AsFd, path: impl Arg + Copy, flags: AtFlags) -> Result<()> {
    again(|| rustix::fs::unlinkat(&dir, path, flags))
}

/// Makes a directory.
pub fn mkdirat(dir: impl AsFd, path: impl Arg + Copy, mode: Mode) -> Result<()> {
    again(|| rustix::fs::mkdirat(&dir, path, mode))
}

/// Sets an open file's mode.
pub fn fchmod(file: impl AsFd, mode: Mode) -> Result<()> {
    again(|| rustix::fs::fchmod(&file, mode))
}

/// Sets a file's mode.
pub fn chmod(path: impl Arg + Copy, mode: Mode) -> Result<()> {
    again(|| rustix::fs::chmod(path, mode))
}

/// Sets the mode of a file below a directory.
pub fn chmodat(dir: impl AsFd, path: impl Arg + Copy, mode: Mode, flags: AtFlags) -> Result<()> {
    again(|| rustix::fs::chmodat(&dir, path, mode, flags))
}

/// Gives a file below a directory to somebody.
pub fn chownat(
    dir: impl AsFd,
    path: impl Arg + Copy,
    uid: Option<Uid>,
    gid: Option<Gid>,
    flags: AtFlags,
) -> Result<()> {
    again(|| rustix::fs::chownat(&dir, path, uid, gid, flags))
}

/// Sets an open file's times.
pub fn futimens(file: impl AsFd, times: &Timestamps) -> Result<()> {
    again(|| rustix::fs::futimens(&file, times))
}

/// Makes a directory with a mode, less what the process's mask takes away.
pub fn create_dir(path: &Utf8Path, mode: u32) -> std::io::Result<()> {
    Ok(mkdirat(rustix::fs::CWD, path.as_std_path(), Mode::from_raw_mode(mode))?)
}

/// Makes a directory and those above it that are missing.
pub fn create_dir_all(path: &Utf8Path) -> std::io::Result<()> {
    loop {
        match std::fs::create_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Removes a file.
pub fn remove_file(path: &Utf8Path) -> std::io::Result<()> {
    Ok(unlinkat(rustix::fs::CWD, path.as_std_path(), AtFlags::empty())?)
}

/// Renames a file, over whatever has the new name.
pub fn rename(from: &Utf8Path, to: &Utf8Path) -> std::io::Result<()> {
    Ok(renameat(rustix::fs::CWD, from.as_std_path(), rustix::fs::CWD, to.as_std_path())?)
}
