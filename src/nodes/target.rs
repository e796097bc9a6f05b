//! The bundle that a role shall run, with what nodes are asked about it.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Contents;
use crate::agent::{Context, PreviewRequest};
use crate::bundle::Record;
use crate::model::{Reference, Role};
use crate::push::{Wants, WantsError, wants};
use crate::recipe::ServiceKind;
use crate::store::{Store, StoreError, StoredBundle};

/// The bundle that a role shall run.
#[derive(Debug)]
pub struct Target {
    /// The bundle.
    pub bundle: StoredBundle,
    /// Its `.windlass/bundle.json`.
    pub record: Record,
    /// Its templates, and what they ask for.
    pub wants: Wants,
    pub(super) contents: Contents,
}

/// Why a bundle cannot be a target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The store does not have it, or it is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its templates are not valid.
    #[error(transparent)]
    Wants(#[from] WantsError),
}

impl Target {
    /// Reads a bundle.
    pub fn read(store: &Store, reference: &Reference) -> Result<Self, TargetError> {
        let bundle = store.bundle(reference)?;
        let record = store.record(&bundle)?;
        let wants = wants(store, &bundle)?;
        let layers =
            bundle.manifest.layers.iter().map(|layer| store.layer(layer)).collect::<Result<Vec<_>, _>>()?;
        let contents = Contents::of(&bundle, &layers, Some(&record));
        Ok(Self { bundle, record, wants, contents })
    }

    /// Its role.
    pub fn role(&self) -> &Role {
        &self.bundle.tagged.role
    }

    /// What kind of service it has, if any.
    pub fn kind(&self) -> Option<ServiceKind> {
        self.record.service.as_ref().map(|service| service.kind)
    }

    /// The version of the product that it runs, where its recipe says so.
    pub fn product(&self) -> Option<String> {
        let kind = self.record.service.as_ref()?.kind;
        self.record.versions.get(kind.name()).cloned()
    }

    /// What a node that sees this is asked about it, without a secret.
    pub(super) fn request(&self, context: Context) -> PreviewRequest {
        let tagged = &self.bundle.tagged;
        PreviewRequest {
            role: tagged.role.clone(),
            version: tagged.version.clone(),
            bundle: tagged.digest,
            context,
            secrets: BTreeMap::new(),
            record: self.record.clone(),
            templates: self.wants.templates.clone(),
        }
    }

    /// The secrets that its templates name, of those that there are.
    pub fn secrets<'a>(&self, all: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        self.wants.secrets_of(all)
    }
}
