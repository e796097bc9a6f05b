//! What differs between a release on the disk and what was staged.
//!
//! Every file is hashed again. Scratch is the service's own and is not looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::bundles::{Bundle, object_of};
use super::error::AgentError;
use super::key::Key;
use super::layout::{RoleDir, Root};
use super::names::ReleaseName;
use super::objects::{ObjectId, Objects};
use super::place::{in_persist, is_scratch, persist_target};
use super::release::{ReleaseError, ReleaseRecord, Rendered};
use super::unsynced::hash_file;
use super::workers;
use crate::bundle::{Node, Record};
use crate::fs::{IoError, IoResultExt as _, calls, open_beneath, open_directory};
use crate::model::{BundlePath, Digest};

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Its content, its link's target, or its kind.
    Changed,
    /// It is not there.
    Missing,
    /// It was not staged.
    Extra,
    /// Its mode only.
    Mode,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// Below the release; bytes that are no UTF-8 are shown as such.
    pub path: String,
    /// How.
    pub what: What,
}

/// What should stand at a path.
pub(super) enum Should {
    Directory {
        writable: bool,
    },
    File {
        digest: Digest,
        hidden: bool,
        mode: u32,
        /// What holds its content; `None` if it was rendered.
        object: Option<ObjectId>,
    },
    Link(String),
}

/// A release as it was staged.
pub(super) struct Expected {
    bundle: Bundle,
    record: Record,
    staged: ReleaseRecord,
    should: BTreeMap<String, Should>,
}

/// Compares a release with what was staged; empty when nothing differs.
pub(super) fn drift(
    root: &Root,
    dir: &RoleDir,
    release: &ReleaseName,
) -> Result<Vec<Difference>, AgentError> {
    Expected::read(root, dir, release, &Objects::open(root)?)?.differences(root, dir)
}

impl Expected {
    /// Reads what was staged.
    pub(super) fn read(
        root: &Root,
        dir: &RoleDir,
        release: &ReleaseName,
        objects: &Objects,
    ) -> Result<Self, AgentError> {
        let staged = ReleaseRecord::read(&dir.release_record(release)).map_err(|error| match error {
            ReleaseError::Io(error) => AgentError::Io(error),
            other => AgentError::Internal(other.to_string()),
        })?;
        let bundle = root.load_bundle(staged.bundle)?;
        let record = bundle.record(objects)?;
        let should = expected(&bundle, &record, &staged);
        Ok(Self { bundle, record, staged, should })
    }

    /// The release's record.
    pub(super) fn staged(&self) -> &ReleaseRecord {
        &self.staged
    }

    /// The bundle that it was made from.
    pub(super) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// What the bundle says about itself.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// What should stand at a path; `None` if nothing should.
    pub(super) fn should(&self, path: &str) -> Option<&Should> {
        self.should.get(path)
    }

    /// What differs on the disk, in path order.
    pub(super) fn differences(&self, root: &Root, dir: &RoleDir) -> Result<Vec<Difference>, AgentError> {
        let (key, path) = (Key::open(root)?, dir.release(&self.staged.release));
        let open = open_directory(&path)?;
        let differs = |(at, should): (&String, &Should)| {
            Ok(compare(&open, &path, at, should, &key)?.map(|what| Difference { path: at.clone(), what }))
        };
        workers::start().at("start threads to read", &path)?;
        let mut found: Vec<Difference> = self
            .should
            .par_iter()
            .map(differs)
            .filter_map(Result::transpose)
            .collect::<Result<_, IoError>>()?;
        extras(&open, "", &self.should, &self.record, &mut found).at("read", &path)?;
        found.sort();
        Ok(found)
    }
}

fn expected(bundle: &Bundle, record: &Record, staged: &ReleaseRecord) -> BTreeMap<String, Should> {
    let mut should = BTreeMap::new();
    let mut directories = BTreeSet::new();
    for (layer, entry) in bundle.tree().entries() {
        if in_persist(record, &entry.path)
            || (is_scratch(record, &entry.path) && !record.scratch.contains(&entry.path))
        {
            continue;
        }
        let at = entry.path.as_str().to_owned();
        let one = match &entry.node {
            Node::Directory => {
                directories.insert(at);
                continue;
            }
            Node::Symlink { target } => Should::Link(target.clone()),
            Node::File { .. } | Node::HardLink { .. } => {
                let Some(file) = bundle.content_of(layer, entry) else { continue };
                let Node::File { mode, digest, .. } = &file.node else { continue };
                let object = object_of(&file.node).map(|(id, _)| id);
                let mode = u32::from(*mode) & !0o222;
                match staged.rendered.get(&entry.path) {
                    None => Should::File { digest: *digest, hidden: false, mode, object },
                    Some(Rendered::Plain(digest)) => {
                        let mode = mode & 0o777;
                        Should::File { digest: *digest, hidden: false, mode, object: None }
                    }
                    Some(Rendered::Hidden(digest)) => {
                        Should::File { digest: *digest, hidden: true, mode: 0o600, object: None }
                    }
                }
            }
        };
        should.insert(at, one);
    }
    let above = |path: &BundlePath| path.ancestors().map(str::to_owned).collect::<Vec<_>>();
    for persist in &record.persist {
        if let Some(at) = &persist.at {
            directories.extend(above(at));
            should.insert(at.as_str().to_owned(), Should::Link(persist_target(at, &persist.name)));
        }
    }
    for scratch in &record.scratch {
        directories.extend(above(scratch));
        directories.insert(scratch.as_str().to_owned());
    }
    for path in directories {
        let writable = record.scratch.iter().any(|scratch| scratch.as_str() == path);
        should.entry(path).or_insert(Should::Directory { writable });
    }
    should
}

fn compare(
    dir: &OwnedFd,
    shown: &Utf8Path,
    at: &str,
    should: &Should,
    key: &Key,
) -> Result<Option<What>, IoError> {
    let path = || -> Utf8PathBuf { shown.join(at) };
    let stat = match rustix::fs::statat(dir, at, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Some(What::Missing)),
        other => other.at("read", &path())?,
    };
    let (kind, mode) = (stat.st_mode & 0o170_000, stat.st_mode & 0o7777);
    Ok(match should {
        Should::Directory { .. } if kind != 0o040_000 => Some(What::Changed),
        // A writable one belongs to the service, which may change its mode.
        Should::Directory { writable } => (!writable && mode != 0o555).then_some(What::Mode),
        Should::Link(target) => {
            let is = rustix::fs::readlinkat(dir, at, Vec::new());
            (!is.is_ok_and(|is| is.to_bytes() == target.as_bytes())).then_some(What::Changed)
        }
        Should::File { .. } if kind != 0o100_000 => Some(What::Changed),
        Should::File { digest, hidden, mode: wanted, .. } => {
            let found = match open_beneath(dir, shown, at) {
                // A directory above it was replaced by a link.
                Err(error) if error.source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                    return Ok(Some(What::Changed));
                }
                other => hash_file(other?, &path())?,
            };
            let found = if *hidden { key.hide_digest(&found) } else { found };
            if found == *digest { (mode != *wanted).then_some(What::Mode) } else { Some(What::Changed) }
        }
    })
}

fn extras(
    dir: &OwnedFd,
    prefix: &str,
    should: &BTreeMap<String, Should>,
    record: &Record,
    found: &mut Vec<Difference>,
) -> Result<(), Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let path = format!("{prefix}{}", name.to_string_lossy());
        let known = name.to_str().is_ok_and(|_| should.contains_key(&path));
        if !known {
            found.push(Difference { path, what: What::Extra });
            continue;
        }
        let own = BundlePath::new(&path).is_ok_and(|path| is_scratch(record, &path));
        if matches!(should.get(&path), Some(Should::Directory { .. })) && !own {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match calls::openat(dir, name, flags, Mode::empty()) {
                Ok(below) => extras(&below, &format!("{path}/"), should, record, found)?,
                // It was told as changed already.
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}
