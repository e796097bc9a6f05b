//! Whether a folder, and the way to it, are ours alone to change.

use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use super::accounts;
use super::layout::LayoutError;
use crate::fs::{IoError, IoResultExt as _};

/// How many links may lead from one to the next, as in the kernel.
const LINKS: usize = 40;

/// Whether the way to a root is ours to trust: no link of another user's is on it, and no folder in which everybody
/// may rename what is not theirs. What is not there yet is nobody's.
pub(super) fn check_way(path: &Utf8Path) -> Result<(), LayoutError> {
    let absolute = camino::absolute_utf8(path).at("resolve", path)?;
    let names =
        |path: &Utf8Path| path.components().map(|name| name.as_str().to_owned()).rev().collect::<Vec<_>>();
    let (mut at, mut left, mut links) = (Utf8PathBuf::from("/"), names(&absolute), 0);
    while let Some(name) = left.pop() {
        match name.as_str() {
            "/" => at = "/".into(),
            ".." => drop(at.pop()),
            name => at.push(name),
        }
        let meta = match at.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.at("read", &at)?,
        };
        if meta.is_symlink() {
            if !trusted(meta.uid()) {
                return Err(LayoutError::Planted { path: at, owner: accounts::name_of(meta.uid()) });
            }
            links += 1;
            if links > LINKS {
                return Err(IoError::new("resolve", path, rustix::io::Errno::LOOP).into());
            }
            left.extend(names(&at.read_link_utf8().at("read the link", &at)?));
            at.pop();
        } else if !left.is_empty() && meta.mode() & 0o1002 == 0o002 {
            let (owner, mode) = (accounts::name_of(meta.uid()), meta.mode() & 0o7777);
            return Err(LayoutError::Writable { path: at, owner, mode });
        }
    }
    Ok(())
}

/// Whether what belongs to this user may be relied on.
fn trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Whether a folder is a directory that only we can change.
pub(super) fn check(path: &Utf8Path, meta: &std::fs::Metadata) -> Result<(), LayoutError> {
    let us = rustix::process::geteuid().as_raw();
    if meta.is_symlink() {
        if !trusted(meta.uid()) {
            return Err(LayoutError::Planted { path: path.to_owned(), owner: accounts::name_of(meta.uid()) });
        }
        let meta = path.metadata().at("read", path)?;
        return check(path, &meta);
    }
    if !meta.is_dir() {
        return Err(LayoutError::NotADirectory(path.to_owned()));
    }
    let owner = || accounts::name_of(meta.uid());
    if !trusted(meta.uid()) {
        return Err(LayoutError::Owner { path: path.to_owned(), owner: owner(), us: accounts::name_of(us) });
    }
    if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(LayoutError::Writable { path: path.to_owned(), owner: owner(), mode });
    }
    Ok(())
}
