//! Which layer an artifact makes, and which manifest layers make: remembered from earlier builds.

use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::bundle::{Layer, TocPlace};
use crate::fs::{IoError, IoResultExt as _, calls, replace};
use crate::model::Digest;

/// A layer that was built before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Of the tar.
    pub diff_id: Digest,
    /// Where its table is.
    pub place: TocPlace,
}

impl LayerRecord {
    /// As a manifest has it.
    pub fn layer(&self) -> Layer {
        Layer { digest: self.digest, size: self.size, diff_id: self.diff_id, place: self.place }
    }
}

/// A manifest that was composed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRecord {
    /// Of the manifest.
    pub manifest: Digest,
    /// Bytes of the manifest.
    pub manifest_size: u64,
    /// Of the config.
    pub config: Digest,
    /// Bytes of the config.
    pub config_size: u64,
    /// The last layer, which holds the bundle's own record.
    pub own: LayerRecord,
    /// Regular files and hard links.
    pub files: u64,
    /// Bytes of the files.
    pub unpacked_size: u64,
}

fn read<T: DeserializeOwned>(path: &Utf8Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write<T: Serialize>(path: &Utf8Path, value: &T) -> Result<(), IoError> {
    let bytes = serde_json::to_vec(value).at("write", path)?;
    if let Some(dir) = path.parent() {
        calls::create_dir_all(dir).at("create", dir)?;
    }
    replace(path, &bytes)
}

impl Store {
    fn layer_path(&self, options: &Digest, source: &Digest) -> Utf8PathBuf {
        self.cache().join("layers").join(options.hex()).join(format!("{}.json", source.hex()))
    }

    fn bundle_path(&self, inputs: &Digest) -> Utf8PathBuf {
        self.cache().join("bundles").join(format!("{}.json", inputs.hex()))
    }

    /// Whether any layer was built with these options before.
    pub fn knows_options(&self, options: &Digest) -> bool {
        self.cache().join("layers").join(options.hex()).exists()
    }

    /// The layer that `source` (an artifact or a set of conf files) made with `options`, if its blob is there.
    pub fn cached_layer(&self, options: &Digest, source: &Digest) -> Option<LayerRecord> {
        read::<LayerRecord>(&self.layer_path(options, source))
            .filter(|record| self.has_blob(&record.digest, record.size))
    }

    /// Remembers a layer.
    pub fn remember_layer(
        &self,
        options: &Digest,
        source: &Digest,
        record: &LayerRecord,
    ) -> Result<(), IoError> {
        write(&self.layer_path(options, source), record)
    }

    /// The manifest that `inputs` made, if its own blobs are there.
    pub fn cached_bundle(&self, inputs: &Digest) -> Option<BundleRecord> {
        read::<BundleRecord>(&self.bundle_path(inputs)).filter(|record| {
            self.has_blob(&record.manifest, record.manifest_size)
                && self.has_blob(&record.config, record.config_size)
                && self.has_blob(&record.own.digest, record.own.size)
        })
    }

    /// Remembers a manifest.
    pub fn remember_bundle(&self, inputs: &Digest, record: &BundleRecord) -> Result<(), IoError> {
        write(&self.bundle_path(inputs), record)
    }
}
