//! `releases/<n>-<version>.json`: what a release was made from.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::names::ReleaseName;
use crate::fs::{IoError, IoResultExt as _};
use crate::model::{BundlePath, Digest, Timestamp};

/// The version of the record; a newer one is refused.
pub(super) const RELEASE_FORMAT: u32 = 1;

/// The digest of something rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rendered {
    /// Of the content.
    Plain(Digest),
    /// Hidden by the node's key, because a secret may be in it; never sent.
    Hidden(Digest),
}

/// What a release was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// `RELEASE_FORMAT`.
    pub format: u32,
    /// Its name.
    pub release: ReleaseName,
    /// From which bundle.
    pub bundle: Digest,
    /// Files in it.
    pub files: u64,
    /// Rendered files; everything else is as the bundle has it.
    pub rendered: BTreeMap<BundlePath, Rendered>,
    /// Of each rendered file that asked for a secret, its text with `***` for every secret. Absent where the
    /// template renders with the secret only, and in records of before there was this field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub masked: BTreeMap<BundlePath, String>,
    /// How it runs, hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Digest>,
    /// Secrets were given to the role: what its service says may hold them. So it is in records of before there
    /// was this field.
    #[serde(default = "may", skip_serializing_if = "bool::clone")]
    pub secrets: bool,
    /// For which rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// By whom.
    pub who: String,
    /// When.
    pub time: Timestamp,
}

/// Why a release's record cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// Not what it should be.
    #[error("{path} is not valid")]
    Json {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A newer windlass wrote it.
    #[error("{path} has format {found}; this windlass reads format {RELEASE_FORMAT}")]
    Newer {
        /// The file.
        path: Utf8PathBuf,
        /// Its format.
        found: u32,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

fn may() -> bool {
    true
}

impl ReleaseRecord {
    /// Reads a release's record.
    pub fn read(path: &Utf8Path) -> Result<Self, ReleaseError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let bytes = std::fs::read(path).at("read", path)?;
        let invalid = |source| ReleaseError::Json { path: path.to_owned(), source };
        let head: Head = serde_json::from_slice(&bytes).map_err(invalid)?;
        if head.format != RELEASE_FORMAT {
            return Err(ReleaseError::Newer { path: path.to_owned(), found: head.format });
        }
        serde_json::from_slice(&bytes).map_err(invalid)
    }
}
