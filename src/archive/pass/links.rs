//! Symlinks and hard links: where they may lead, and what becomes of them.

use super::super::Refusal;
use super::super::error::{Halt, printable};
use super::super::names::entry_path;
use super::{Pass, Seen};
use crate::archive::ArchiveError;
use crate::model::BundlePath;

/// `PATH_MAX` less the NUL.
const MAX_TARGET: usize = 4095;

impl Pass<'_> {
    pub(super) fn symlink(
        &mut self,
        name: &BundlePath,
        path: Option<BundlePath>,
        target: &[u8],
    ) -> Result<(), Halt> {
        let text = match std::str::from_utf8(target) {
            Ok(text) => text,
            Err(_) if path.is_none() => return Ok(()),
            Err(_) => return Err(Refusal::BadTarget.into()),
        };
        self.seen.insert(name.as_str().to_owned(), Seen::Symlink(text.to_owned()));
        match path {
            None => Ok(()),
            Some(path) => self.take_symlink(path, text.to_owned()),
        }
    }

    fn take_symlink(&mut self, path: BundlePath, target: String) -> Result<(), Halt> {
        check_target(&path, &target, self.selection.into.as_ref())?;
        self.tree.symlink(&path, &target)?;
        self.taken += 1;
        if self.wanted.is_empty() {
            self.visitor.symlink(path, target).map_err(ArchiveError::Visitor)?;
        }
        Ok(())
    }

    pub(super) fn hard_link(
        &mut self,
        name: &BundlePath,
        path: Option<BundlePath>,
        target: &[u8],
    ) -> Result<(), Halt> {
        let target_name = entry_path(target).ok();
        if target_name.as_ref() == Some(name) && path.is_some() {
            return Err(Refusal::LinkToItself.into());
        }
        let seen = target_name.and_then(|target| self.seen.get(target.as_str()).cloned());
        let Some(seen) = seen else {
            return match path {
                None => Ok(()),
                Some(_) => Err(Refusal::LinkToNothing { target: printable(target) }.into()),
            };
        };
        self.seen.insert(name.as_str().to_owned(), seen.clone());
        match (path, seen) {
            (None, _) => Ok(()),
            (Some(_), Seen::Directory) => Err(Refusal::LinkToDirectory { target: printable(target) }.into()),
            (Some(path), Seen::Symlink(text)) => self.take_symlink(path, text),
            (Some(path), Seen::File(number)) => self.link_file(path, number),
        }
    }

    fn link_file(&mut self, path: BundlePath, number: usize) -> Result<(), Halt> {
        // The very link that the file was retained for: it became the file.
        if self.plan.retained.get(&number) == Some(&path) {
            self.plan.retained.remove(&number);
            return Ok(());
        }
        self.tree.file(&path)?;
        self.taken += 1;
        match self.files.get_mut(number) {
            Some(Some(target)) if self.wanted.is_empty() => {
                self.visitor.hard_link(path, target.clone()).map_err(ArchiveError::Visitor)?;
            }
            Some(at @ None) => {
                *at = Some(path.clone());
                self.wanted.insert(number, path);
            }
            Some(Some(_)) | None => {}
        }
        Ok(())
    }
}

/// What can be said of a symlink without knowing the others; [`super::Tree`] follows it in the end.
fn check_target(path: &BundlePath, target: &str, into: Option<&BundlePath>) -> Result<(), Refusal> {
    if target.is_empty() {
        return Err(Refusal::NoTarget);
    }
    if target.len() > MAX_TARGET {
        return Err(Refusal::LongTarget { limit: MAX_TARGET as u64 });
    }
    if target.contains('\0') {
        return Err(Refusal::BadTarget);
    }
    if target.starts_with('/') {
        return Err(Refusal::AbsoluteTarget { target: printable(target.as_bytes()) });
    }
    let mut depth = into.map_or(0, |into| into.components().count()) + path.components().count() - 1;
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." if depth == 0 => return Err(Refusal::Escapes { target: printable(target.as_bytes()) }),
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    Ok(())
}
