//! Data that binds a role to a version: once a newer version of the product was executed on it, an older one cannot
//! read it, or does damage.
//!
//! # Invariants
//!
//! * The journal says so, on the disk, before the newer version is executed for the first time.
//! * Nothing older is started after that: not by a rollback, not by the guard, not by hand. Only a person who
//!   says that the data is of the older version again opens that way.

use super::desk::Desk;
use super::error::AgentError;
use super::names::ReleaseName;
use super::record::Record;
use super::supervise::Unit;
use crate::model::ProductVersion;

impl Desk {
    /// Why a release cannot be gone back to, if it cannot.
    pub(super) fn no_return(&self, to: &ReleaseName) -> Result<Option<AgentError>, AgentError> {
        Ok(self.unit(to)?.and_then(|unit| self.too_old(to, &unit)))
    }

    fn too_old(&self, release: &ReleaseName, unit: &Unit) -> Option<AgentError> {
        let opened = self.state().opened.as_ref()?;
        let version: ProductVersion = opened.parse().ok()?;
        let older = unit.data_version().filter(|own| *own < version)?;
        Some(AgentError::NoReturn {
            role: self.dir().role().clone(),
            release: release.clone(),
            product: older.to_string(),
            opened: opened.clone(),
        })
    }

    /// What has to be on record before the service of a release is executed.
    pub(super) fn opens(&self, release: &ReleaseName, unit: &Unit) -> Result<Option<Record>, AgentError> {
        if let Some(error) = self.too_old(release, unit) {
            return Err(error);
        }
        let Some(own) = unit.data_version() else { return Ok(None) };
        let known = self.state().opened.as_ref().and_then(|opened| opened.parse::<ProductVersion>().ok());
        Ok((known.as_ref() != Some(&own)).then(|| Record::DataOpened { product: own.to_string() }))
    }

    /// A person says that the data is of the version of this release again.
    pub(super) fn said_to_be(&self, release: &ReleaseName) -> Result<Option<Record>, AgentError> {
        if self.no_return(release)?.is_none() {
            return Ok(None);
        }
        let version = self.unit(release)?.and_then(|unit| unit.data_version());
        Ok(version.map(|version| Record::DataOpened { product: version.to_string() }))
    }
}
