//! How a release runs: its `[service]` with every template rendered.
//!
//! # Invariants
//!
//! * It may hold secrets: its file is 0600 and it is never journalled, logged or sent.

use std::collections::BTreeMap;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::fs::{IoError, IoResultExt as _};
use crate::model::{ProductVersion, Supervision};
use crate::recipe::{Api, Limit, Ready, Reload, ServiceKind};

/// The version of the unit's file.
pub const UNIT_FORMAT: u32 = 1;

/// How a release runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// [`UNIT_FORMAT`].
    pub format: u32,
    /// Which adapter knows it.
    pub kind: ServiceKind,
    /// What keeps it up; the embedded one where nothing is said.
    #[serde(default, skip_serializing_if = "Supervision::is_pidfile")]
    pub supervisor: Supervision,
    /// As whom; `None` is whoever the agent runs as.
    pub user: Option<String>,
    /// With which group; `None` is the user's own.
    pub group: Option<String>,
    /// Linux capabilities.
    pub capabilities: Vec<String>,
    /// Program, absolute, and arguments.
    pub command: Vec<String>,
    /// Environment, besides what every service gets.
    pub env: BTreeMap<String, String>,
    /// Signal that stops it, without `SIG`.
    pub signal: String,
    /// How long it may take to stop.
    pub timeout_ms: u64,
    /// What must exit with 0 before it may become current: a program, absolute, and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Resource limits.
    pub limits: BTreeMap<String, Limit>,
    /// The release: where it starts.
    pub cwd: Utf8PathBuf,
    /// Where its output goes.
    pub log: Utf8PathBuf,
    /// What proves that it is ready.
    pub ready: Option<Ready>,
    /// Where its adapter asks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<Api>,
    /// The product's version, where the bundle says it under the kind's name: `6.7.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// How it is told to read its conf again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload>,
}

/// Why a unit cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Not what it should be.
    #[error("{path} is not valid")]
    Json {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A newer windlass wrote it.
    #[error("{path} has format {found}; this windlass reads format {UNIT_FORMAT}")]
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

impl Unit {
    /// How long it may take to stop.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The version of the product, where data that it has opened cannot be read by an older one.
    pub fn data_version(&self) -> Option<ProductVersion> {
        self.product.as_ref().filter(|_| self.kind.binds_data())?.parse().ok()
    }

    /// Reads a unit; `None` if the release runs nothing.
    pub fn read(path: &Utf8Path) -> Result<Option<Self>, UnitError> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.at("read", path)?,
        };
        let unit: Self = serde_json::from_slice(&bytes)
            .map_err(|source| UnitError::Json { path: path.to_owned(), source })?;
        match unit.format {
            UNIT_FORMAT => Ok(Some(unit)),
            found => Err(UnitError::Newer { path: path.to_owned(), found }),
        }
    }
}
