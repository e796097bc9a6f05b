//! Making a release ready without touching what runs.
//!
//! # Invariants
//!
//! * A release has its name only when its tree is complete and on the disk, and its record beside it.
//! * Staging the same bundle with the same rendered content again gives the release that is there.
//! * Nothing is begun that the disk has no room for.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use camino::Utf8Path;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::bundles::{Bundle, object_of};
use super::desk::Desk;
use super::draft::{self, Content, Draft, Existing};
use super::error::AgentError;
use super::key::Key;
use super::names::ReleaseName;
use super::objects::{Inode, ObjectId, Objects};
use super::place::{self, Kept, Placer, Plan};
use super::recover::{self, STAGING};
use super::release::{RELEASE_FORMAT, ReleaseRecord};
use super::render::Context;
use super::spare;
use super::stage_error::StageError;
use super::supervise::{self, Unit};
use super::trial;
use crate::bundle::{Node, Record};
use crate::fs::{IoError, IoResultExt as _, calls, rename_directory, space, sync_file_system};
use crate::model::{BundlePath, Digest, Role, Timestamp, Version};
use crate::recipe::{Ready, ServiceKind};

/// What to stage.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRequest {
    /// Which role.
    pub role: Role,
    /// The bundle's version, which is not in the bundle.
    pub version: Version,
    /// Which bundle.
    pub bundle: Digest,
    /// What templates see.
    pub context: Context,
    /// What `secret(name)` gives; never journalled, logged or sent back.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// For which rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// By whom.
    #[serde(default)]
    pub who: String,
}

impl std::fmt::Debug for StageRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StageRequest({}:{} {})", self.role, self.version, self.bundle)
    }
}

/// A release that is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    /// Its name.
    pub release: ReleaseName,
    /// From which bundle.
    pub bundle: Digest,
    /// It was there before; nothing was done.
    pub existing: bool,
    /// Files in it.
    pub files: u64,
    /// Which adapter knows its service; absent if it runs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceKind>,
    /// What proves that its service is ready, rendered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
}

/// Everything that is known before anything is made.
struct Stager<'a> {
    bundle: Bundle,
    draft: Draft<'a>,
    inodes: HashMap<ObjectId, Inode>,
}

/// Makes a release ready, or finds it ready, and has it pass its test.
pub(super) fn stage(desk: &mut Desk, request: &StageRequest) -> Result<Staged, AgentError> {
    let staged = place(desk, request)?;
    if let Some(unit) = desk.unit(&staged.release)? {
        // Also one that was there: what it needs besides itself may be gone meanwhile.
        trial::test(&staged.release, &unit, !request.secrets.is_empty())?;
    }
    Ok(staged)
}

fn place(desk: &mut Desk, request: &StageRequest) -> Result<Staged, AgentError> {
    recover::clear(desk)?;
    let staged = make(desk, request);
    if staged.is_err() {
        // The failure to tell is the first; whoever stages next clears what this cannot.
        let _ = recover::clear(desk);
    }
    staged
}

fn make(desk: &mut Desk, request: &StageRequest) -> Result<Staged, AgentError> {
    let mut objects = Objects::open_to_add(desk.root())?;
    let stager = Stager::read(desk, request, &objects)?;
    if let Some(Existing { release, files, unit }) = stager.draft.existing(desk.dir(), desk.state())? {
        return Ok(staged(release, request.bundle, true, files, unit));
    }
    let record = &stager.draft.record;
    let release = ReleaseName::new(desk.state().next_number(), request.version.clone());
    let content = stager.draft.content(desk.dir(), &release)?;
    let owner = draft::owner(content.unit.as_ref())?;
    stager.check_room(desk, &content)?;
    if let Some(unit) = &content.unit {
        // What cannot be started here is better known now than when the old one was stopped.
        supervise::check(desk.dir(), &release, unit)?;
    }
    prepare_shared(desk, record, owner)?;
    let staging = desk.dir().releases().join(format!("{STAGING}{release}"));
    let plan = Plan { bundle: &stager.bundle, record, rendered: &content.rendered, owner };
    with_sync(&objects, || {
        let kept = match spare::take(desk.dir(), &plan, &stager.inodes, &staging)? {
            Some(kept) => kept,
            None => calls::create_dir(&staging, 0o777).at("create", &staging).map(|()| Kept::default())?,
        };
        Placer::new(&plan, &objects, &staging)?.place(&kept)
    })?;
    let files = stager.bundle.tree().totals().0;
    let record = ReleaseRecord {
        format: RELEASE_FORMAT,
        release: release.clone(),
        bundle: request.bundle,
        files,
        masked: masked(&content),
        rendered: content.digests,
        service: content.unit_digest,
        secrets: !request.secrets.is_empty(),
        rollout: request.rollout.clone(),
        who: request.who.clone(),
        time: Timestamp::now(),
    };
    let bytes = serde_json::to_vec(&record).map_err(std::io::Error::from).at("write", &staging)?;
    // One sync for all of it: nobody looks at them before the release has its name.
    write_new(&desk.dir().release_record(&release), &bytes)?;
    if content.unit.is_some() {
        write_new(&desk.dir().release_service(&release), &content.unit_bytes)?;
    }
    sync_file_system(&staging)?;
    objects.synced()?;
    rename_directory(&staging, &desk.dir().release(&release))?;
    let (bundle, rollout, who) = (request.bundle, request.rollout.clone(), request.who.clone());
    desk.record(super::record::Record::Staged { release: release.clone(), bundle, rollout, who })?;
    if owner.is_some() {
        desk.root().let_pass(desk.dir())?;
    }
    Ok(staged(release, bundle, false, files, content.unit))
}

/// Writes a file that is not there yet, for us alone.
fn write_new(path: &Utf8Path, bytes: &[u8]) -> Result<(), IoError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = calls::open(path.as_std_path(), flags, Mode::from_raw_mode(0o600)).at("create", path)?;
    File::from(file).write_all(bytes).at("write", path)
}

/// Places while the disk takes what was received, so that less is left for the sync at the end.
fn with_sync(objects: &Objects, place: impl FnOnce() -> Result<(), StageError>) -> Result<(), AgentError> {
    if !objects.are_unsynced()? {
        return Ok(place()?);
    }
    std::thread::scope(|scope| {
        let sync = || sync_file_system(objects.path());
        let syncing = std::thread::Builder::new().spawn_scoped(scope, sync);
        place()?;
        // It may be the only one to be told of a write that failed. That there was no thread for it does not matter.
        match syncing.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(synced)) => Ok(synced?),
            Ok(Err(_)) => Err(AgentError::Internal("the thread that syncs ended".to_owned())),
            Err(_) => Ok(()),
        }
    })
}

fn staged(release: ReleaseName, bundle: Digest, existing: bool, files: u64, unit: Option<Unit>) -> Staged {
    let kind = unit.as_ref().map(|unit| unit.kind);
    Staged { release, bundle, existing, files, kind, ready: unit.and_then(|unit| unit.ready) }
}

/// Texts with secrets, as `preview` may show them when the secrets are no longer known.
fn masked(content: &Content) -> BTreeMap<BundlePath, String> {
    let secret = content.rendered.iter().filter(|(_, text)| text.secret);
    secret.filter_map(|(path, text)| Some((path.clone(), text.masked.clone()?))).collect()
}

impl<'a> Stager<'a> {
    fn read(desk: &Desk, request: &'a StageRequest, objects: &Objects) -> Result<Self, AgentError> {
        let bundle = desk.root().load_bundle(request.bundle)?;
        let (found, wanted) = (bundle.manifest.role.clone(), request.role.clone());
        if found != wanted {
            return Err(StageError::Role { bundle: request.bundle, found, wanted }.into());
        }
        let all = bundle.objects();
        let looked = objects.look(all.iter().map(|wanted| (wanted.id, wanted.size)))?;
        let (missing, total) = (looked.missing.len(), all.len());
        if missing > 0 {
            return Err(StageError::Incomplete { bundle: request.bundle, missing, total }.into());
        }
        let record = bundle.record(objects)?;
        for persist in &record.persist {
            let name = &persist.name;
            if matches!(&**name, "" | "." | "..") || name.contains(['/', '\0']) || name.len() > 255 {
                return Err(StageError::PersistName { name: name.clone() }.into());
            }
        }
        let templates = templates(&bundle, &record, objects)?;
        let draft = Draft {
            version: &request.version,
            bundle: request.bundle,
            context: &request.context,
            secrets: Arc::new(request.secrets.clone()),
            record,
            templates,
            key: Some(Key::open(desk.root())?),
        };
        Ok(Self { bundle, draft, inodes: looked.inodes })
    }

    /// What is made besides hard links must find room.
    fn check_room(&self, desk: &Desk, content: &Content) -> Result<(), StageError> {
        const BLOCK: u64 = 4096;
        let (mut bytes, mut files) = (64 * BLOCK, 16);
        for (_, entry) in self.bundle.tree().entries() {
            let made = match &entry.node {
                Node::Directory | Node::Symlink { .. } => 0,
                Node::File { .. } if content.rendered.contains_key(&entry.path) => {
                    content.rendered[&entry.path].exact.len() as u64
                }
                Node::File { .. } if place::is_scratch(&self.draft.record, &entry.path) => entry.size(),
                Node::File { .. } | Node::HardLink { .. } => continue,
            };
            bytes += made.next_multiple_of(BLOCK).max(BLOCK);
            files += 1;
        }
        let path = desk.dir().releases();
        let free = space(&path)?;
        if free.bytes < bytes || free.inodes.is_some_and(|inodes| inodes < files) {
            let (free, free_files) = (free.bytes, free.inodes);
            return Err(StageError::NoSpace { path, bytes, files, free, free_files });
        }
        Ok(())
    }
}

/// The texts of a bundle's templates, out of the objects.
pub(super) fn templates(
    bundle: &Bundle,
    record: &Record,
    objects: &Objects,
) -> Result<BTreeMap<BundlePath, String>, StageError> {
    let tree = bundle.tree();
    let read = |path: &BundlePath| -> Result<(BundlePath, String), StageError> {
        let missing = || StageError::NoTemplate { path: path.clone() };
        let (layer, entry) = tree.get(path.as_str()).ok_or_else(missing)?;
        let file = bundle.content_of(layer, entry).ok_or_else(missing)?;
        let (id, size) = object_of(&file.node).ok_or_else(missing)?;
        let text = String::from_utf8(objects.read(id, size)?);
        Ok((path.clone(), text.map_err(|_| StageError::NotText { path: path.clone() })?))
    };
    record.templates.iter().map(read).collect()
}

/// Persistent directories and the log's, made once; what is there is left as it is.
fn prepare_shared(desk: &Desk, record: &Record, owner: Option<(u32, u32)>) -> Result<(), IoError> {
    let names = record.persist.iter().map(|persist| persist.name.as_str());
    let shared = desk.dir().shared();
    for name in names.chain(record.service.is_some().then_some("logs")) {
        let path = shared.join(name);
        match calls::create_dir(&path, 0o750) {
            // A person may have put a link to a larger disk here.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            other => other.at("create", &path)?,
        }
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).at("change the owner of", &path)?;
        }
    }
    Ok(())
}
