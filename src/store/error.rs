//! Why the store cannot do what it was asked.

use camino::Utf8PathBuf;

use crate::bundle::{ManifestError, RecordError, TocError};
use crate::fs::IoError;
use crate::model::{Cancelled, Digest, Reference, Role};

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No store there.
    #[error("there is no store at {0}")]
    Absent(Utf8PathBuf),
    /// A file of the store is not what it should be.
    #[error("{path} is not valid")]
    Json {
        /// The file.
        path: Utf8PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The layout is another version's.
    #[error("{path} says OCI layout version `{found}`; expected `1.0.0`")]
    Layout {
        /// `oci-layout`.
        path: Utf8PathBuf,
        /// What it says.
        found: String,
    },
    /// No such bundle.
    #[error("the store has no bundle `{reference}`")]
    NoBundle {
        /// What was asked for.
        reference: Reference,
        /// Names like it.
        near: Vec<String>,
    },
    /// A blob that is named is not there.
    #[error("blob {digest} is missing from {dir}")]
    NoBlob {
        /// Its name.
        digest: Digest,
        /// Where it should be.
        dir: Utf8PathBuf,
    },
    /// A blob's content is not that of its name.
    #[error("blob {digest} is damaged: {what}")]
    Damaged {
        /// Its name.
        digest: Digest,
        /// What is wrong.
        what: String,
    },
    /// A manifest that is no bundle's.
    #[error("bundle {digest} cannot be read")]
    Manifest {
        /// Its name.
        digest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// A layer's table that cannot be read.
    #[error("layer {digest} cannot be read")]
    Toc {
        /// Its blob.
        digest: Digest,
        /// Why.
        source: TocError,
    },
    /// A folder to unpack into has something in it.
    #[error("{0} is not empty")]
    NotEmpty(Utf8PathBuf),
    /// The work was asked to stop.
    #[error(transparent)]
    Cancelled(Cancelled),
    /// Another content has that name already.
    #[error(
        "`{role}:{version}` is in the store already with another content ({found}; this build made {made})"
    )]
    Taken {
        /// The role.
        role: Role,
        /// The version.
        version: String,
        /// What the store has.
        found: Digest,
        /// What was built.
        made: Digest,
    },
}

impl StoreError {
    /// What to do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Io(error) => error.help(),
            Self::Absent(_) => vec!["`windlass build` makes one; run it in the project's folder".to_owned()],
            Self::Json { .. } | Self::Layout { .. } => {
                vec!["move out/ aside and build again; everything in it can be made again".to_owned()]
            }
            Self::NoBundle { near, .. } if !near.is_empty() => {
                vec![
                    format!("did you mean {}?", near.join(", ")),
                    "`windlass ls` lists all of them".to_owned(),
                ]
            }
            Self::NoBundle { .. } => vec!["`windlass ls` lists all of them".to_owned()],
            Self::Toc { source: TocError::Newer(_), .. }
            | Self::Manifest { source: ManifestError::Record(RecordError::Newer(_)), .. } => {
                vec!["it is not damaged, a newer windlass wrote it: upgrade this one".to_owned()]
            }
            Self::NoBlob { .. } | Self::Damaged { .. } | Self::Manifest { .. } | Self::Toc { .. } => vec![
                "`windlass verify` names everything that is wrong".to_owned(),
                "`windlass build` makes missing blobs again".to_owned(),
            ],
            Self::NotEmpty(_) => vec!["name a folder that is empty or not there yet".to_owned()],
            Self::Cancelled(_) => Vec::new(),
            Self::Taken { .. } => vec![
                "a version never changes its content: raise the version in the recipe".to_owned(),
                "or end it in `-{{ build }}`, which counts by itself".to_owned(),
            ],
        }
    }

    /// The blob that is at fault.
    pub fn blob(&self) -> Option<Digest> {
        match self {
            Self::NoBlob { digest, .. }
            | Self::Damaged { digest, .. }
            | Self::Manifest { digest, .. }
            | Self::Toc { digest, .. } => Some(*digest),
            Self::Io(_)
            | Self::Cancelled(_)
            | Self::Absent(_)
            | Self::Json { .. }
            | Self::Layout { .. }
            | Self::NoBundle { .. }
            | Self::NotEmpty(_)
            | Self::Taken { .. } => None,
        }
    }

    /// Whether what was given is at fault, rather than the machine.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NoBundle { .. } | Self::NotEmpty(_) | Self::Taken { .. } | Self::Absent(_) => true,
            Self::Io(_)
            | Self::Cancelled(_)
            | Self::Json { .. }
            | Self::Layout { .. }
            | Self::NoBlob { .. }
            | Self::Damaged { .. }
            | Self::Manifest { .. }
            | Self::Toc { .. } => false,
        }
    }
}
