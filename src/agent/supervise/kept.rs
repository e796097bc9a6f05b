//! `roles/<role>/supervised`: under which supervisor a role's service was started, and as what.
//!
//! # Invariants
//!
//! * It is on the disk before anything of the service is outside the root, and goes when nothing is there any
//!   more. Where there is none, the service is under the embedded supervisor, which has its pid file.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::{SuperviseError, Unit};
use crate::agent::layout::RoleDir;
use crate::agent::names::ReleaseName;
use crate::fs::{IoResultExt as _, calls, replace_with_mode};
use crate::model::{Digest, Supervision};

const FORMAT: u32 = 1;

/// What was started, and where it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    format: u32,
    /// Under what; its `config` is what was found, where it was not named.
    pub supervisor: Supervision,
    /// The unit's or the program's name there.
    pub name: String,
    /// The file that was written for it there.
    pub file: Utf8PathBuf,
    /// From which release.
    pub release: ReleaseName,
}

impl Kept {
    pub(super) fn new(
        dir: &RoleDir,
        supervisor: Supervision,
        file: Utf8PathBuf,
        release: &ReleaseName,
    ) -> Self {
        Self { format: FORMAT, supervisor, name: name(dir), file, release: release.clone() }
    }

    pub(super) fn read(dir: &RoleDir) -> Result<Option<Self>, SuperviseError> {
        let path = dir.supervised();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.at("read", &path)?,
        };
        let wrong = |why: String| {
            SuperviseError::supervisor(
                format!("{path} {why}: it is not known what keeps the service"),
                "use the newest windlass that was used here; `systemctl` or `supervisorctl status` tell more",
            )
        };
        let kept: Self =
            serde_json::from_slice(&bytes).map_err(|error| wrong(format!("is not valid: {error}")))?;
        match kept.format {
            FORMAT => Ok(Some(kept)),
            found => Err(wrong(format!("has format {found}, and this windlass reads format {FORMAT}"))),
        }
    }

    pub(super) fn write(&self, dir: &RoleDir) -> Result<(), SuperviseError> {
        let path = dir.supervised();
        let bytes = serde_json::to_vec(self).map_err(std::io::Error::from).at("write", &path)?;
        Ok(replace_with_mode(&path, &bytes, 0o600)?)
    }

    pub(super) fn remove(dir: &RoleDir) -> Result<(), SuperviseError> {
        Ok(remove(&dir.supervised())?)
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &camino::Utf8Path) -> Result<(), crate::fs::IoError> {
    match calls::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at("remove", path),
    }
}

/// What a role's service is called outside its root: two roots on one machine may have the same role.
pub(super) fn name(dir: &RoleDir) -> String {
    let root = dir.root();
    let role = dir.role();
    if root == "/opt/windlass" {
        return format!("windlass-{role}");
    }
    let digest = Digest::of(root.as_str().as_bytes()).to_string();
    let hex = digest.rsplit(':').next().unwrap_or_default();
    format!("windlass-{role}-{}", hex.get(..8).unwrap_or(hex))
}

/// How a unit is stopped; without one, as a recipe that says nothing.
pub(super) fn stopping(unit: Option<&Unit>) -> (&str, std::time::Duration) {
    unit.map_or(("TERM", std::time::Duration::from_mins(1)), |unit| (unit.signal.as_str(), unit.timeout()))
}
