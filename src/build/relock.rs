//! `windlass lock`: records every artifact in use.

use camino::Utf8Path;
use std::sync::{Mutex, PoisonError};

use super::{BuildError, LockMismatch, artifacts, lock};
use crate::fs::{LockKind, replace};
use crate::model::{BundlePath, Cancel};
use crate::recipe::{Lock, Project};
use crate::store::{ArtifactCache, Store};

/// What `lock` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relocked {
    /// Artifacts that had no entry.
    pub added: Vec<BundlePath>,
    /// Artifacts whose new content was accepted.
    pub updated: Vec<BundlePath>,
    /// Entries of artifacts that no recipe names any more.
    pub removed: Vec<String>,
    /// Entries as they were.
    pub unchanged: usize,
    /// Artifacts whose content was read.
    pub read: usize,
}

/// Records the digest and size of every artifact that a recipe names.
///
/// One that differs from its entry is refused unless `update` names it; all such are known before
/// anything is written.
pub fn relock(
    project: &Project,
    folder: &Utf8Path,
    old: &Lock,
    update: &[BundlePath],
    jobs: usize,
    cancel: &Cancel,
    progress: &(dyn Fn(&BundlePath, u64) + Sync),
) -> Result<Relocked, BuildError> {
    let store = Store::create(&folder.join("out"), cancel)?;
    let _in_use = store.lock(LockKind::Shared)?;
    let cache = Mutex::new(ArtifactCache::load(&store));
    let unpacks = project.recipes.values().flat_map(|spec| &spec.unpack);
    let found = {
        let cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        artifacts::find(unpacks, &folder.join("install"), &cache)
    };
    let mut found = found?;
    let read = found.values().filter(|one| one.digest.is_none()).count();
    let mut outcome = Relocked { read, ..Relocked::default() };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build()
        .map_err(|source| BuildError::Threads { jobs, source })?;
    pool.install(|| artifacts::hash(found.values_mut(), &cache, cancel, progress))?;
    let mut new = Lock::new();
    for one in found.values() {
        let Some(locked) = one.locked() else { continue };
        match lock::check(old, &one.name, locked, false) {
            Ok(true) => outcome.added.push(one.name.clone()),
            Ok(false) => outcome.unchanged += 1,
            Err(LockMismatch::Differs { .. }) if update.contains(&one.name) => {
                outcome.updated.push(one.name.clone());
            }
            Err(mismatch) => return Err(mismatch.into()),
        }
        new.insert(one.name.as_str(), locked.digest, locked.size);
    }
    outcome.removed =
        old.iter().filter(|(name, _)| new.get(name).is_none()).map(|(name, _)| name.to_owned()).collect();
    let _index_lock = store.lock_index()?;
    cache.into_inner().unwrap_or_else(PoisonError::into_inner).save()?;
    let path = folder.join(Lock::FILE);
    if new != *old || !path.exists() {
        replace(&path, new.to_text().as_bytes())?;
    }
    Ok(outcome)
}
