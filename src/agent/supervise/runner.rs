//! The program that becomes the service, where a supervisor starts it: this one, kept in the role's folder.
//!
//! The agent's own file goes when newer ones came; a service that is brought up again months later still needs it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};

use super::SuperviseError;
use crate::agent::layout::RoleDir;
use crate::fs::{IoError, IoResultExt as _, Staged, calls, sync_dir, temporary_name};

/// The running program; also when its file was replaced or removed meanwhile.
const SELF: &str = "/proc/self/exe";

/// Puts this program into the role's folder; where it is.
pub(super) fn place(dir: &RoleDir) -> Result<Utf8PathBuf, SuperviseError> {
    let path = dir.runner();
    if !is_same(&path) && !link(&path)? {
        copy(&path)?;
    }
    Ok(path)
}

/// Whether a process still is the runner that is about to become the service.
pub(super) fn is_runner(pid: u32, runner: &Utf8Path) -> bool {
    let (Ok(exe), Ok(own)) = (std::fs::metadata(format!("/proc/{pid}/exe")), runner.metadata()) else {
        return false;
    };
    (exe.dev(), exe.ino()) == (own.dev(), own.ino())
}

/// The same file, or a copy of it: made with its time of change.
fn is_same(path: &Utf8Path) -> bool {
    let (Ok(own), Ok(there)) = (std::fs::metadata(SELF), path.symlink_metadata()) else { return false };
    there.is_file()
        && own.len() == there.len()
        && (own.mtime(), own.mtime_nsec()) == (there.mtime(), there.mtime_nsec())
}

/// Gives the running program's file another name, which costs nothing; not if it is elsewhere or somebody's.
fn link(path: &Utf8Path) -> Result<bool, IoError> {
    let dir = path.parent().unwrap_or(Utf8Path::new("/"));
    let temporary = temporary_name(dir);
    let Ok(own) = std::fs::read_link(SELF) else { return Ok(false) };
    // A name of a file that others can change would be a program that others can change; the service's user runs it.
    let us = rustix::process::geteuid().as_raw();
    let fits = |meta: std::fs::Metadata| {
        (meta.uid() == us || meta.uid() == 0) && meta.mode() & 0o022 == 0 && meta.mode() & 0o055 == 0o055
    };
    if !std::fs::metadata(&own).is_ok_and(fits) || std::fs::hard_link(&own, &temporary).is_err() {
        return Ok(false);
    }
    let renamed = calls::rename(&temporary, path).at("rename a file to", path);
    // Two names of one file are not renamed over each other.
    let _ = calls::remove_file(&temporary);
    renamed?;
    // Its name may have been another file's by then.
    Ok(is_same(path))
}

fn copy(path: &Utf8Path) -> Result<(), IoError> {
    let dir = path.parent().unwrap_or(Utf8Path::new("/"));
    let mut own = std::fs::File::open(SELF).at("read", Utf8Path::new(SELF))?;
    let staged = Staged::new_in(dir)?;
    std::io::copy(&mut own, &mut staged.file()).at("write", path)?;
    let times = std::fs::FileTimes::new()
        .set_modified(own.metadata().and_then(|meta| meta.modified()).at("read", Utf8Path::new(SELF))?);
    staged.file().set_times(times).at("write", path)?;
    staged.file().set_permissions(std::fs::Permissions::from_mode(0o755)).at("change the mode of", path)?;
    staged.sync()?;
    // A name that has the running program cannot be written to, but it can be replaced.
    staged.publish(path)?;
    sync_dir(dir)
}
