//! What a bundle becomes on one node, before anything of it is written: its texts and its service.
//!
//! `stage` makes a release of it, `preview` only tells of it, and both ask here whether it is there already.
//!
//! # Invariants
//!
//! * Nothing here writes.
//! * A text that asked for a secret leaves this node only as [`Text::shown`], where each secret is `***`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::accounts;
use super::key::Key;
use super::layout::RoleDir;
use super::names::ReleaseName;
use super::release::{ReleaseRecord, Rendered};
use super::render::{Context, Renderer, Text};
use super::service;
use super::stage_error::StageError;
use super::state::State;
use super::supervise::Unit;
use crate::bundle::Record;
use crate::fs::IoResultExt as _;
use crate::model::{BundlePath, Digest, Version};

/// A bundle and everything that its templates see on this node.
pub(super) struct Draft<'a> {
    pub version: &'a Version,
    pub bundle: Digest,
    pub context: &'a Context,
    pub secrets: Arc<BTreeMap<String, String>>,
    pub record: Record,
    pub templates: BTreeMap<BundlePath, String>,
    /// `None` where nothing was ever staged, so that there is nothing to compare with.
    pub key: Option<Key>,
}

/// What is rendered for one release's place.
pub(super) struct Content {
    pub rendered: BTreeMap<BundlePath, Text>,
    pub digests: BTreeMap<BundlePath, Rendered>,
    pub unit: Option<Unit>,
    pub unit_bytes: Vec<u8>,
    pub unit_digest: Option<Digest>,
    /// The names of the secrets that were asked for.
    pub secrets: BTreeSet<String>,
}

/// A release that is there and is what would be made.
pub(super) struct Existing {
    pub release: ReleaseName,
    pub files: u64,
    pub unit: Option<Unit>,
}

impl Content {
    /// Whether a release was made of the same.
    fn is_that_of(&self, record: &ReleaseRecord) -> bool {
        self.digests == record.rendered && self.unit_digest == record.service
    }
}

impl Draft<'_> {
    /// Renders everything for the place that `release` has or would have.
    pub(super) fn content(&self, dir: &RoleDir, release: &ReleaseName) -> Result<Content, StageError> {
        self.render(dir, release, self.context)
    }

    fn render(&self, dir: &RoleDir, release: &ReleaseName, context: &Context) -> Result<Content, StageError> {
        let (at, shared) = (dir.release(release), dir.shared());
        let renderer = Renderer::new(&self.record, context, &self.secrets, &at, &shared);
        let mut content = Content {
            rendered: BTreeMap::new(),
            digests: BTreeMap::new(),
            unit: None,
            unit_bytes: Vec::new(),
            unit_digest: None,
            secrets: BTreeSet::new(),
        };
        for (path, template) in &self.templates {
            let text = renderer
                .render(template)
                .map_err(|error| StageError::Template { path: path.clone(), error })?;
            let bytes = text.exact.as_bytes();
            let digest = if text.secret {
                Rendered::Hidden(self.hide(bytes))
            } else {
                Rendered::Plain(Digest::of(bytes))
            };
            content.digests.insert(path.clone(), digest);
            content.rendered.insert(path.clone(), text);
        }
        if let Some(service) = &self.record.service {
            let versions = &self.record.versions;
            let unit = service::unit(service, versions, &renderer, &at, &dir.log(), &context.supervisor)?;
            content.unit_bytes = serde_json::to_vec(&unit).map_err(std::io::Error::from).at("write", &at)?;
            content.unit_digest = Some(self.hide(&content.unit_bytes));
            content.unit = Some(unit);
        }
        content.secrets = renderer.asked_for();
        Ok(content)
    }

    /// Without a key nothing was ever hidden here, so whatever this gives equals nothing.
    fn hide(&self, bytes: &[u8]) -> Digest {
        self.key.as_ref().map_or_else(|| Digest::of(&[]), |key| key.hide(bytes))
    }

    /// The release that is what would be made now: the current one rather than another, then the newest.
    ///
    /// The current one also if only `cluster.forming` was true when it was staged: it runs, and a cluster that
    /// has formed is no reason to restart it. One that is not current is no such case. Whatever starts next
    /// starts into a cluster that exists, and must not be told that it is to form one.
    pub(super) fn existing(&self, dir: &RoleDir, state: &State) -> Result<Option<Existing>, StageError> {
        let current = state.current.as_ref();
        let others = state.releases.keys().rev().filter(|release| Some(*release) != current);
        for release in current.into_iter().chain(others) {
            let Some(known) = state.present(release) else { continue };
            let same = known.bundle == self.bundle && release.version() == self.version;
            if !same || known.bad.is_some() || !dir.release(release).is_dir() {
                continue;
            }
            // One whose record cannot be read is left alone, and a new one made.
            let Ok(record) = ReleaseRecord::read(&dir.release_record(release)) else { continue };
            let mut content = self.content(dir, release)?;
            if !content.is_that_of(&record) && current == Some(release) && !self.context.cluster.forming {
                // A template that fails only then did not make this release.
                content = self.render(dir, release, &self.forming()).unwrap_or(content);
            }
            if content.is_that_of(&record) {
                let (release, files) = (release.clone(), record.files);
                return Ok(Some(Existing { release, files, unit: content.unit }));
            }
        }
        Ok(None)
    }

    /// Everything that a release may have been rendered from: a cluster may have formed since.
    pub(super) fn contents(&self, dir: &RoleDir, release: &ReleaseName) -> [Result<Content, StageError>; 2] {
        [self.content(dir, release), self.render(dir, release, &self.forming())]
    }

    fn forming(&self) -> Context {
        let mut forming = self.context.clone();
        forming.cluster.forming = true;
        forming
    }
}

/// Whom scratch and secrets are given to: the service's user, if we may give.
pub(super) fn owner(unit: Option<&Unit>) -> Result<Option<(u32, u32)>, StageError> {
    let Some(unit) = unit.filter(|unit| unit.user.is_some() || unit.group.is_some()) else {
        return Ok(None);
    };
    let us = rustix::process::geteuid().as_raw();
    let user = unit.user.clone().unwrap_or_else(|| us.to_string());
    let account = accounts::find(&user, unit.group.as_deref())?;
    Ok((us == 0).then_some((account.uid, account.gid)))
}
