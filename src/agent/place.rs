//! A release's tree, made in a directory that nobody else has seen yet.
//!
//! Directories first, in order; then what is in them, many directories at a time: linking within one directory
//! waits for that directory, whoever does it.
//!
//! # Invariants
//!
//! * Every path is made relative to the open directory, below directories that were made here: nothing that
//!   stands elsewhere is ever written.
//! * Scratch is given to the service's user last, when nothing is written to it any more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use camino::Utf8Path;
use rayon::prelude::*;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::bundles::{Bundle, object_of};
use super::objects::{ObjectId, Objects};
use super::render::Text;
use super::stage_error::StageError;
use super::workers;
use crate::bundle::{Entry, Node, Record};
use crate::fs::{IoError, IoResultExt as _, calls, open_directory};
use crate::model::BundlePath;

/// What a release is made of.
pub(super) struct Plan<'a> {
    pub bundle: &'a Bundle,
    pub record: &'a Record,
    /// Texts to write instead of what the bundle has.
    pub rendered: &'a BTreeMap<BundlePath, Text>,
    /// uid and gid that scratch and secrets are given to; `None` where we are nobody to give.
    pub owner: Option<(u32, u32)>,
}

/// Makes the tree.
pub(super) struct Placer<'a> {
    plan: &'a Plan<'a>,
    objects: &'a Objects,
    dir: OwnedFd,
    shown: &'a Utf8Path,
    made: HashSet<String>,
    /// Directories, in the order in which they were made, and whether they stay writable.
    directories: Vec<(String, bool)>,
    given: Vec<String>,
}

/// What of a tree is there before it is made.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Whether each of the bundle's entries, in order, is there; shorter if the others are not.
    pub entries: Vec<bool>,
    /// Directories among them that are not sealed.
    pub open: Vec<String>,
}

/// From so many files on a directory is opened to be filled.
const WORTH_OPENING: usize = 3;

/// A release's directories: nobody writes to them.
pub(super) const SEALED: Mode = Mode::from_raw_mode(0o555);

fn in_scratch(record: &Record, path: &str) -> bool {
    let below = |at: &BundlePath| {
        path.strip_prefix(at.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    record.scratch.iter().any(below)
}

/// Whether a path is a persistent directory's place or below one.
pub(super) fn in_persist(record: &Record, path: &BundlePath) -> bool {
    record.persist.iter().filter_map(|persist| persist.at.as_ref()).any(|at| path.starts_with(at))
}

/// Whether a path may be written to by the service.
pub(super) fn is_scratch(record: &Record, path: &BundlePath) -> bool {
    in_scratch(record, path.as_str())
}

/// Where a persistent directory's link at `at` points: relative, so that the root may be moved.
pub(super) fn persist_target(at: &BundlePath, name: &str) -> String {
    format!("{}shared/{name}", "../".repeat(at.components().count() + 1))
}

impl<'a> Placer<'a> {
    /// Starts in a directory that is empty, or has what [`Kept`] tells and nothing else.
    pub(super) fn new(plan: &'a Plan<'a>, objects: &'a Objects, dir: &'a Utf8Path) -> Result<Self, IoError> {
        let (made, directories, given) = (HashSet::new(), Vec::new(), Vec::new());
        Ok(Self { plan, objects, dir: open_directory(dir)?, shown: dir, made, directories, given })
    }

    /// Makes everything but what is there already.
    pub(super) fn place(mut self, kept: &Kept) -> Result<(), StageError> {
        let tree = self.plan.bundle.tree();
        let record = self.plan.record;
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        let mut there = HashSet::new();
        let outside = record.scratch.iter().chain(record.persist.iter().filter_map(|one| one.at.as_ref()));
        let mut made: Vec<&BundlePath> = outside.collect();
        for (position, (layer, entry)) in tree.entries().enumerate() {
            if kept.entries.get(position) == Some(&true) {
                if matches!(entry.node, Node::Directory) {
                    there.insert(entry.path.as_str());
                }
                continue;
            }
            made.push(&entry.path);
            if in_persist(record, &entry.path) {
                if matches!(entry.node, Node::Directory) {
                    continue;
                }
                return Err(StageError::Hidden { path: entry.path.clone() });
            }
            match &entry.node {
                Node::Directory => {
                    let path = entry.path.as_str();
                    directories.push((path.to_owned(), in_scratch(record, path)));
                }
                Node::File { .. } | Node::HardLink { .. } | Node::Symlink { .. } => {
                    files.push((layer, entry));
                }
            }
        }
        if !kept.entries.is_empty() {
            self.open(kept, &there, &made)?;
        }
        self.made.extend(there.into_iter().map(str::to_owned));
        self.directories(directories)?;
        self.given = self.fill(&files)?;
        let parent = |path: &BundlePath| path.parent().map(|parent| parent.as_str().to_owned());
        for scratch in &record.scratch {
            self.directories_to(Some(scratch.as_str().to_owned()))?;
        }
        for persist in &record.persist {
            let Some(at) = &persist.at else { continue };
            self.directories_to(parent(at))?;
            let target = persist_target(at, &persist.name);
            calls::symlinkat(&*target, &self.dir, at.as_str()).at("create", &self.shown.join(at.as_str()))?;
        }
        self.seal()
    }

    /// Opens directories that are there, for what is made in them; those that are open are sealed at the end as well.
    fn open(&mut self, kept: &Kept, there: &HashSet<&str>, made: &[&BundlePath]) -> Result<(), IoError> {
        let mut opened: BTreeSet<&str> = kept.open.iter().map(String::as_str).collect();
        for path in made {
            // What is made below a directory that is made needs only that one's own.
            opened.extend(path.ancestors().filter(|above| there.contains(above)).last());
        }
        let writable = Mode::from_raw_mode(0o755);
        calls::fchmod(&self.dir, writable).at("change the mode of", self.shown)?;
        for path in opened {
            calls::chmodat(&self.dir, path, writable, AtFlags::empty())
                .at("change the mode of", &self.shown.join(path))?;
            self.directories.push((path.to_owned(), false));
        }
        Ok(())
    }

    /// Makes only some of the tree's entries, none of which is rendered or anybody else's.
    pub(super) fn place_only(mut self, wanted: impl Fn(usize, &Entry) -> bool) -> Result<(), StageError> {
        let tree = self.plan.bundle.tree();
        let wanted = tree.entries().filter(|(layer, entry)| wanted(*layer, entry));
        let (directories, files): (Vec<_>, Vec<_>) =
            wanted.partition(|(_, entry)| matches!(entry.node, Node::Directory));
        let directories = directories.iter().map(|(_, entry)| (entry.path.as_str().to_owned(), false));
        self.directories(directories.collect())?;
        self.given = self.fill(&files)?;
        self.seal()
    }

    /// Makes everything that is no directory, in directories that are there; gives what is the service's.
    fn fill(&self, files: &[(usize, &Entry)]) -> Result<Vec<String>, StageError> {
        let parent = |(_, entry): &(usize, &Entry)| entry.path.parent();
        let filled = files.par_chunk_by(|a, b| parent(a) == parent(b)).map(|files| {
            let mut given = Vec::new();
            let directory = self.directory_of(files)?;
            for (layer, entry) in files {
                if self.entry(*layer, entry, directory.as_ref())? {
                    given.push(entry.path.as_str().to_owned());
                }
            }
            Ok(given)
        });
        Ok(filled.collect::<Result<Vec<_>, StageError>>()?.concat())
    }

    /// The directory of files that stand in one, where walking down to it for each would take longer.
    fn directory_of(&self, files: &[(usize, &Entry)]) -> Result<Option<OwnedFd>, StageError> {
        let parent = files.first().and_then(|(_, entry)| entry.path.parent());
        let Some(parent) = parent.filter(|_| files.len() >= WORTH_OPENING) else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = calls::openat(&self.dir, parent.as_str(), flags, Mode::empty());
        Ok(Some(opened.at("open", &self.shown.join(parent.as_str()))?))
    }

    /// Makes one, in its open directory if there is that; true if it is to be the service's.
    fn entry(&self, layer: usize, entry: &Entry, dir: Option<&OwnedFd>) -> Result<bool, StageError> {
        let path = entry.path.as_str();
        let scratch = in_scratch(self.plan.record, path);
        if let Some(text) = self.plan.rendered.get(&entry.path) {
            self.rendered(layer, entry, text, scratch)?;
            return Ok(text.secret || scratch);
        }
        match &entry.node {
            Node::Directory => {}
            Node::Symlink { target } => {
                calls::symlinkat(target.as_str(), &self.dir, path).at("create", &self.shown.join(path))?;
            }
            Node::File { .. } | Node::HardLink { .. } => {
                let (id, mode) = self.content(layer, entry)?;
                if scratch {
                    self.copy(id, path, mode)?;
                } else if mode & 0o6000 != 0 {
                    self.copy(id, path, mode & !0o222)?;
                } else {
                    self.link(id, path, dir, mode & !0o222)?;
                }
            }
        }
        Ok(scratch)
    }

    fn content(&self, layer: usize, entry: &Entry) -> Result<(ObjectId, u32), StageError> {
        let found = self.plan.bundle.content_of(layer, entry);
        let unknown = || StageError::Unresolved { path: entry.path.clone() };
        let file = found.ok_or_else(unknown)?;
        let (id, _) = object_of(&file.node).ok_or_else(unknown)?;
        let mode = match file.node {
            Node::File { mode, .. } => u32::from(mode),
            Node::Directory | Node::Symlink { .. } | Node::HardLink { .. } => 0o644,
        };
        Ok((id, mode))
    }

    /// Makes directories level by level, each level's at the same time.
    fn directories(&mut self, mut directories: Vec<(String, bool)>) -> Result<(), StageError> {
        let level = |path: &str| path.bytes().filter(|byte| *byte == b'/').count();
        directories.sort_by_cached_key(|(path, _)| level(path));
        workers::start().at("start threads to fill", self.shown)?;
        for same in directories.chunk_by(|(a, _), (b, _)| level(a) == level(b)) {
            same.par_iter().try_for_each(|(path, _)| self.make_directory(path))?;
        }
        self.made.extend(directories.iter().map(|(path, _)| path.clone()));
        self.directories.extend(directories);
        Ok(())
    }

    fn make_directory(&self, path: &str) -> Result<(), StageError> {
        let made = calls::mkdirat(&self.dir, path, Mode::from_raw_mode(0o755));
        Ok(made.at("create", &self.shown.join(path))?)
    }

    fn directory(&mut self, path: String, writable: bool) -> Result<(), StageError> {
        self.make_directory(&path)?;
        self.made.insert(path.clone());
        self.directories.push((path, writable));
        Ok(())
    }

    /// Makes what is missing of the directories down to `path`.
    fn directories_to(&mut self, path: Option<String>) -> Result<(), StageError> {
        let Some(path) = path else { return Ok(()) };
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends.collect::<Vec<_>>() {
            let above = &path[..end];
            if !self.made.contains(above) {
                let writable = in_scratch(self.plan.record, above);
                self.directory(above.to_owned(), writable)?;
            }
        }
        Ok(())
    }

    fn rendered(&self, layer: usize, entry: &Entry, text: &Text, scratch: bool) -> Result<(), StageError> {
        let path = entry.path.as_str();
        let (_, mode) = self.content(layer, entry)?;
        let mode = match (text.secret, scratch) {
            (true, _) => 0o600,
            (false, true) => mode & 0o777,
            (false, false) => mode & 0o555,
        };
        self.write(path, text.exact.as_bytes(), mode)
    }

    fn create(&self, path: &str) -> Result<File, IoError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = calls::openat(&self.dir, path, flags, Mode::from_raw_mode(0o600));
        Ok(File::from(fd.at("create", &self.shown.join(path))?))
    }

    fn set_mode(&self, file: &File, path: &str, mode: u32) -> Result<(), IoError> {
        calls::fchmod(file, Mode::from_raw_mode(mode)).at("change the mode of", &self.shown.join(path))
    }

    fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<(), StageError> {
        let mut file = self.create(path)?;
        file.write_all(content).at("write", &self.shown.join(path))?;
        Ok(self.set_mode(&file, path, mode)?)
    }

    fn copy(&self, id: ObjectId, path: &str, mode: u32) -> Result<(), StageError> {
        let mut file = self.create(path)?;
        self.objects.copy(id, &mut file, &self.shown.join(path))?;
        Ok(self.set_mode(&file, path, mode)?)
    }

    fn link(&self, id: ObjectId, path: &str, dir: Option<&OwnedFd>, mode: u32) -> Result<(), StageError> {
        let (dir, name) = match (dir, path.rsplit_once('/')) {
            (Some(dir), Some((_, name))) => (dir, name),
            _ => (&self.dir, path),
        };
        match calls::linkat(self.objects.dir(), &*id.path(), dir, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // Too many links to one inode, or a file system that has none, or whose links root alone may make.
            Err(Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP | Errno::PERM) => self.copy(id, path, mode),
            Err(Errno::NOENT) => Err(super::objects::ObjectError::Absent(id.digest).into()),
            Err(errno) => Err(IoError::new("create", &self.shown.join(path), errno).into()),
        }
    }

    /// Read-only directories, and owners: what is below before what is above.
    fn seal(&self) -> Result<(), StageError> {
        self.directories.par_iter().filter(|(_, writable)| !writable).try_for_each(|(path, _)| {
            calls::chmodat(&self.dir, &**path, SEALED, AtFlags::empty())
                .at("change the mode of", &self.shown.join(path))
        })?;
        if let Some((uid, gid)) = self.plan.owner {
            let directories =
                self.directories.iter().rev().filter(|(_, writable)| *writable).map(|(path, _)| path);
            for path in self.given.iter().chain(directories) {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                calls::chownat(&self.dir, &**path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .at("change the owner of", &self.shown.join(path))?;
            }
        }
        Ok(calls::fchmod(&self.dir, SEALED).at("change the mode of", self.shown)?)
    }
}
