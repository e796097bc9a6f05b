//! One role's layers become its bundle: checked against each other, recorded, named by a manifest.

use std::collections::BTreeMap;

use serde::Serialize;

use super::artifacts::Found;
use super::commit::Made;
use super::source::{ConfRead, FilesSource};
use super::work::{self, Job, Source, Workshop};
use super::{BuildError, WorkError};
use crate::bundle::{Artifact, Composed, PersistDir, RECORD_FORMAT, RECORD_PATH, Record, Toc, Tree};
use crate::model::{BundlePath, Digest};
use crate::recipe::{Spec, VersionTemplate};
use crate::store::{BundleRecord, LayerRecord, Store};

/// A layer that a role takes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The layer.
    pub record: LayerRecord,
    /// Its table, if it was just made.
    pub toc: Option<std::sync::Arc<Toc>>,
    /// Whether the store had it.
    pub cached: bool,
}

impl Part {
    /// A layer that the store has.
    pub(super) fn cached(record: LayerRecord) -> Self {
        Self { record, toc: None, cached: true }
    }
}

/// One role's inputs.
#[derive(Clone, Copy)]
pub(super) struct Role<'a> {
    pub spec: &'a Spec,
    pub conf: &'a [ConfRead],
    pub found: &'a BTreeMap<BundlePath, Found>,
    /// Layers of the artifacts, then of the conf.
    pub layers: &'a [&'a Part],
}

/// A bundle that only lacks its version.
#[derive(Debug)]
pub(super) struct Ready {
    pub role: crate::model::Role,
    pub version: VersionTemplate,
    /// What the manifest depends on, and what it came to.
    pub inputs: Digest,
    pub record: BundleRecord,
    pub layers: Vec<(LayerRecord, bool)>,
    /// Config and manifest, unless the store has them.
    pub composed: Option<Composed>,
    /// From the build's start until it was composed.
    pub duration: std::time::Duration,
}

/// What a manifest depends on.
#[derive(Serialize)]
struct Inputs<'a> {
    layers: Vec<&'a LayerRecord>,
    record: &'a Record,
    own_options: Digest,
}

/// Composes one role's bundle, or finds it composed.
pub(super) fn compose(
    store: &Store,
    role: &Role<'_>,
    workshop: Workshop<'_>,
    made: &mut Made,
) -> Result<Ready, BuildError> {
    let mut record = record(role)?;
    let own = FilesSource::single(own_path()?, Vec::new(), workshop.shared.level)?;
    let inputs = Inputs {
        layers: role.layers.iter().map(|part| &part.record).collect(),
        record: &record,
        own_options: own.options,
    };
    let inputs = serde_json::to_vec(&inputs).map_err(|error| BuildError::Internal(error.to_string()))?;
    let inputs = Digest::of(&inputs);
    let mut layers: Vec<_> = role.layers.iter().map(|part| (part.record.clone(), part.cached)).collect();
    let ready = |record: BundleRecord, layers, composed| Ready {
        role: role.spec.role.clone(),
        version: role.spec.version.clone(),
        inputs,
        record,
        layers,
        composed,
        duration: std::time::Duration::ZERO,
    };
    if let Some(known) = store.cached_bundle(&inputs) {
        layers.push((known.own.clone(), true));
        return Ok(ready(known, layers, None));
    }
    (record.files, record.unpacked_size) = totals(store, role)?;
    let name = &role.spec.role;
    let bytes = record.to_bytes().map_err(|source| BuildError::Record { role: name.clone(), source })?;
    let own_size = bytes.len() as u64;
    let (own, own_cached) = own_layer(store, bytes, workshop, made)?;
    layers.push((own.clone(), own_cached));
    let all: Vec<_> = layers.iter().map(|(record, _)| record.layer()).collect();
    let (files, unpacked_size) = (record.files + 1, record.unpacked_size + own_size);
    let composed = Composed::new(name, &all, files, unpacked_size)
        .map_err(|source| BuildError::Manifest { role: name.clone(), source })?;
    let record = BundleRecord {
        manifest: composed.digest,
        manifest_size: composed.manifest.len() as u64,
        config: Digest::of(&composed.config),
        config_size: composed.config.len() as u64,
        own,
        files,
        unpacked_size,
    };
    Ok(ready(record, layers, Some(composed)))
}

fn own_path() -> Result<BundlePath, BuildError> {
    BundlePath::new(RECORD_PATH).map_err(|error| BuildError::Internal(error.to_string()))
}

/// The record, its counts still 0.
fn record(role: &Role<'_>) -> Result<Record, BuildError> {
    let spec = role.spec;
    let artifacts = spec
        .unpack
        .iter()
        .enumerate()
        .map(|(layer, unpack)| {
            let locked = role.found.get(&unpack.artifact).and_then(Found::locked);
            let locked =
                locked.ok_or_else(|| BuildError::Internal(format!("{} was not hashed", unpack.artifact)))?;
            Ok(Artifact {
                name: unpack.artifact.clone(),
                digest: locked.digest,
                size: locked.size,
                into: unpack.into.clone(),
                layer,
            })
        })
        .collect::<Result<_, BuildError>>()?;
    let mut versions = spec.versions_used.clone();
    let mut templates = Vec::new();
    for conf in role.conf {
        versions.extend(conf.names.versions.clone());
        templates.extend(conf.templates.iter().cloned());
    }
    templates.sort();
    templates.dedup();
    Ok(Record {
        format: RECORD_FORMAT,
        role: spec.role.clone(),
        files: 0,
        unpacked_size: 0,
        artifacts,
        versions,
        templates,
        persist: spec
            .persist
            .iter()
            .map(|persist| PersistDir { name: persist.name.clone(), at: persist.at.clone() })
            .collect(),
        scratch: spec.scratch.iter().map(|scratch| scratch.at.clone()).collect(),
        vars: spec.vars.clone(),
        service: spec.service.clone(),
    })
}

/// Checks that the layers fit over each other, and counts what they come to.
fn totals(store: &Store, role: &Role<'_>) -> Result<(u64, u64), BuildError> {
    let mut read = Vec::new();
    for part in role.layers {
        read.push(match &part.toc {
            Some(toc) => std::sync::Arc::clone(toc),
            None => std::sync::Arc::new(store.layer(&part.record.layer())?.toc),
        });
    }
    let wrong =
        |error| BuildError::Tree { role: role.spec.role.clone(), error, layers: layer_names(role.spec) };
    let tree = Tree::new(read.iter().map(|toc| toc.entries.as_slice())).map_err(wrong)?;
    tree.check_reserved().map_err(wrong)?;
    check_persist(role.spec, &tree)?;
    Ok(tree.totals())
}

/// What each layer is made from.
fn layer_names(spec: &Spec) -> Vec<String> {
    let artifacts = spec.unpack.iter().map(|unpack| format!("install/{}", unpack.artifact));
    artifacts.chain(spec.conf.iter().map(|conf| format!("conf/{}", conf.from))).collect()
}

/// A persistent directory's link must not hide files, and scratch must be a directory if it is there.
fn check_persist(spec: &Spec, tree: &Tree<'_>) -> Result<(), BuildError> {
    use crate::bundle::Node;
    for persist in &spec.persist {
        let Some(at) = &persist.at else { continue };
        let below = format!("{at}/");
        let hidden = tree.entries().find(|(_, entry)| {
            let inside = entry.path.as_str().starts_with(&below) && !matches!(entry.node, Node::Directory);
            inside || (entry.path == *at && !matches!(entry.node, Node::Directory))
        });
        if let Some((_, entry)) = hidden {
            let problem = persist.place.problem(format!("`{at}` would hide `{}` of the bundle", entry.path));
            return Err(problem
                .help("a persistent directory starts empty; link it somewhere else, or leave the files out with `exclude`")
                .into());
        }
    }
    for scratch in &spec.scratch {
        if let Some((_, entry)) = tree.get(scratch.at.as_str())
            && !matches!(entry.node, Node::Directory)
        {
            let kind = entry.node.kind();
            return Err(scratch.place.problem(format!("`{}` is a {kind} in the bundle", scratch.at)).into());
        }
    }
    Ok(())
}

/// The last layer, which holds the record.
fn own_layer(
    store: &Store,
    bytes: Vec<u8>,
    workshop: Workshop<'_>,
    made: &mut Made,
) -> Result<(LayerRecord, bool), BuildError> {
    let source = FilesSource::single(own_path()?, bytes, workshop.shared.level)?;
    let (options, content) = (source.options, source.content);
    if let Some(record) = store.cached_layer(&options, &content) {
        return Ok((record, true));
    }
    let size = source.files.iter().map(|file| file.bytes.len() as u64).sum();
    let source = Source::Files(std::sync::Arc::new(source));
    let done = work::make(&Job { source, roles: Vec::new(), hash: false, size }, workshop)?;
    let part = made.add(done.blob, options, content);
    Ok((part.record, false))
}

impl From<WorkError> for BuildError {
    fn from(source: WorkError) -> Self {
        match source {
            WorkError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            WorkError::Io(error) => Self::Io(error),
            other => Self::Internal(other.to_string()),
        }
    }
}
