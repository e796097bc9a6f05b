//! `.windlass/bundle.json`: what a node needs to know of a bundle besides its files.
//!
//! A format: fields may be added with a default, none renamed or removed. Maps are sorted, so that the
//! same content gives the same bytes. No version and no time stand in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{BundlePath, Digest, Role};
use crate::recipe::Service;

/// The version of the record; a newer one is refused.
pub const RECORD_FORMAT: u32 = 1;

/// Where the record stands in the bundle.
pub const RECORD_PATH: &str = ".windlass/bundle.json";

/// What `.windlass/bundle.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_FORMAT`].
    pub format: u32,
    /// The role.
    pub role: Role,
    /// Regular files and hard links of the bundle, this record not counted.
    pub files: u64,
    /// Bytes of those files.
    pub unpacked_size: u64,
    /// What the layers were made from, in order.
    pub artifacts: Vec<Artifact>,
    /// Products that the recipe's templates name.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// Files that are rendered when a node stages the release, in path order.
    #[serde(default)]
    pub templates: Vec<BundlePath>,
    /// What outlives releases.
    #[serde(default)]
    pub persist: Vec<PersistDir>,
    /// What is writable and new with each release.
    #[serde(default)]
    pub scratch: Vec<BundlePath>,
    /// Defaults of the templates' `vars`.
    #[serde(default)]
    pub vars: serde_json::Map<String, serde_json::Value>,
    /// How the role runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
}

/// An artifact that a layer was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its path below `install/`.
    pub name: BundlePath,
    /// Of the file.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// Where its files stand; absent for the bundle's top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<BundlePath>,
    /// Which layer of the manifest it made, counted from 0.
    pub layer: usize,
}

/// A directory that outlives releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistDir {
    /// Its name below the role's `shared/`.
    pub name: String,
    /// Where the release links to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<BundlePath>,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A newer windlass wrote it.
    #[error("{RECORD_PATH} has format {0}; this windlass reads format {RECORD_FORMAT}")]
    Newer(u32),
    /// Not the JSON it should be.
    #[error("{RECORD_PATH} is not valid")]
    Json(#[from] serde_json::Error),
}

impl Record {
    /// The record's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a record.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes)?;
        if head.format != RECORD_FORMAT {
            return Err(RecordError::Newer(head.format));
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}
