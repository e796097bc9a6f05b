//! What a file system has left, and waiting until all of it is on the disk.

use std::fs::File;

use camino::Utf8Path;

use super::{IoError, IoResultExt, calls};

/// What a file system has left for whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: u64,
    /// Inodes; `None` where the file system does not count them.
    pub inodes: Option<u64>,
}

/// What the file system of `path` has left.
pub fn space(path: &Utf8Path) -> Result<Space, IoError> {
    let stat = rustix::fs::statvfs(path.as_std_path()).at("ask for the free space of", path)?;
    let inodes = (stat.f_files > 0).then_some(stat.f_favail);
    Ok(Space { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), inodes })
}

/// Waits until everything written to the file system of `dir` is on the disk.
///
/// One call for a tree of thousands of files costs a tenth of an fsync for each.
pub fn sync_file_system(dir: &Utf8Path) -> Result<(), IoError> {
    let file = File::open(dir).at("open", dir)?;
    calls::syncfs(&file).at("sync the file system of", dir)
}
