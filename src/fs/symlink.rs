//! Symbolic links that change what they point at, from one moment to the next and for good.

use std::fs::File;

use camino::Utf8Path;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{IoError, IoResultExt, calls, staged};

/// Why a link does not certainly point where it should.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum SwapError {
    /// Nothing was changed.
    Untouched(IoError),
    /// The link was changed, but a power cut may undo it.
    Unsynced(IoError),
}

/// Points the symlink `name` in `dir` at `target`: what reads it meanwhile sees the old or the new.
///
/// Leftovers of killed swaps are removed first. The caller holds the lock that says none is running.
pub fn symlink_swap(dir: &Utf8Path, name: &str, target: &str) -> Result<(), SwapError> {
    let folder = File::open(dir).at("open", dir).map_err(SwapError::Untouched)?;
    let swap = || -> Result<(), IoError> {
        staged::clear_leftovers(dir)?;
        let temporary = staged::temporary_name(dir);
        let short = temporary.file_name().unwrap_or_default();
        calls::symlinkat(target, &folder, short).at("create", &temporary)?;
        let link = dir.join(name);
        calls::renameat(&folder, short, &folder, name).at("replace", &link).inspect_err(|_| {
            // The next swap removes what this cannot.
            let _ = calls::unlinkat(&folder, short, AtFlags::empty());
        })
    };
    swap().map_err(SwapError::Untouched)?;
    folder.sync_all().at("sync", dir).map_err(SwapError::Unsynced)
}

/// Removes the symlink `name` in `dir`, if it is there; anything else in its place is an error.
pub fn symlink_remove(dir: &Utf8Path, name: &str) -> Result<(), SwapError> {
    if read_symlink(&dir.join(name)).map_err(SwapError::Untouched)?.is_none() {
        return Ok(());
    }
    let folder = File::open(dir).at("open", dir).map_err(SwapError::Untouched)?;
    let link = dir.join(name);
    calls::unlinkat(&folder, name, AtFlags::empty()).at("remove", &link).map_err(SwapError::Untouched)?;
    folder.sync_all().at("sync", dir).map_err(SwapError::Unsynced)
}

/// What a symlink points at; `None` if there is nothing of that name.
pub fn read_symlink(path: &Utf8Path) -> Result<Option<String>, IoError> {
    match rustix::fs::readlink(path.as_std_path(), Vec::new()) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).at("read the link", path),
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;

    #[test]
    fn swaps_clears_leftovers_and_never_replaces_a_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(temporary.path().to_owned()).unwrap();
        symlink_swap(&dir, "current", "releases/1").unwrap();
        std::os::unix::fs::symlink("releases/9", dir.join(".tmp-1-1")).unwrap();
        symlink_swap(&dir, "current", "releases/2").unwrap();
        assert_eq!(read_symlink(&dir.join("current")).unwrap().unwrap(), "releases/2");
        assert_eq!(dir.read_dir_utf8().unwrap().count(), 1);
        symlink_remove(&dir, "current").unwrap();
        assert_eq!(read_symlink(&dir.join("current")).unwrap(), None);
        std::fs::create_dir(dir.join("current")).unwrap();
        std::fs::write(dir.join("current/precious"), "").unwrap();
        assert!(matches!(symlink_swap(&dir, "current", "x").unwrap_err(), SwapError::Untouched(_)));
        assert!(dir.join("current/precious").exists());
        assert_eq!(dir.read_dir_utf8().unwrap().count(), 1);
    }
}
