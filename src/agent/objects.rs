//! The object store: each file's content once, under its digest.
//!
//! # Invariants
//!
//! * A file counts as an object only once its content was hashed, has that digest and was written whole: its time of
//!   change is set last. Until then it has a temporary name, or, if it is small, no such time.
//! * Objects are read-only (0444, executable ones 0555) and never written again. All have the same time of
//!   change: one that was written to, through whichever release, is told by it and counts as missing.
//! * Who adds or uses objects holds `objects/` shared; gc holds it alone.
//! * Objects are not synced one by one. A marker says that some may not be on the disk yet; after a reboot
//!   those that are as young as it are hashed again before they are believed. See [`super::unsynced`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Mode, OFlags, RawDirEntry, Stat};
use rustix::io::Errno;

use super::layout::Root;
use super::unsynced::{Unsynced, hash_file};
use super::workers;
use crate::fs::{ALIGNMENT, DirLock, IoError, IoResultExt as _, LockKind, calls, open_directory, set_direct};
use crate::model::{Digest, Hasher};

/// A content and whether it is executable, which is the inode's and so part of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Of the content.
    pub digest: Digest,
    /// Mode 0555 instead of 0444.
    pub executable: bool,
}

impl ObjectId {
    /// Its path below `objects/`.
    pub fn path(&self) -> String {
        let hex = self.digest.hex();
        // Asked for once a file: several times as fast as formatting it.
        [&hex[..2], "/", &hex[2..], if self.executable { ".x" } else { "" }].concat()
    }

    /// Reads a path below `objects/`.
    pub fn from_path(shard: &str, name: &str) -> Option<Self> {
        let (hex, executable) = name.strip_suffix(".x").map_or((name, false), |hex| (hex, true));
        let digest = Digest::from_hex(&format!("{shard}{hex}")).ok().filter(|_| shard.len() == 2)?;
        Some(Self { digest, executable })
    }

    /// The same content with the other mode.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self { executable: !self.executable, ..*self }
    }

    fn mode(self) -> Mode {
        Mode::from_raw_mode(if self.executable { 0o555 } else { 0o444 })
    }
}

/// The object store of a root, opened to add or use objects.
#[derive(Debug)]
pub struct Objects {
    path: Utf8PathBuf,
    dir: OwnedFd,
    shards: [AtomicBool; 256],
    unsynced: Option<Unsynced>,
    _lock: DirLock,
}

/// Why an object could not be added or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The content is not what it was said to be.
    #[error("content that should be {wanted} is {found}")]
    Content {
        /// What it should be.
        wanted: Digest,
        /// What it is.
        found: Digest,
    },
    /// It is not there.
    #[error("object {0} is not on this node")]
    Absent(Digest),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// What makes a file the same one under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    /// The one that was looked at.
    pub(super) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, number: stat.st_ino }
    }

    /// The one that a directory lists, which is on the same file system.
    pub(super) fn listed(directory: &Stat, entry: &RawDirEntry<'_>) -> Self {
        Self { device: directory.st_dev, number: entry.ino() }
    }
}

/// What [`Objects::look`] found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Objects that are there.
    pub inodes: HashMap<ObjectId, Inode>,
    /// Those that are not.
    pub missing: Vec<ObjectId>,
}

/// When every object was last changed: as in a layer's tar, a second after 1970 began.
const MTIME: i64 = 1;

static COUNTER: AtomicU64 = AtomicU64::new(0);

impl Objects {
    /// Opens the store to use what is in it.
    pub fn open(root: &Root) -> Result<Self, ObjectError> {
        let path = root.objects();
        let lock = DirLock::wait(&path, LockKind::Shared, &crate::model::Cancel::new())?;
        let dir = open_directory(&path)?;
        Ok(Self { path, dir, shards: [const { AtomicBool::new(false) }; 256], unsynced: None, _lock: lock })
    }

    /// Opens the store to add to it. What a power cut may have torn is hashed again first, and what killed
    /// processes left half written is removed, if nobody else uses the store.
    pub fn open_to_add(root: &Root) -> Result<Self, ObjectError> {
        super::unsynced::clear_after_kill(&root.objects())?;
        let mut objects = Self::open(root)?;
        super::unsynced::check_after_reboot(&objects.path)?;
        objects.unsynced = Some(Unsynced::mark(&objects.path)?);
        Ok(objects)
    }

    /// Its folder.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Its folder, open.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Whether others added objects that may not be on the disk yet.
    pub fn are_unsynced(&self) -> Result<bool, IoError> {
        super::unsynced::are_there(&self.path)
    }

    /// Everything added so far is on the disk: the caller synced the file system.
    pub fn synced(&mut self) -> Result<(), IoError> {
        if let Some(unsynced) = self.unsynced.take() {
            unsynced.clear(&self.path)?;
        }
        Ok(())
    }

    /// Whether an object of that size is there and was not written to.
    pub fn has(&self, id: ObjectId, size: u64) -> bool {
        self.find(id, size).is_some()
    }

    /// The inode of an object of that size, if it is there and was not written to.
    fn find(&self, id: ObjectId, size: u64) -> Option<Inode> {
        let stat = rustix::fs::statat(&self.dir, id.path(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let whole = u64::try_from(stat.st_size) == Ok(size) && stat.st_mtime == MTIME;
        (whole && stat.st_mode & 0o170_000 == 0o100_000).then(|| Inode::of(&stat))
    }

    /// Which of `wanted`, with their sizes, are not there. One that is there with the other mode is copied.
    pub fn missing(
        &self,
        wanted: impl IntoIterator<Item = (ObjectId, u64)>,
    ) -> Result<Vec<ObjectId>, ObjectError> {
        Ok(self.look(wanted)?.missing)
    }

    /// Which of `wanted`, with their sizes, are there, and which are not. One that is there with the other mode is copied.
    pub(super) fn look(
        &self,
        wanted: impl IntoIterator<Item = (ObjectId, u64)>,
    ) -> Result<Looked, ObjectError> {
        let wanted: Vec<(ObjectId, u64)> = wanted.into_iter().collect();
        let shards = self.filled_shards()?;
        workers::start().at("start threads to read", &self.path)?;
        let found = wanted.par_iter().map(|(id, size)| {
            // On a new node there is nothing to ask for.
            if !shards[usize::from(id.digest.as_bytes()[0])] {
                return Ok(None);
            }
            match self.find(*id, *size) {
                None if self.adopt(*id, *size)? => Ok(self.find(*id, *size)),
                found => Ok(found),
            }
        });
        let found = found.collect::<Result<Vec<Option<Inode>>, ObjectError>>()?;
        let mut looked = Looked::default();
        for ((id, _), found) in wanted.into_iter().zip(found) {
            match found {
                Some(inode) => drop(looked.inodes.insert(id, inode)),
                None => looked.missing.push(id),
            }
        }
        Ok(looked)
    }

    /// Which shards there are.
    fn filled_shards(&self) -> Result<[bool; 256], IoError> {
        let mut shards = [false; 256];
        for entry in self.path.read_dir_utf8().at("read", &self.path)? {
            let entry = entry.at("read", &self.path)?;
            if let Ok(shard) = u8::from_str_radix(entry.file_name(), 16) {
                shards[usize::from(shard)] = true;
            }
        }
        Ok(shards)
    }

    /// Makes an object out of the one with the same content and the other mode, if that is there and whole.
    fn adopt(&self, id: ObjectId, size: u64) -> Result<bool, ObjectError> {
        let twin = id.twin();
        if self.unsynced.is_none() || !self.has(twin, size) {
            return Ok(false);
        }
        let mut from = self.open_object(twin)?;
        let mut pending = self.begin(id)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = from.read(&mut buffer).at("read", &self.path.join(twin.path()))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            pending.append(&buffer[..count])?;
        }
        match pending.publish(hasher.finish()) {
            Ok(()) => Ok(true),
            Err(ObjectError::Content { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds `content` after hashing it. One that is there is replaced by its like.
    pub fn add(&self, id: ObjectId, content: &[u8]) -> Result<(), ObjectError> {
        let found = Digest::of(content);
        if found != id.digest {
            return Err(ObjectError::Content { wanted: id.digest, found });
        }
        // Its time makes it an object, so that it needs no other name until then: of a file's cost, renaming is a third.
        self.prepare(id)?;
        let path = id.path();
        let mut pending = match calls::openat(&self.dir, &*path, CREATE, id.mode()) {
            Ok(fd) => Pending::new(self, id, File::from(fd), path),
            // It is there with the wrong size or time, or somebody else is writing it.
            Err(Errno::EXIST) => self.begin(id)?,
            Err(errno) => return Err(IoError::new("create", &self.path.join(path), errno).into()),
        };
        pending.append(content)?;
        pending.publish(found)
    }

    /// Starts an object whose content arrives in pieces.
    pub fn begin(&self, id: ObjectId) -> Result<Pending<'_>, ObjectError> {
        let shard = self.prepare(id)?;
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let temporary = format!("{shard}/.tmp-{}-{count}", std::process::id());
            match calls::openat(&self.dir, &*temporary, CREATE, id.mode()) {
                // A process of this number that was killed left it, perhaps before the machine started anew.
                Err(Errno::EXIST) => {}
                other => {
                    let file = File::from(other.at("create", &self.path.join(&temporary))?);
                    return Ok(Pending::new(self, id, file, temporary));
                }
            }
        }
    }

    /// Starts a large object, whose pieces go to the disk past the page cache where the file system can do that: the
    /// cache keeps what the services that run here read, and no page is copied, allocated and written back later.
    pub fn begin_large(&self, id: ObjectId) -> Result<Pending<'_>, ObjectError> {
        let mut pending = self.begin(id)?;
        *pending.direct.get_mut() = set_direct(&pending.file, true);
        Ok(pending)
    }

    /// Makes sure that an object's directory is there; gives its name.
    fn prepare(&self, id: ObjectId) -> Result<Shard, ObjectError> {
        if let Some(unsynced) = &self.unsynced {
            unsynced.used();
        }
        let shard = Shard(id.digest.as_bytes()[0]);
        let made = &self.shards[usize::from(shard.0)];
        if !made.load(Ordering::Relaxed) {
            let name = shard.to_string();
            match calls::mkdirat(&self.dir, &*name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => made.store(true, Ordering::Relaxed),
                Err(errno) => return Err(IoError::new("create", &self.path.join(name), errno).into()),
            }
        }
        Ok(shard)
    }

    /// Copies an object into `to`, checking its digest: a copy shares no fate with what it is of.
    pub fn copy(&self, id: ObjectId, to: &mut File, shown: &Utf8Path) -> Result<(), ObjectError> {
        let mut from = self.open_object(id)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = from.read(&mut buffer).at("read", &self.path.join(id.path()))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            to.write_all(&buffer[..count]).at("write", shown)?;
        }
        match hasher.finish() {
            found if found == id.digest => Ok(()),
            found => Err(ObjectError::Content { wanted: id.digest, found }),
        }
    }

    /// Hashes an object; one that is not what its name says is removed.
    pub fn check(&self, id: ObjectId) -> Result<(), ObjectError> {
        let path = self.path.join(id.path());
        let found = hash_file(self.open_object(id)?, &path)?;
        if found == id.digest {
            return Ok(());
        }
        calls::unlinkat(&self.dir, &*id.path(), AtFlags::empty()).at("remove", &path)?;
        Err(ObjectError::Content { wanted: id.digest, found })
    }

    fn open_object(&self, id: ObjectId) -> Result<File, ObjectError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match calls::openat(&self.dir, &*id.path(), flags, Mode::empty()) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::NOENT) => Err(ObjectError::Absent(id.digest)),
            Err(errno) => Err(IoError::new("open", &self.path.join(id.path()), errno).into()),
        }
    }

    /// Reads an object of at most `max` bytes as it is, for one who checks what comes of it; a byte more of a larger one.
    pub(super) fn read_unchecked(&self, id: ObjectId, max: u64) -> Result<Vec<u8>, ObjectError> {
        let file = self.open_object(id)?;
        let path = || self.path.join(id.path());
        let size = file.metadata().at("read", &path())?.len().min(max);
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        file.take(max.saturating_add(1)).read_to_end(&mut content).at("read", &path())?;
        Ok(content)
    }

    /// Reads an object of at most `max` bytes whole and checks its digest.
    pub fn read(&self, id: ObjectId, max: u64) -> Result<Vec<u8>, ObjectError> {
        let content = self.read_unchecked(id, max)?;
        match Digest::of(&content) {
            found if found == id.digest && content.len() as u64 <= max => Ok(content),
            found => Err(ObjectError::Content { wanted: id.digest, found }),
        }
    }
}

/// How a file is made that is not there.
const CREATE: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory of objects whose digests begin with a byte.
#[derive(Clone, Copy)]
struct Shard(u8);

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

/// An object that is being written; dropped before it is published, it is gone.
#[derive(Debug)]
pub struct Pending<'a> {
    objects: &'a Objects,
    id: ObjectId,
    file: File,
    /// It is written past the page cache.
    direct: AtomicBool,
    /// Its name until it is published; the object's own if it is small.
    name: Option<String>,
}

impl<'a> Pending<'a> {
    fn new(objects: &'a Objects, id: ObjectId, file: File, name: String) -> Self {
        Self { objects, id, file, direct: AtomicBool::new(false), name: Some(name) }
    }

    fn shown(&self) -> Utf8PathBuf {
        self.objects.path.join(self.id.path())
    }

    /// Writes the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        Ok(self.file.write_all(bytes).at("write", &self.shown())?)
    }

    /// Writes bytes at a place; others may write at other places meanwhile. Those of an object begun as large go past
    /// the page cache as far as they and their place are aligned.
    pub fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> Result<(), ObjectError> {
        if self.direct.load(Ordering::Relaxed) {
            let count = self.write_directly(bytes, offset)?;
            (bytes, offset) = (&bytes[count..], offset + count as u64);
            if bytes.is_empty() {
                return Ok(());
            }
            // The rest cannot be written so, and nor can what others write after this: it is about the open file.
            self.direct.store(false, Ordering::Relaxed);
            set_direct(&self.file, false);
        }
        self.file.write_all_at(bytes, offset).at("write", &self.shown())?;
        // Has the disk begin with it now, so that less is left for the sync at the end; whether it does is its own
        // business.
        let length = std::num::NonZeroU64::new(bytes.len() as u64);
        let _ = rustix::fs::fadvise(&self.file, offset, length, rustix::fs::Advice::DontNeed);
        Ok(())
    }

    /// Writes what is aligned; says how much that was.
    fn write_directly(&self, bytes: &[u8], offset: u64) -> Result<usize, ObjectError> {
        if bytes.as_ptr().align_offset(ALIGNMENT) != 0 || !offset.is_multiple_of(ALIGNMENT as u64) {
            return Ok(0);
        }
        let aligned = bytes.len() - bytes.len() % ALIGNMENT;
        let mut written = 0;
        while written < aligned {
            match self.file.write_at(&bytes[written..aligned], offset + written as u64) {
                Ok(count) if count > 0 && count % ALIGNMENT == 0 => written += count,
                // This disk wants more than is known here: the rest goes the ordinary way.
                Ok(count) => return Ok(written + count),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(IoError::new("write", &self.shown(), error).into()),
            }
        }
        Ok(written)
    }

    /// Makes it an object, if `found`, the digest of all that was written, is what it should be.
    pub fn publish(mut self, found: Digest) -> Result<(), ObjectError> {
        if found != self.id.digest {
            return Err(ObjectError::Content { wanted: self.id.digest, found });
        }
        if let Some(name) = &self.name {
            let (dir, own) = (&self.objects.dir, self.id.path());
            let time = rustix::fs::Timespec { tv_sec: MTIME, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            calls::futimens(&self.file, &times).at("set the time of", &self.shown())?;
            if *name != own {
                calls::renameat(dir, &**name, dir, &*own).at("rename a file to", &self.shown())?;
            }
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // Whoever adds next removes what this cannot, or writes it anew.
            let _ = calls::unlinkat(&self.objects.dir, &*name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let temporary = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().join("root")).unwrap();
        (temporary, Root::create(&path, 0o700).unwrap())
    }

    fn id(content: &[u8], executable: bool) -> ObjectId {
        ObjectId { digest: Digest::of(content), executable }
    }

    fn markers(root: &Root) -> usize {
        let names =
            root.objects().read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned());
        names.filter(|name| name.starts_with(".unsynced-")).count()
    }

    #[test]
    fn many_writers_of_the_same_contents() {
        let (_keep, root) = root();
        let contents: Vec<Vec<u8>> = (0..50u32).map(|n| n.to_le_bytes().repeat(100)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let objects = Objects::open_to_add(&root).unwrap();
                    for content in &contents {
                        objects.add(id(content, false), content).unwrap();
                    }
                });
            }
        });
        let mut objects = Objects::open_to_add(&root).unwrap();
        for content in &contents {
            assert_eq!(objects.read(id(content, false), 400).unwrap(), *content);
        }
        // The same content as an executable is a file of its own, made here.
        let twin = id(&contents[7], true);
        assert_eq!(objects.missing([(twin, 400), (id(b"x", false), 1)]).unwrap(), [id(b"x", false)]);
        assert!(matches!(objects.add(id(b"a", false), b"b"), Err(ObjectError::Content { .. })));
        drop(objects.begin(id(b"given up", false)).unwrap());
        objects.synced().unwrap();
        let all = walkdir::WalkDir::new(root.objects()).into_iter().map(Result::unwrap);
        assert_eq!(all.filter(|entry| entry.file_type().is_file()).count(), 51);
        assert_eq!(markers(&root), 0);
    }

    #[test]
    fn what_a_power_cut_may_have_torn_is_hashed_again() {
        let (_keep, root) = root();
        let objects = Objects::open_to_add(&root).unwrap();
        let (whole, torn) = (id(b"whole", false), id(b"torn", false));
        objects.add(whole, b"whole").unwrap();
        objects.add(torn, b"torn").unwrap();
        drop(objects);
        // Nobody synced, and the machine was started anew; of one file only the size reached the disk.
        let marker = root.objects().read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path());
        let marker =
            marker.into_iter().find(|path| path.file_name().unwrap().starts_with(".unsynced-")).unwrap();
        let time = marker.metadata().unwrap().modified().unwrap();
        std::fs::write(&marker, "another boot").unwrap();
        File::options().write(true).open(&marker).unwrap().set_modified(time).unwrap();
        let path = root.objects().join(torn.path());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, [0; 4]).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert!(Objects::open(&root).unwrap().has(torn, 4));
        let objects = Objects::open_to_add(&root).unwrap();
        assert_eq!(objects.missing([(whole, 5), (torn, 4)]).unwrap(), [torn]);
        assert_eq!(markers(&root), 1, "its own");
    }
}
