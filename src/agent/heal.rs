//! Putting a release back to what was staged, while it may be running.
//!
//! # Invariants
//!
//! * A path has its old file or its new one at every moment: each is made under a temporary name beside the
//!   releases and renamed into place. What runs keeps the files that it has open.
//! * Nothing is healed from an object before that was hashed. One that is not what its name says is removed, so
//!   that the next push sends it again.
//! * Nothing goes: extra files are named and left, as is what stands where a directory belongs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::desk::Desk;
use super::draft::{self, Draft};
use super::drift::{Difference, Expected, Should, What};
use super::error::AgentError;
use super::key::Key;
use super::names::ReleaseName;
use super::objects::{ObjectError, ObjectId, Objects};
use super::recover;
use super::render::{Context, Text};
use super::stage;
use crate::fs::{
    IoError, IoResultExt as _, calls, move_over, open_directory, open_directory_beneath, open_path_beneath,
    sync_file_system, temporary_name,
};
use crate::model::BundlePath;

/// What a release came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healed {
    /// Which.
    pub release: ReleaseName,
    /// What differed and is as it was staged again.
    pub healed: Vec<Difference>,
    /// What was not staged and is still there.
    pub extra: Vec<String>,
    /// What still differs.
    pub left: Vec<NotHealed>,
}

/// A path that could not be healed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotHealed {
    /// Below the release.
    pub path: String,
    /// How it differs.
    pub what: What,
    /// Why it still does, and what helps.
    pub why: String,
}

/// What a release's templates saw, to render them again.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealContext {
    /// As it was staged with.
    pub context: Context,
    /// What `secret(name)` gives; never journalled, logged or sent back.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

impl std::fmt::Debug for HealContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HealContext(..)")
    }
}

/// Puts a release back to what was staged, as far as what is on the node goes.
pub(super) fn heal(
    desk: &Desk,
    release: &ReleaseName,
    context: Option<&HealContext>,
) -> Result<Healed, AgentError> {
    let (root, dir) = (desk.root(), desk.dir());
    recover::clear(desk)?;
    let objects = Objects::open(root)?;
    let expected = Expected::read(root, dir, release, &objects)?;
    let found = expected.differences(root, dir)?;
    let tree = dir.release(release);
    let healer = Healer {
        objects: &objects,
        open: open_directory(&tree)?,
        tree: &tree,
        beside: dir.path(),
        texts: context.map_or_else(BTreeMap::new, |context| texts(desk, &expected, &objects, context)),
        owner: draft::owner(desk.unit(release)?.as_ref()).map_err(AgentError::from)?,
    };
    let (healed, extra, left) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = Healed { release: release.clone(), healed, extra, left };
    // In path order: directories before what belongs into them.
    for difference in found {
        let Some(should) = expected.should(&difference.path) else {
            done.extra.push(difference.path);
            continue;
        };
        match healer.one(&difference, should) {
            Ok(()) => done.healed.push(difference),
            Err(why) => done.left.push(NotHealed { path: difference.path, what: difference.what, why }),
        }
    }
    sync_file_system(&tree)?;
    Ok(done)
}

/// Rendered texts that have the digests they were staged with.
fn texts(
    desk: &Desk,
    expected: &Expected,
    objects: &Objects,
    with: &HealContext,
) -> BTreeMap<BundlePath, Text> {
    let fitting = || -> Result<BTreeMap<BundlePath, Text>, AgentError> {
        let (staged, bundle) = (expected.staged(), expected.bundle());
        let draft = Draft {
            version: staged.release.version(),
            bundle: staged.bundle,
            context: &with.context,
            secrets: Arc::new(with.secrets.clone()),
            record: expected.record().clone(),
            templates: stage::templates(bundle, expected.record(), objects)?,
            key: Key::read(desk.root())?,
        };
        let mut texts = BTreeMap::new();
        for content in draft.contents(desk.dir(), &staged.release) {
            let content = content?;
            let fits = |path: &BundlePath| content.digests.get(path) == staged.rendered.get(path);
            texts.extend(content.rendered.into_iter().filter(|(path, _)| fits(path)));
        }
        Ok(texts)
    };
    // What cannot be rendered is left, and named there.
    fitting().unwrap_or_default()
}

struct Healer<'a> {
    objects: &'a Objects,
    open: OwnedFd,
    tree: &'a Utf8Path,
    /// Where temporary names are: on the same file system, and cleared by the next swap.
    beside: &'a Utf8Path,
    texts: BTreeMap<BundlePath, Text>,
    owner: Option<(u32, u32)>,
}

fn told(error: &IoError) -> String {
    format!("{error}: {}", error.source)
}

fn describe(error: &ObjectError) -> String {
    match error {
        ObjectError::Absent(_) => {
            "its content is not on this node any more: push the bundle again".to_owned()
        }
        ObjectError::Content { .. } => {
            "its content was changed in the object store as well, and is removed there: push the bundle again"
                .to_owned()
        }
        ObjectError::Io(error) => told(error),
    }
}

impl Healer<'_> {
    fn one(&self, difference: &Difference, should: &Should) -> Result<(), String> {
        let at = &*difference.path;
        match (should, difference.what) {
            (Should::Directory { writable: false }, What::Mode) => {
                self.set_mode(at, 0o555).map_err(|e| told(&e))
            }
            (Should::File { mode, .. }, What::Mode) => self.set_mode(at, *mode).map_err(|e| told(&e)),
            (Should::Directory { writable }, What::Missing) => {
                self.directory(at, *writable).map_err(|e| told(&e))
            }
            (Should::Directory { .. }, _) => {
                Err("something else stands where a directory belongs: remove it".to_owned())
            }
            (Should::Link(target), _) => {
                let temporary = temporary_name(self.beside);
                calls::symlinkat(&**target, CWD, temporary.as_std_path())
                    .at("create", &temporary)
                    .and_then(|()| self.place(&temporary, at))
                    .map_err(|e| told(&e))
            }
            (Should::File { object: Some(id), mode, .. }, _) => self.file(*id, *mode, at),
            (Should::File { object: None, mode, .. }, _) => self.rendered(at, *mode),
        }
    }

    fn file(&self, id: ObjectId, mode: u32, at: &str) -> Result<(), String> {
        self.objects.check(id).map_err(|error| describe(&error))?;
        let temporary = temporary_name(self.beside);
        let copied = mode & 0o6000 != 0;
        let linked = if copied {
            Err(Errno::XDEV)
        } else {
            let (dir, to) = (self.objects.dir(), temporary.as_std_path());
            calls::linkat(dir, &*id.path(), CWD, to, AtFlags::empty())
        };
        match linked {
            Ok(()) => {}
            Err(Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP | Errno::PERM) => {
                let mut file = create(&temporary).map_err(|e| told(&e))?;
                self.objects.copy(id, &mut file, &temporary).map_err(|error| describe(&error))?;
                chmod(&file, mode, &temporary).map_err(|e| told(&e))?;
            }
            Err(errno) => return Err(told(&IoError::new("link", &temporary, errno))),
        }
        self.place(&temporary, at).map_err(|e| told(&e))
    }

    fn rendered(&self, at: &str, mode: u32) -> Result<(), String> {
        let text = BundlePath::new(at).ok().and_then(|path| self.texts.get(&path));
        let Some(text) = text else {
            let why = "it was rendered for this node, and what is known here does not render to it again: stage the \
                       bundle again";
            return Err(why.to_owned());
        };
        let temporary = temporary_name(self.beside);
        let write = || -> Result<(), IoError> {
            let mut file = create(&temporary)?;
            file.write_all(text.exact.as_bytes()).at("write", &temporary)?;
            chmod(&file, mode, &temporary)?;
            if let Some((uid, gid)) = self.owner.filter(|_| text.secret) {
                std::os::unix::fs::fchown(&file, Some(uid), Some(gid))
                    .at("change the owner of", &temporary)?;
            }
            self.place(&temporary, at)
        };
        write().map_err(|e| told(&e))
    }

    fn directory(&self, at: &str, writable: bool) -> Result<(), IoError> {
        let shown = self.tree.join(at);
        self.in_parent(at, |parent, name| {
            calls::mkdirat(parent, name, Mode::from_raw_mode(0o755)).at("create", &shown)
        })?;
        match self.owner.filter(|_| writable) {
            Some((uid, gid)) => self.in_parent(at, |parent, name| {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                calls::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .at("change the owner of", &shown)
            }),
            None if writable => Ok(()),
            None => self.set_mode(at, 0o555),
        }
    }

    fn set_mode(&self, at: &str, mode: u32) -> Result<(), IoError> {
        let path = open_path_beneath(&self.open, self.tree, at)?;
        // Through the descriptor: whoever puts a symlink there meanwhile changes nothing.
        let through = format!("/proc/self/fd/{}", path.as_raw_fd());
        calls::chmod(&*through, Mode::from_raw_mode(mode)).at("change the mode of", &self.tree.join(at))
    }

    /// Gives what was made under a temporary name its place.
    fn place(&self, temporary: &Utf8Path, at: &str) -> Result<(), IoError> {
        let placed =
            self.in_parent(at, |parent, name| move_over(temporary, parent, name, &self.tree.join(at)));
        // Two names of one file are not renamed over each other, and what failed left it there.
        let _ = calls::remove_file(temporary);
        placed
    }

    /// Works in the directory that `at` is in, which is read-only before and after.
    fn in_parent(
        &self,
        at: &str,
        work: impl FnOnce(&OwnedFd, &str) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        let (above, name) = at.rsplit_once('/').unwrap_or((".", at));
        let shown = self.tree.join(above);
        let parent = open_directory_beneath(&self.open, self.tree, above)?;
        let mode = rustix::fs::fstat(&parent).at("read", &shown)?.st_mode & 0o7777;
        let set = |mode| calls::fchmod(&parent, Mode::from_raw_mode(mode)).at("change the mode of", &shown);
        if mode & 0o200 != 0 {
            return work(&parent, name);
        }
        set(mode | 0o200)?;
        let done = work(&parent, name);
        set(mode).and(done)
    }
}

fn create(path: &Utf8PathBuf) -> Result<File, IoError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = calls::open(path.as_std_path(), flags, Mode::from_raw_mode(0o600));
    Ok(File::from(fd.at("create", path)?))
}

fn chmod(file: &File, mode: u32, shown: &Utf8Path) -> Result<(), IoError> {
    calls::fchmod(file, Mode::from_raw_mode(mode)).at("change the mode of", shown)
}
