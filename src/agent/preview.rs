//! What staging a bundle here would make, told without making anything: for `plan`.
//!
//! The bundle need not be on the node. The controller reads its record and its templates from the store.
//!
//! # Invariants
//!
//! * Nothing is written: no root, no folder, no key. No lock is taken, so it may be asked at any time.
//! * No text is sent that may hold a secret. What was staged is shown as it was masked then; what is on the
//!   disk is shown only if it still has the digest that it was staged with.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use super::draft::{Content, Draft};
use super::error::AgentError;
use super::key::Key;
use super::layout::{RoleDir, Root};
use super::names::ReleaseName;
use super::release::{ReleaseRecord, Rendered};
use super::render::Context;
use super::state::State;
use crate::bundle::Record;
use crate::fs::{open_beneath, open_directory};
use crate::model::{BundlePath, Digest, Role, Version};

/// The most bytes of a rendered text that are read back.
const MAX_TEXT: u64 = 4 << 20;

/// What would be staged.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    /// Which role.
    pub role: Role,
    /// The bundle's version, which is not in the bundle.
    pub version: Version,
    /// Which bundle.
    pub bundle: Digest,
    /// What templates see.
    pub context: Context,
    /// What `secret(name)` gives; never journalled, logged or sent back.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// The bundle's `.windlass/bundle.json`.
    pub record: Record,
    /// The text of each template that the record names.
    #[serde(default)]
    pub templates: BTreeMap<BundlePath, String>,
}

impl std::fmt::Debug for PreviewRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreviewRequest({}:{} {})", self.role, self.version, self.bundle)
    }
}

/// What staging would make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// What is current.
    pub release: Option<ReleaseName>,
    /// What a rollback goes to.
    pub prior: Option<ReleaseName>,
    /// Staging would give the current release again.
    pub same: bool,
    /// The release that staging would find ready; `None` if it would make one.
    pub staged: Option<ReleaseName>,
    /// Rendered files that differ from those of the current release, in path order.
    pub files: Vec<PreviewFile>,
    /// The service would be started in another way than the current release's.
    pub service_changed: bool,
    /// Bundles that the node knows.
    pub bundles: Vec<Digest>,
}

/// A rendered file that would differ. Both texts are rendered for the current release's place, so that its
/// path is no difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewFile {
    /// Below the release.
    pub path: BundlePath,
    /// How it differs.
    pub what: Change,
    /// The current release's, each secret `***`; absent also where that cannot be told.
    pub old: Option<String>,
    /// The one that would be made, each secret `***`; absent also where it renders with the secret only.
    pub new: Option<String>,
}

/// How a rendered file would differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The current release does not render it.
    Added,
    /// It would not be rendered any more.
    Removed,
    /// Its text, or only a secret in it.
    Changed,
}

/// Says what staging would make at the root at `path`, whether there is one or not.
pub(super) fn preview(path: &Utf8Path, request: &PreviewRequest) -> Result<Preview, AgentError> {
    let root = Root::open(path)?;
    let missing = root.is_none();
    let root = root.unwrap_or_else(|| Root::imagined(path));
    let dir = root.role(&request.role);
    let state = root.state_of(&dir)?;
    let template = |path: &BundlePath| match request.templates.get(path) {
        Some(text) => Ok((path.clone(), text.clone())),
        None => Err(AgentError::Request(format!("the text of the template {path} is missing"))),
    };
    let draft = Draft {
        version: &request.version,
        bundle: request.bundle,
        context: &request.context,
        secrets: Arc::new(request.secrets.clone()),
        record: request.record.clone(),
        templates: request.record.templates.iter().map(template).collect::<Result<_, _>>()?,
        key: Key::read(&root)?,
    };
    let mut preview = Preview {
        release: state.current.clone(),
        prior: state.prior().cloned(),
        staged: draft.existing(&dir, &state)?.map(|existing| existing.release),
        bundles: if missing { Vec::new() } else { root.known_bundles()? },
        ..Preview::default()
    };
    preview.same = preview.staged.is_some() && preview.staged == preview.release;
    if !preview.same {
        compare(&mut preview, &draft, &dir, &state)?;
    }
    Ok(preview)
}

fn compare(preview: &mut Preview, draft: &Draft, dir: &RoleDir, state: &State) -> Result<(), AgentError> {
    let next = ReleaseName::new(state.next_number(), draft.version.clone());
    let content = draft.content(dir, state.current.as_ref().unwrap_or(&next))?;
    draft.owner(content.unit.as_ref())?;
    // One whose record cannot be read is as good as none: everything would be new.
    let current = state.current.as_ref();
    let old = current.and_then(|release| ReleaseRecord::read(&dir.release_record(release)).ok());
    preview.service_changed = content.unit_digest != old.as_ref().and_then(|old| old.service);
    preview.files = files(&content, old.as_ref(), dir);
    Ok(())
}

fn files(content: &Content, old: Option<&ReleaseRecord>, dir: &RoleDir) -> Vec<PreviewFile> {
    let before = |path: &BundlePath| old.and_then(|old| old.rendered.get(path));
    let paths: BTreeSet<&BundlePath> =
        content.digests.keys().chain(old.into_iter().flat_map(|old| old.rendered.keys())).collect();
    let differs = paths.into_iter().filter(|path| content.digests.get(*path) != before(path));
    let file = |path: &BundlePath| PreviewFile {
        path: path.clone(),
        what: match (before(path), content.digests.get(path)) {
            (None, _) => Change::Added,
            (Some(_), None) => Change::Removed,
            (Some(_), Some(_)) => Change::Changed,
        },
        old: old.and_then(|old| text_of(old, path, dir)),
        new: content.rendered.get(path).and_then(|text| text.shown()).map(str::to_owned),
    };
    differs.map(file).collect()
}

/// A rendered text of a release, as it may be shown.
fn text_of(record: &ReleaseRecord, path: &BundlePath, dir: &RoleDir) -> Option<String> {
    match record.rendered.get(path)? {
        Rendered::Hidden(_) => record.masked.get(path).cloned(),
        Rendered::Plain(digest) => {
            let tree = dir.release(&record.release);
            let file = open_beneath(open_directory(&tree).ok()?, &tree, path.as_str()).ok()?;
            let mut bytes = Vec::new();
            file.take(MAX_TEXT + 1).read_to_end(&mut bytes).ok()?;
            // What a person wrote into it since may be a secret.
            (Digest::of(&bytes) == *digest).then(|| String::from_utf8(bytes).ok())?
        }
    }
}
