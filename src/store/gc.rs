//! Removing what no bundle needs.
//!
//! What goes is decided first, as data; `--dry-run` prints the very list that a run removes.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};

use super::{Store, StoreError, Tagged};
use crate::bundle::Manifest;
use crate::bundle::manifest::MAX_MANIFEST;
use crate::fs::{IoResultExt as _, LockKind, calls, is_leftover};
use crate::model::{Digest, Role};

/// Something that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// A bundle beyond the number kept of its role.
    Bundle(Tagged),
    /// A blob that no bundle left has.
    Blob {
        /// Its name; `None` for a file that is no blob.
        digest: Option<Digest>,
        /// Its file.
        path: Utf8PathBuf,
        /// Bytes.
        size: u64,
    },
    /// A cache entry that names a blob that goes or is gone.
    Cache {
        /// Its file.
        path: Utf8PathBuf,
        /// Bytes.
        size: u64,
    },
}

/// All that goes, bundles first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPlan {
    /// In the order of removal.
    pub items: Vec<Garbage>,
}

impl GcPlan {
    /// Bytes that become free.
    pub fn bytes(&self) -> u64 {
        self.items
            .iter()
            .map(|item| match item {
                Garbage::Bundle(_) => 0,
                Garbage::Blob { size, .. } | Garbage::Cache { size, .. } => *size,
            })
            .sum()
    }
}

impl Store {
    /// Removes all but the newest `keep` bundles of each role and what only the removed ones had.
    ///
    /// With `dry_run` nothing is removed. Waits for builds to end, and builds wait for it.
    pub fn gc(&self, keep: usize, dry_run: bool) -> Result<GcPlan, StoreError> {
        let _alone = self.lock(LockKind::Exclusive)?;
        let _index = self.lock_index()?;
        let mut index = self.index()?;
        let mut plan = GcPlan::default();
        for old in old_bundles(index.bundles(), keep) {
            index.remove(&old.role, &old.version);
            plan.items.push(Garbage::Bundle(old));
        }
        // What other tools put into the index is theirs: all its blobs stay.
        let used = self.used_blobs(index.manifests())?;
        self.plan_blobs(&used, &mut plan)?;
        self.plan_cache(&used, &mut plan)?;
        for dir in [self.root(), &self.cache()] {
            let leftovers = files(dir)?.into_iter().filter(|(path, _)| is_leftover(path));
            plan.items.extend(leftovers.map(|(path, size)| Garbage::Blob { digest: None, path, size }));
        }
        if !dry_run {
            if plan.items.iter().any(|item| matches!(item, Garbage::Bundle(_))) {
                self.replace_index(&index)?;
            }
            remove(&plan)?;
        }
        Ok(plan)
    }

    fn used_blobs(&self, manifests: impl Iterator<Item = Digest>) -> Result<BTreeSet<Digest>, StoreError> {
        let mut used = BTreeSet::new();
        for digest in manifests {
            if !used.insert(digest) {
                continue;
            }
            // A manifest that cannot be read says nothing about its blobs: stop rather than remove them.
            let bytes = self.read_blob(&digest, MAX_MANIFEST)?;
            used.extend(
                Manifest::blobs_of(&bytes).map_err(|source| StoreError::Manifest { digest, source })?,
            );
        }
        Ok(used)
    }

    fn plan_blobs(&self, used: &BTreeSet<Digest>, plan: &mut GcPlan) -> Result<(), StoreError> {
        for (path, size) in files(&self.blobs())? {
            let digest = path.file_name().and_then(|name| Digest::from_hex(name).ok());
            if digest.is_none_or(|digest| !used.contains(&digest)) {
                plan.items.push(Garbage::Blob { digest, path, size });
            }
        }
        Ok(())
    }

    fn plan_cache(&self, used: &BTreeSet<Digest>, plan: &mut GcPlan) -> Result<(), StoreError> {
        #[derive(serde::Deserialize)]
        struct Named {
            #[serde(alias = "manifest")]
            digest: Digest,
        }
        let cache = self.cache();
        let mut paths = files(&cache.join("bundles"))?;
        let layers = cache.join("layers");
        for entry in layers.read_dir_utf8().at("read", &layers)? {
            paths.extend(files(entry.at("read", &layers)?.path())?);
        }
        let patches = self.patches();
        if patches.is_dir() {
            for (path, size) in files(&patches)? {
                let named = path.file_name().and_then(|name| name.split_once('-'));
                let known = |hex: &str| Digest::from_hex(hex).is_ok_and(|digest| used.contains(&digest));
                if !named.is_some_and(|(old, new)| known(old) && known(new)) {
                    plan.items.push(Garbage::Cache { path, size });
                }
            }
        }
        for (path, size) in paths {
            let read = if is_leftover(&path) { None } else { std::fs::read(&path).ok() };
            let named = read.and_then(|bytes| serde_json::from_slice::<Named>(&bytes).ok());
            if named.is_none_or(|named| !used.contains(&named.digest)) {
                plan.items.push(Garbage::Cache { path, size });
            }
        }
        Ok(())
    }
}

/// The bundles of each role but the newest `keep`.
fn old_bundles(bundles: impl Iterator<Item = Tagged>, keep: usize) -> Vec<Tagged> {
    let mut roles: BTreeMap<Role, Vec<Tagged>> = BTreeMap::new();
    for bundle in bundles {
        roles.entry(bundle.role.clone()).or_default().push(bundle);
    }
    roles
        .into_values()
        .flat_map(|bundles| {
            let old = bundles.len().saturating_sub(keep);
            bundles.into_iter().take(old)
        })
        .collect()
}

/// The files of a folder with their sizes, in order.
fn files(dir: &Utf8Path) -> Result<Vec<(Utf8PathBuf, u64)>, StoreError> {
    let mut found = Vec::new();
    for entry in dir.read_dir_utf8().at("read", dir)? {
        let entry = entry.at("read", dir)?;
        let meta = entry.metadata().at("read", entry.path())?;
        if meta.is_file() {
            found.push((entry.path().to_owned(), meta.len()));
        }
    }
    found.sort();
    Ok(found)
}

fn remove(plan: &GcPlan) -> Result<(), StoreError> {
    // Cache entries first: one that named a removed blob would be found out, but needlessly late.
    for cache_first in [true, false] {
        for item in &plan.items {
            match item {
                Garbage::Cache { path, .. } if cache_first => {
                    calls::remove_file(path).at("remove", path)?;
                }
                Garbage::Blob { path, .. } if !cache_first => {
                    calls::remove_file(path).at("remove", path)?;
                }
                Garbage::Bundle(_) | Garbage::Cache { .. } | Garbage::Blob { .. } => {}
            }
        }
    }
    Ok(())
}
