//! Reads cluster.toml and its host lists from the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::cluster::Cluster;
use super::decode::read_cluster;
use crate::recipe::{Diagnostics, Source, Value, decode_utf8, parse};

/// Why a cluster could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no such file.
    #[error("no cluster file at {path}")]
    NoCluster {
        /// Where it was looked for.
        path: Utf8PathBuf,
    },
    /// A file could not be read.
    #[error("could not read {path}")]
    Read {
        /// The file or folder.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Files were read, and something in them is wrong.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
}

impl LoadError {
    /// What to do about it, a line each; [`Diagnostics`] carry their own.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::NoCluster { .. } => {
                vec!["write one, or name another with --cluster; `windlass demo` needs none".to_owned()]
            }
            Self::Read { .. } | Self::Invalid(_) => Vec::new(),
        }
    }
}

/// Reads the cluster file at `path`, and the lists in the folder that it names, relative to its own.
pub fn load(path: &Utf8Path) -> Result<Cluster, LoadError> {
    let folder = path.parent().unwrap_or(Utf8Path::new(""));
    let Some(source) = read(path, path.as_str())? else {
        return Err(LoadError::NoCluster { path: path.to_owned() });
    };
    let lists = match lists_folder(&source) {
        Some(lists) => read_lists(&folder.join(&lists), &lists)?,
        None => BTreeMap::new(),
    };
    let mut cluster = read_cluster(&source, &lists)?;
    for agent in cluster.nodes.iter_mut().filter_map(|node| node.agent.as_mut()) {
        *agent = folder.join(&*agent);
    }
    Ok(cluster)
}

/// What `lists` says, as far as it can be known before the file is checked.
fn lists_folder(source: &Arc<Source>) -> Option<Utf8PathBuf> {
    let table = parse(source).ok()?;
    match &table.entries.get("lists")?.node.value {
        Value::String(text) => Some(text.into()),
        _ => None,
    }
}

fn read_lists(folder: &Utf8Path, shown: &Utf8Path) -> Result<BTreeMap<String, Arc<Source>>, LoadError> {
    let failed = |source| LoadError::Read { path: folder.to_owned(), source };
    let mut lists = BTreeMap::new();
    for entry in folder.read_dir_utf8().map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        let is_list = Utf8Path::new(&name).extension() == Some("list") && !name.starts_with('.');
        if is_list && let Some(source) = read(&folder.join(&name), shown.join(&name).as_str())? {
            lists.insert(name, source);
        }
    }
    Ok(lists)
}

/// The file at `path`, called `shown` in diagnostics; `None` if there is none.
fn read(path: &Utf8Path, shown: &str) -> Result<Option<Arc<Source>>, LoadError> {
    match std::fs::read(path) {
        Ok(bytes) => decode_utf8(shown, &bytes).map(Some).map_err(|problems| LoadError::Invalid(*problems)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Read { path: path.to_owned(), source }),
    }
}
