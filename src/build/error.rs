//! What can go wrong while bundles are made.

use std::io;
use std::sync::Arc;

use super::lock::LockMismatch;
use crate::archive::ArchiveError;
use crate::bundle::{ManifestError, RecordError, TreeError};
use crate::fs::IoError;
use crate::model::{BundlePath, Cancelled, Digest, PathError, Role};
use crate::recipe::{Diagnostic, Diagnostics};
use crate::store::StoreError;

/// Why a layer could not be made from its entries.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// Ctrl-C or another request to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The store's disk.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Where the entries come from.
    #[error("could not read the content")]
    Read(#[source] io::Error),
    /// libzstd.
    #[error("could not compress")]
    Compress(#[source] io::Error),
    /// `into` and the entry's path together make no path.
    #[error("`{path}` cannot stand where the recipe puts it: {error}")]
    Path {
        /// The entry's.
        path: String,
        /// Why not.
        error: PathError,
    },
    /// Names that OCI gives another meaning.
    #[error("`{path}` would delete files in an OCI layer: names that start with `.wh.` are whiteouts there")]
    Whiteout {
        /// The entry's.
        path: String,
    },
    /// More than this machine can address.
    #[error("a file is too large for this machine")]
    TooLarge,
    /// Another thread met it.
    #[error(transparent)]
    Elsewhere(Arc<WorkError>),
    /// An invariant of the engine does not hold.
    #[error("internal error: {0}")]
    Bug(&'static str),
}

impl WorkError {
    /// Whether what was given is at fault, rather than the machine or the time.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Path { .. } | Self::Whiteout { .. } => true,
            Self::Elsewhere(error) => error.is_refusal(),
            Self::Cancelled(_)
            | Self::Io(_)
            | Self::Read(_)
            | Self::Compress(_)
            | Self::TooLarge
            | Self::Bug(_) => false,
        }
    }

    /// The disk's failure, if that is what it is.
    pub fn io(&self) -> Option<&IoError> {
        match self {
            Self::Io(error) => Some(error),
            Self::Elsewhere(error) => error.io(),
            _ => None,
        }
    }

    /// Whether it is a request to stop.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled(_) => true,
            Self::Elsewhere(error) => error.is_cancelled(),
            _ => false,
        }
    }
}

/// Why a build failed. Nothing was changed in the store then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Ctrl-C or another request to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Recipes, conf or `install/` do not fit together.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
    /// An artifact cannot be unpacked.
    #[error(transparent)]
    Archive(ArchiveError),
    /// An artifact differs from windlass.lock, or is not in it.
    #[error(transparent)]
    Lock(#[from] LockMismatch),
    /// An artifact changed while it was read.
    #[error("install/{name} changed while it was being read")]
    Changed {
        /// The artifact.
        name: BundlePath,
    },
    /// A layer could not be made.
    #[error("could not make the layer of {what}")]
    Work {
        /// The artifact or conf.
        what: String,
        /// Why.
        source: WorkError,
    },
    /// A role's layers do not fit over each other.
    #[error("the layers of role {role} do not fit together: {error}")]
    Tree {
        /// The role.
        role: Role,
        /// What does not fit.
        error: TreeError,
        /// What each layer is made from.
        layers: Vec<String>,
    },
    /// The manifest could not be composed.
    #[error("could not compose the manifest of role {role}")]
    Manifest {
        /// The role.
        role: Role,
        /// Why.
        source: ManifestError,
    },
    /// The record could not be written.
    #[error("could not write the record of role {role}")]
    Record {
        /// The role.
        role: Role,
        /// Why.
        source: RecordError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The threads could not be started.
    #[error("could not start {jobs} threads")]
    Threads {
        /// How many.
        jobs: usize,
        /// Why.
        source: rayon::ThreadPoolBuildError,
    },
    /// A layer that the build relied on is gone.
    #[error("layer {0} was removed from the store during the build")]
    Vanished(Digest),
    /// An invariant of the engine does not hold.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<Diagnostic> for BuildError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Invalid(diagnostic.into())
    }
}

impl From<ArchiveError> for BuildError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Archive(other),
        }
    }
}

impl BuildError {
    /// Whether what was given is at fault (exit 2), rather than the machine (exit 1).
    ///
    /// Exhaustive on purpose: a new variant must answer this question.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::Lock(_) | Self::Tree { .. } => true,
            Self::Archive(error) => error.is_refusal(),
            Self::Work { source, .. } => source.is_refusal(),
            Self::Store(error) => error.is_refusal(),
            Self::Cancelled(_)
            | Self::Changed { .. }
            | Self::Manifest { .. }
            | Self::Record { .. }
            | Self::Io(_)
            | Self::Threads { .. }
            | Self::Vanished(_)
            | Self::Internal(_) => false,
        }
    }

    /// Whether it is a request to stop.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled(_) => true,
            Self::Work { source, .. } => source.is_cancelled(),
            _ => false,
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Archive(error) => error.help(),
            Self::Lock(error) => error.help(),
            Self::Store(error) => error.help(),
            Self::Io(error) => error.help(),
            Self::Work { source, .. } => source.io().map(IoError::help).unwrap_or_default(),
            Self::Changed { .. } | Self::Vanished(_) => vec!["run the build again".to_owned()],
            Self::Tree { layers, .. } => {
                let named = layers.iter().enumerate().map(|(index, what)| format!("layer {index} is {what}"));
                named
                    .chain(["`exclude` in the recipe leaves out what should not be there".to_owned()])
                    .collect()
            }
            Self::Threads { .. } => vec!["ask for fewer with --jobs".to_owned()],
            Self::Cancelled(_)
            | Self::Invalid(_)
            | Self::Manifest { .. }
            | Self::Record { .. }
            | Self::Internal(_) => Vec::new(),
        }
    }
}
