//! Removing and naming whole trees, of which services may have written parts.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use camino::Utf8Path;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{IoError, IoResultExt, calls};

/// Gives a finished directory its name, which nothing has yet, and waits until that is on the disk.
pub fn rename_directory(from: &Utf8Path, to: &Utf8Path) -> Result<(), IoError> {
    calls::renameat_with(CWD, from.as_std_path(), CWD, to.as_std_path(), RenameFlags::NOREPLACE)
        .at("rename a directory to", to)?;
    match to.parent() {
        Some(parent) => super::sync_dir(parent),
        None => Ok(()),
    }
}

/// Moves the file or symlink `from` to `name` in an open directory, over the file or symlink that is there.
pub fn move_over(from: &Utf8Path, to: impl AsFd, name: &str, shown: &Utf8Path) -> Result<(), IoError> {
    calls::renameat(CWD, from.as_std_path(), to, name).at("rename a file to", shown)
}

/// Removes a tree, read-only directories included. Symlinks are removed, never followed; what is on
/// another file system is not touched and makes it fail. A tree that is not there is removed already.
pub fn remove_tree(path: &Utf8Path) -> Result<(), IoError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = match File::open(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.at("open", parent)?,
    };
    let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL).at("remove", path)?;
    let device = rustix::fs::fstat(&parent).at("read", path)?.st_dev;
    remove(parent.as_fd(), &name, device).at("remove", path)
}

/// Removes what stands at a name in an open directory, as [`remove_tree`] does.
pub fn remove_entry(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    remove(dir, name, rustix::fs::fstat(dir)?.st_dev)
}

fn remove(parent: BorrowedFd<'_>, name: &CStr, device: u64) -> Result<(), Errno> {
    match calls::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // PERM is what POSIX has for a directory, ISDIR what Linux has.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let directory = open_to_empty(parent, name)?;
    if rustix::fs::fstat(&directory)?.st_dev != device {
        return Err(Errno::XDEV);
    }
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove(directory.as_fd(), entry.file_name(), device)?;
        }
    }
    match calls::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Opens a directory so that its entries can be listed and removed.
fn open_to_empty(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = calls::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&path)?;
    if stat.st_mode & 0o700 != 0o700 && stat.st_uid == rustix::process::geteuid().as_raw() {
        // Through the descriptor: whoever puts a symlink there meanwhile changes nothing.
        let through = format!("/proc/self/fd/{}", path.as_raw_fd());
        if stat.st_mode & 0o170_000 == 0o040_000 {
            calls::chmod(&*through, Mode::from_raw_mode(0o700))?;
        }
    }
    calls::openat(parent, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use camino::Utf8PathBuf;

    use super::*;

    #[test]
    fn read_only_directories_go_and_what_links_point_at_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(temporary.path().to_owned()).unwrap();
        std::fs::create_dir_all(dir.join("tree/a/b")).unwrap();
        std::fs::create_dir(dir.join("outside")).unwrap();
        std::fs::write(dir.join("outside/precious"), "").unwrap();
        std::fs::write(dir.join("tree/a/b/file"), "").unwrap();
        symlink(dir.join("outside"), dir.join("tree/a/link")).unwrap();
        for name in ["tree/a/b", "tree/a", "tree"] {
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o555)).unwrap();
        }
        remove_tree(&dir.join("tree")).unwrap();
        remove_tree(&dir.join("tree")).unwrap();
        assert!(dir.join("outside/precious").exists() && !dir.join("tree").exists());
        symlink("outside", dir.join("link")).unwrap();
        remove_tree(&dir.join("link")).unwrap();
        assert!(dir.join("outside/precious").exists());
    }
}
