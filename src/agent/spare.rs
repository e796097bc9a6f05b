//! What takes time in a release, made ahead.
//!
//! Most of what staging a release of many files takes are its directories and hard links, 16,000 of them or more, and the
//! next release of a role mostly differs in a file of conf. So once such a release is staged, a process that goes on being
//! asked, as that of a rollout does, makes what all releases of its bundle have alike once more, under a name of its own,
//! while it waits. The next release is made of that tree, if most of it fits, and needs only what differs. A spare costs the
//! node its directories. No process lives longer for it than it takes to finish one that was begun.
//!
//! # Invariants
//!
//! * Nothing about a spare is believed. Whoever takes one looks at all of it: what stays is a directory, a symlink with the
//!   right target, or the very inode of the object that belongs there. All else is removed.
//! * `releases/` is locked by who makes or takes a spare, and nobody waits for that lock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RawDir, RawDirEntry, RenameFlags};
use rustix::io::Errno;

use super::bundles::{Bundle, object_of};
use super::error::AgentError;
use super::layout::{RoleDir, Root, SPARE};
use super::objects::{Inode, ObjectId, Objects};
use super::place::{Kept, Placer, Plan, SEALED, in_persist, is_scratch};
use super::state::State;
use super::workers;
use crate::bundle::{Entry, Node, Record, Tree};
use crate::fs::{
    DirLock, IoError, IoResultExt as _, LockKind, calls, open_directory, open_directory_beneath,
    remove_entry, remove_tree, rename_directory, space,
};
use crate::model::{BundlePath, Role};

/// The name of one that is being made.
const UNFINISHED: &str = ".linking";

/// From so many files on a release is worth a spare: below, they are made in a hundredth of a second.
const WORTH: u64 = 2_000;

/// Files that are looked at to tell whether a spare fits.
const SAMPLE: usize = 64;

/// So long after a release was staged its spare is begun: who only pushes has gone by then, and what a rollout does first
/// is done.
const LATER: Duration = Duration::from_secs(1);

/// Directories that a thread looks at before another may take over: some have a hundred times as many files as others.
const TOGETHER: usize = 64;

/// So much more room than a spare takes must there be.
const ROOM: u64 = 20;

/// What all releases of a bundle have alike.
struct Alike<'a> {
    bundle: &'a Bundle,
    record: &'a Record,
    templates: HashSet<&'a BundlePath>,
}

impl<'a> Alike<'a> {
    fn new(bundle: &'a Bundle, record: &'a Record) -> Self {
        Self { bundle, record, templates: record.templates.iter().collect() }
    }

    fn has(&self, layer: usize, entry: &Entry) -> bool {
        let path = &entry.path;
        if in_persist(self.record, path) || is_scratch(self.record, path) {
            return false;
        }
        match &entry.node {
            Node::Directory | Node::Symlink { .. } => true,
            Node::File { .. } | Node::HardLink { .. } => {
                let linked =
                    |file: &Entry| matches!(file.node, Node::File { mode, .. } if mode & 0o6000 == 0);
                !self.templates.contains(path) && self.bundle.content_of(layer, entry).is_some_and(linked)
            }
        }
    }

    /// Whether the file or symlink at `name` in `dir`, whose inode is `found`, is what belongs to `entry`.
    fn fits(
        &self,
        (dir, name, found): (BorrowedFd<'_>, &CStr, Inode),
        (layer, entry): (usize, &Entry),
        inodes: &Inodes,
    ) -> bool {
        match &entry.node {
            Node::Directory => false,
            Node::Symlink { target } => rustix::fs::readlinkat(dir, name, Vec::new())
                .is_ok_and(|found| found.to_bytes() == target.as_bytes()),
            Node::File { .. } | Node::HardLink { .. } => {
                let object = self.bundle.content_of(layer, entry).and_then(|file| object_of(&file.node));
                object.is_some_and(|(id, _)| inodes.get(&id) == Some(&found))
            }
        }
    }
}

/// Where each object of the bundle is.
type Inodes = HashMap<ObjectId, Inode>;

/// Makes spares while this process has nothing else to do; dropping the last clone waits for one that is being made.
#[derive(Clone, Debug, Default)]
pub(super) struct Spares(Arc<Makers>);

#[derive(Debug, Default)]
struct Makers {
    idle: Arc<Idle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Whether this process is still asked for things.
#[derive(Debug, Default)]
struct Idle {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Spares {
    /// Has a spare made of a role's newest release, a while from now, if one of so many files is worth it. What stops that
    /// stops nothing else: whoever stages next makes everything by itself.
    pub(super) fn order(&self, root: &Root, role: &Role, files: u64) {
        if files < WORTH {
            return;
        }
        let (idle, root, role) = (Arc::clone(&self.0.idle), root.clone(), role.clone());
        let maker = std::thread::Builder::new().spawn(move || {
            let over = idle.over.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = idle.changed.wait_timeout_while(over, LATER, |over| !*over);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
            if let Ok(thread) = one_thread() {
                let _ = thread.install(|| make_newest(&root, &role));
            }
        });
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).extend(maker);
    }
}

impl Drop for Makers {
    fn drop(&mut self) {
        *self.idle.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.idle.changed.notify_all();
        for thread in std::mem::take(self.threads.get_mut().unwrap_or_else(PoisonError::into_inner)) {
            // One that panicked has told it, and left what the next one clears.
            let _ = thread.join();
        }
    }
}

/// Makes a spare of a role's newest release, unless there is one, or it would take too much of what room is left.
fn make_newest(root: &Root, role: &Role) -> Result<(), AgentError> {
    let dir = root.role(role);
    let releases = dir.releases();
    let Some(_alone) = DirLock::attempt(&releases, LockKind::Exclusive)? else { return Ok(()) };
    let unfinished = releases.join(UNFINISHED);
    remove_tree(&unfinished)?;
    let state = root.state_of(&dir)?;
    let Some((newest, known)) = state.releases.iter().rev().find(|(_, known)| !known.removed) else {
        return Ok(());
    };
    let finished = dir.spare(newest);
    if finished.is_dir() {
        return Ok(());
    }
    let objects = Objects::open(root)?;
    let bundle = root.load_bundle(known.bundle)?;
    if !has_room(&releases, &bundle)? {
        return Ok(());
    }
    let record = bundle.record(&objects)?;
    for other in all(&releases)? {
        remove_tree(&other)?;
    }
    // It is on the disk now rather than while somebody waits for the next release.
    let made = make(&bundle, &record, &objects, &unfinished)
        .and_then(|()| Ok(rename_directory(&unfinished, &finished)?));
    if made.is_err() {
        // The failure to tell is the first.
        let _ = remove_tree(&unfinished);
    }
    made
}

/// A single thread, to which everything else is preferred.
fn one_thread() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let nice = |_| {
        let _ = rustix::process::nice(19);
    };
    rayon::ThreadPoolBuilder::new().num_threads(1).start_handler(nice).build()
}

fn make(bundle: &Bundle, record: &Record, objects: &Objects, dir: &Utf8Path) -> Result<(), AgentError> {
    calls::create_dir(dir, 0o755).at("create", dir)?;
    let alike = Alike::new(bundle, record);
    let plan = Plan { bundle, record, rendered: &BTreeMap::new(), owner: None };
    Ok(Placer::new(&plan, objects, dir)?.place_only(|layer, entry| alike.has(layer, entry))?)
}

fn has_room(releases: &Utf8Path, bundle: &Bundle) -> Result<bool, IoError> {
    let tree = bundle.tree();
    let own =
        tree.entries().filter(|(_, entry)| matches!(entry.node, Node::Directory | Node::Symlink { .. }));
    let wanted = (own.count() as u64 + 1) * ROOM;
    let free = space(releases)?;
    Ok(free.bytes >= wanted * 4096 && free.inodes.is_none_or(|inodes| inodes >= wanted))
}

/// Every spare that is finished.
fn all(releases: &Utf8Path) -> Result<Vec<Utf8PathBuf>, IoError> {
    let mut found = Vec::new();
    for entry in releases.read_dir_utf8().at("read", releases)? {
        let entry = entry.at("read", releases)?;
        if entry.file_name().starts_with(SPARE) {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

/// Removes spares of releases that are not there, and what a killed process left. The caller holds the role's lock.
pub(super) fn clear(dir: &RoleDir, state: &State) -> Result<(), IoError> {
    let releases = dir.releases();
    for spare in all(&releases)? {
        let release = spare.file_name().and_then(|name| name.strip_prefix(SPARE)?.parse().ok());
        if release.is_none_or(|release| state.present(&release).is_none()) {
            remove_tree(&spare)?;
        }
    }
    let unfinished = releases.join(UNFINISHED);
    if unfinished.is_dir()
        && let Some(_nobody_makes_it) = DirLock::attempt(&releases, LockKind::Exclusive)?
    {
        remove_tree(&unfinished)?;
    }
    Ok(())
}

/// Gives the role's spare the name `to`, if there is one that fits well, removes what does not belong, and tells what is
/// there then. `None`, and nothing of that name, if there is no such spare. The caller holds the role's lock.
pub(super) fn take(
    dir: &RoleDir,
    plan: &Plan<'_>,
    inodes: &Inodes,
    to: &Utf8Path,
) -> Result<Option<Kept>, IoError> {
    let releases = dir.releases();
    let tree = plan.bundle.tree();
    if tree.totals().0 < WORTH {
        return Ok(None);
    }
    let Some(_alone) = DirLock::attempt(&releases, LockKind::Exclusive)? else { return Ok(None) };
    let Some(spare) = all(&releases)?.pop() else { return Ok(None) };
    let should = Should { alike: Alike::new(plan.bundle, plan.record), tree, inodes };
    workers::start().at("start threads to read", &releases)?;
    if !should.mostly_fits(&spare).unwrap_or(false) {
        return Ok(None);
    }
    calls::renameat_with(CWD, spare.as_std_path(), CWD, to.as_std_path(), RenameFlags::NOREPLACE)
        .at("rename a directory to", to)?;
    match should.clean(to) {
        Ok(kept) => Ok(Some(kept)),
        // Whatever is the matter with it, one can be made anew.
        Err(_) => remove_tree(to).map(|()| None),
    }
}

/// What should be in a spare that is taken.
struct Should<'a> {
    alike: Alike<'a>,
    tree: Tree<'a>,
    inodes: &'a Inodes,
}

/// What of one directory of a spare stays.
#[derive(Default)]
struct Found {
    /// Which of the tree's entries, in order; it itself too, unless it is the spare.
    kept: Vec<usize>,
    /// It is not sealed.
    open: bool,
}

impl Should<'_> {
    /// Whether three of four of some of its files are what they should be.
    fn mostly_fits(&self, spare: &Utf8Path) -> Result<bool, IoError> {
        let dir = open_directory(spare)?;
        let wanted = |(layer, entry): &(usize, &Entry)| {
            !matches!(entry.node, Node::Directory) && self.alike.has(*layer, entry)
        };
        let files: Vec<(usize, &Entry)> = self.tree.entries().filter(wanted).collect();
        let (mut looked, mut fit) = (0, 0);
        for (layer, entry) in files.iter().step_by((files.len() / SAMPLE).max(1)) {
            let Ok(path) = CString::new(entry.path.as_str()) else { continue };
            looked += 1;
            if let Ok(stat) = rustix::fs::statat(&dir, &path, AtFlags::SYMLINK_NOFOLLOW) {
                let found = (dir.as_fd(), &*path, Inode::of(&stat));
                fit += usize::from(self.alike.fits(found, (*layer, entry), self.inodes));
            }
        }
        Ok(fit * 4 > looked * 3)
    }

    /// Removes what does not belong into a spare.
    fn clean(&self, spare: &Utf8Path) -> Result<Kept, IoError> {
        let root = open_directory(spare)?;
        let directories: Vec<(usize, &str)> = self
            .tree
            .entries()
            .enumerate()
            .filter(|(_, (layer, entry))| {
                matches!(entry.node, Node::Directory) && self.alike.has(*layer, entry)
            })
            .map(|(position, (_, entry))| (position, entry.path.as_str()))
            .collect();
        let cleaned =
            directories.par_iter().with_max_len(TOGETHER).map_init(list_buffer, |buffer, directory| {
                let (position, path) = *directory;
                match open_directory_beneath(&root, spare, path) {
                    Ok(dir) => {
                        let mut found = self.clean_directory(&dir, path, spare, buffer)?;
                        found.kept.push(position);
                        Ok(found)
                    }
                    // What stands in its place, or in that of one above it, is removed there.
                    Err(error) if is_elsewhere(&error) => Ok(Found::default()),
                    Err(error) => Err(error),
                }
            });
        let cleaned = cleaned.collect::<Result<Vec<Found>, IoError>>()?;
        let mut kept = Kept { entries: vec![false; self.tree.entries().count()], open: Vec::new() };
        let in_root = self.clean_directory(&root, "", spare, &mut list_buffer())?;
        for position in cleaned.iter().chain([&in_root]).flat_map(|found| &found.kept) {
            kept.entries[*position] = true;
        }
        let open = directories.iter().zip(&cleaned).filter(|(_, found)| found.open);
        kept.open = open.map(|((_, path), _)| (*path).to_owned()).collect();
        Ok(kept)
    }

    /// Removes what does not belong into one directory, but for what is in directories that do.
    fn clean_directory(
        &self,
        dir: &OwnedFd,
        at: &str,
        spare: &Utf8Path,
        buffer: &mut ListBuffer,
    ) -> Result<Found, IoError> {
        let shown = spare.join(at);
        let stat = rustix::fs::fstat(dir).at("read", &shown)?;
        let mut result = Found { kept: Vec::new(), open: stat.st_mode & 0o7777 != SEALED.bits() };
        let below = self.tree.below(at);
        let mut list = RawDir::new(dir, buffer);
        while let Some(found) = list.next() {
            let found = found.at("read", &shown)?;
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let fd = dir.as_fd();
            let path = name.to_str().ok().map(|name| match at {
                "" => name.to_owned(),
                _ => [at, "/", name].concat(),
            });
            let position = path.and_then(|path| self.tree.position_in(below.clone(), &path));
            let belongs = position.and_then(|position| Some((position, self.tree.at(position)?)));
            match belongs.filter(|(_, (layer, entry))| self.alike.has(*layer, entry)) {
                Some((_, (_, entry)))
                    if matches!(entry.node, Node::Directory) && is_directory(fd, &found) => {}
                // What the list says of inodes spares a call for each file; one that says something else is not believed.
                Some((position, file))
                    if self.alike.fits((fd, name, Inode::listed(&stat, &found)), file, self.inodes) =>
                {
                    result.kept.push(position);
                }
                _ => {
                    result.open = true;
                    calls::fchmod(fd, Mode::from_raw_mode(0o755)).at("change the mode of", &shown)?;
                    let shown = || shown.join(&*name.to_string_lossy());
                    remove_entry(fd, name).map_err(|errno| IoError::new("remove", &shown(), errno))?;
                }
            }
        }
        Ok(result)
    }
}

/// What a directory's list is read into: a new one for each of thousands of directories would take longer than reading them.
type ListBuffer = [MaybeUninit<u8>; 16 << 10];

fn list_buffer() -> ListBuffer {
    [MaybeUninit::uninit(); _]
}

fn is_directory(dir: BorrowedFd<'_>, found: &RawDirEntry<'_>) -> bool {
    match found.file_type() {
        // Not every file system tells it in its lists.
        FileType::Unknown => rustix::fs::statat(dir, found.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()),
        known => known.is_dir(),
    }
}

/// Whether something other than directories leads to a path, or nothing.
fn is_elsewhere(error: &IoError) -> bool {
    let errno = Errno::from_io_error(&error.source);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}
