//! The end of a build: everything it made becomes visible, the index last.

use std::collections::BTreeMap;
use std::sync::Arc;

use camino::Utf8Path;

use super::artifacts::Found;
use super::compose::{Part, Ready};
use super::engine::Built;
use super::{BuildError, LayerBlob, Options, lock};
use crate::fs::{IoResultExt as _, Staged, replace};
use crate::model::{BundlePath, Digest, Version};
use crate::recipe::Lock;
use crate::store::{ArtifactCache, Index, LayerRecord, Store, StoreError, Tagged};

/// Layers that were made and have no name yet.
#[derive(Debug, Default)]
pub(super) struct Made {
    blobs: BTreeMap<Digest, Arc<Staged>>,
    /// Options and content to layer.
    records: Vec<(Digest, Digest, LayerRecord)>,
}

impl Made {
    /// Takes in a layer.
    pub(super) fn add(&mut self, blob: LayerBlob, options: Digest, content: Digest) -> Part {
        let record =
            LayerRecord { digest: blob.digest, size: blob.size, diff_id: blob.diff_id, place: blob.place };
        self.records.push((options, content, record.clone()));
        self.blobs.insert(blob.digest, blob.staged);
        Part { record, toc: Some(Arc::new(blob.toc)), cached: false }
    }
}

/// Where everything goes.
pub(super) struct Commit<'a> {
    pub folder: &'a Utf8Path,
    pub store: &'a Store,
    pub options: &'a Options,
}

impl Commit<'_> {
    /// Publishes blobs, caches, windlass.lock and the index. Everything made is on the disk already.
    pub(super) fn run(
        &self,
        bundles: &[Ready],
        made: Made,
        artifacts: &[&Found],
        cache: &mut ArtifactCache,
    ) -> Result<(Vec<Built>, Vec<BundlePath>), BuildError> {
        let _index_lock = self.store.lock_index()?;
        let mut index = self.store.index()?;
        // What can be refused is refused before anything has a name.
        let mut built = Vec::new();
        let mut changed = false;
        for ready in bundles {
            let (version, unchanged) = self.version(&index, ready)?;
            if !unchanged {
                index.add(&Tagged {
                    role: ready.role.clone(),
                    version: version.clone(),
                    digest: ready.record.manifest,
                    size: ready.record.manifest_size,
                });
                changed = true;
            }
            built.push(describe(ready, version, unchanged));
        }
        let (lock, locked) = self.add_to_lock(artifacts)?;
        // And what needs room on the disk takes it before.
        let mut small = BTreeMap::new();
        for composed in bundles.iter().filter_map(|ready| ready.composed.as_ref()) {
            for bytes in [&composed.config, &composed.manifest] {
                small.extend(self.store.stage_blob(bytes)?);
            }
        }
        let Made { blobs, records } = made;
        let new_blobs = !blobs.is_empty() || !small.is_empty();
        for (digest, staged) in blobs {
            let staged = Arc::into_inner(staged)
                .ok_or_else(|| BuildError::Internal("a layer is still being written".to_owned()))?;
            self.store.publish(staged, &digest)?;
        }
        for (digest, staged) in small {
            self.store.publish(staged, &digest)?;
        }
        if new_blobs {
            self.store.sync_blobs()?;
        }
        for (options, content, record) in &records {
            self.store.remember_layer(options, content, record)?;
        }
        for ready in bundles.iter().filter(|ready| ready.composed.is_some()) {
            self.store.remember_bundle(&ready.inputs, &ready.record)?;
        }
        cache.save()?;
        if !locked.is_empty() {
            replace(&self.folder.join(Lock::FILE), lock.to_text().as_bytes())?;
        }
        if changed {
            self.check_all_there(bundles)?;
            self.store.replace_index(&index)?;
        }
        Ok((built, locked))
    }

    /// The version a bundle gets, and whether the index has it with this content already.
    fn version(&self, index: &Index, ready: &Ready) -> Result<(Version, bool), BuildError> {
        let template = &ready.version;
        let own: Vec<Tagged> = index.bundles().filter(|bundle| bundle.role == ready.role).collect();
        let render = |build| template.render(build).map_err(BuildError::from);
        let version = if template.uses_build() && self.options.build.is_none() {
            let numbered =
                own.iter().filter_map(|bundle| Some((template.build_of(&bundle.version)?, bundle)));
            match numbered.max_by_key(|(number, _)| *number) {
                Some((_, newest)) if newest.digest == ready.record.manifest => {
                    return Ok((newest.version.clone(), true));
                }
                Some((number, _)) => render(Some(number + 1))?,
                None => render(Some(1))?,
            }
        } else {
            render(self.options.build)?
        };
        match own.iter().find(|bundle| bundle.version == version) {
            None => Ok((version, false)),
            Some(bundle) if bundle.digest == ready.record.manifest => Ok((version, true)),
            Some(bundle) => Err(StoreError::Taken {
                role: ready.role.clone(),
                version: version.to_string(),
                found: bundle.digest,
                made: ready.record.manifest,
            }
            .into()),
        }
    }

    /// gc waits for the store's lock, but a person may remove files: look once more.
    fn check_all_there(&self, bundles: &[Ready]) -> Result<(), BuildError> {
        for (layer, _) in bundles.iter().flat_map(|ready| &ready.layers) {
            if !self.store.has_blob(&layer.digest, layer.size) {
                return Err(BuildError::Vanished(layer.digest));
            }
        }
        Ok(())
    }

    /// windlass.lock with the artifacts that it does not have, and which those are.
    ///
    /// It is read again: another build may have added to it since this one began, and loses nothing.
    fn add_to_lock(&self, artifacts: &[&Found]) -> Result<(Lock, Vec<BundlePath>), BuildError> {
        let path = self.folder.join(Lock::FILE);
        let mut lock = match std::fs::read_to_string(&path) {
            Ok(text) => Lock::parse(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Lock::new(),
            Err(error) => return Err(error).at("read", &path).map_err(Into::into),
        };
        let mut added = Vec::new();
        for one in artifacts {
            let Some(locked) = one.locked() else { continue };
            if lock::check(&lock, &one.name, locked, self.options.locked)? {
                lock.insert(one.name.as_str(), locked.digest, locked.size);
                added.push(one.name.clone());
            }
        }
        Ok((lock, added))
    }
}

fn describe(ready: &Ready, version: Version, unchanged: bool) -> Built {
    let record = &ready.record;
    let layers: u64 = ready.layers.iter().map(|(layer, _)| layer.size).sum();
    Built {
        role: ready.role.clone(),
        version,
        digest: record.manifest,
        size: record.manifest_size + record.config_size + layers,
        files: record.files,
        unpacked_size: record.unpacked_size,
        layers: ready.layers.clone(),
        unchanged,
        duration: ready.duration,
    }
}
