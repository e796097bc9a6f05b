//! Reads a project's folder: the only file of this module that touches the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::diagnostic::Diagnostics;
use super::place::{Place, Source};
use super::project::read_project;
use super::spec::Project;

/// Why a project could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The folder is no project.
    #[error("no windlass.toml in {folder}")]
    NoProject {
        /// The folder.
        folder: Utf8PathBuf,
    },
    /// The project has no role.
    #[error("no recipes in {}", folder.join("recipes"))]
    NoRecipes {
        /// The project's folder.
        folder: Utf8PathBuf,
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
            Self::NoProject { .. } => vec![
                "run windlass in the project's folder".to_owned(),
                "or start a project there: a windlass.toml with `schema = 1` and `name = \"...\"`".to_owned(),
            ],
            Self::NoRecipes { .. } => {
                vec!["write one file for each role: recipes/<role>.toml".to_owned()]
            }
            Self::Read { .. } | Self::Invalid(_) => Vec::new(),
        }
    }
}

/// Reads windlass.toml and all of `recipes/` in `folder`.
///
/// A broken recipe is an error even where another role is wanted: a project is right as a whole.
pub fn load(folder: &Utf8Path) -> Result<Project, LoadError> {
    let Some(project) = read(folder, "windlass.toml")? else {
        return Err(LoadError::NoProject { folder: folder.to_owned() });
    };
    let recipes = read_recipes(folder)?;
    if recipes.keys().all(|file| super::extends::is_part(file)) {
        return Err(LoadError::NoRecipes { folder: folder.to_owned() });
    }
    Ok(read_project(&project, &recipes)?)
}

fn read_recipes(folder: &Utf8Path) -> Result<BTreeMap<String, Arc<Source>>, LoadError> {
    let path = folder.join("recipes");
    let failed = |source| LoadError::Read { path: path.clone(), source };
    let entries = match path.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut recipes = BTreeMap::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name().to_owned();
        let is_recipe = Utf8Path::new(&name).extension() == Some("toml") && !name.starts_with('.');
        if is_recipe && let Some(source) = read(folder, &format!("recipes/{name}"))? {
            recipes.insert(name, source);
        }
    }
    Ok(recipes)
}

/// A file of the project; `None` if there is none.
fn read(folder: &Utf8Path, name: &str) -> Result<Option<Arc<Source>>, LoadError> {
    let path = folder.join(name);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Read { path, source }),
    };
    decode_utf8(name, &bytes).map(Some).map_err(|problems| LoadError::Invalid(*problems))
}

pub(crate) fn decode_utf8(name: &str, bytes: &[u8]) -> Result<Arc<Source>, Box<Diagnostics>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let shown = valid.strip_prefix('\u{feff}').unwrap_or(&valid).len();
            let source = Source::new(name, &String::from_utf8_lossy(bytes));
            let place = Place::new(&source, shown..shown + 1);
            Err(Box::new(place.problem("the file is not UTF-8").into()))
        }
    }
}
