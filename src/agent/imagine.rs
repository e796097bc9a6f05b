//! What staging a bundle would render, told without a node: for checks on the controller.
//!
//! # Invariants
//!
//! * It is the renderer that staging uses; only the release's number is made up.
//! * Nothing is read from the disk but how the root's own path resolves, and no secret is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::draft::Draft;
use super::layout::Root;
use super::names::ReleaseName;
use super::preview::PreviewRequest;
use super::stage_error::StageError;
use super::supervise::Unit;
use crate::model::BundlePath;

/// A release that nobody made.
#[derive(Clone, Debug)]
pub struct Imagined {
    /// Where it would be.
    pub release: Utf8PathBuf,
    /// The role's folder for what lasts.
    pub shared: Utf8PathBuf,
    /// What its templates render to, each secret as `request` has it.
    pub files: BTreeMap<BundlePath, String>,
    /// How it would run.
    pub unit: Option<Unit>,
    /// The names of the secrets that it asks for.
    pub secrets: BTreeSet<String>,
}

/// Renders a bundle for the root at `root`, which may be on another machine.
pub fn imagine(root: &Utf8Path, request: &PreviewRequest) -> Result<Imagined, StageError> {
    let dir = Root::imagined(root).role(&request.role);
    let release = ReleaseName::new(1, request.version.clone());
    let templates = request.record.templates.iter();
    let text = |path: &BundlePath| (path.clone(), request.templates.get(path).cloned().unwrap_or_default());
    let draft = Draft {
        version: &request.version,
        bundle: request.bundle,
        context: &request.context,
        secrets: Arc::new(request.secrets.clone()),
        record: request.record.clone(),
        templates: templates.map(text).collect(),
        key: None,
    };
    let content = draft.content(&dir, &release)?;
    Ok(Imagined {
        release: dir.release(&release),
        shared: dir.shared(),
        files: content.rendered.into_iter().map(|(path, text)| (path, text.exact)).collect(),
        unit: content.unit,
        secrets: content.secrets,
    })
}
