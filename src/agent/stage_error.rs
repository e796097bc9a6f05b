//! Why a release could not be made ready.

use camino::Utf8PathBuf;

use super::accounts::NoAccount;
use super::bundles::BundleError;
use super::error::io_kind;
use super::objects::ObjectError;
use super::service::ServiceError;
use super::trial::TestFailed;
use crate::fs::IoError;
use crate::model::{BundlePath, ByteSize, Digest, Role};
use crate::recipe::TemplateError;

/// Why a release could not be made ready. What runs is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The bundle is another role's.
    #[error("bundle {bundle} is of role {found}, not {wanted}")]
    Role {
        /// Which bundle.
        bundle: Digest,
        /// Whose it is.
        found: Role,
        /// Whose it should be.
        wanted: Role,
    },
    /// Not all of its files are here.
    #[error("{missing} of the {total} contents of bundle {bundle} are not on this node")]
    Incomplete {
        /// Which bundle.
        bundle: Digest,
        /// Contents that are not here.
        missing: usize,
        /// Contents in all.
        total: usize,
    },
    /// The disk is full, or would be.
    #[error("{path} has room for {} and {} more files; this takes {} and {files} files", ByteSize(*free), shown(*free_files), ByteSize(*bytes))]
    NoSpace {
        /// Where.
        path: Utf8PathBuf,
        /// Bytes that are wanted.
        bytes: u64,
        /// Inodes that are wanted.
        files: u64,
        /// Bytes that are free.
        free: u64,
        /// Inodes that are free.
        free_files: Option<u64>,
    },
    /// A template cannot be rendered.
    #[error("{path}: {error}")]
    Template {
        /// Which file of the bundle.
        path: BundlePath,
        /// Why not.
        error: TemplateError,
    },
    /// A template is no text.
    #[error("{path} is not UTF-8 text")]
    NotText {
        /// Which file of the bundle.
        path: BundlePath,
    },
    /// A template is not in the bundle.
    #[error("the bundle says that {path} is a template, and has no such file")]
    NoTemplate {
        /// Which file.
        path: BundlePath,
    },
    /// A persistent directory's name would lead elsewhere.
    #[error("`{name}` is no name of a persistent directory")]
    PersistName {
        /// As the bundle has it.
        name: String,
    },
    /// A persistent directory's link would hide a file.
    #[error("{path} of the bundle would be hidden by a persistent directory")]
    Hidden {
        /// Which file.
        path: BundlePath,
    },
    /// A hard link to nothing.
    #[error("{path} is another name of nothing")]
    Unresolved {
        /// Which entry.
        path: BundlePath,
    },
    /// The service cannot be rendered.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Its test fails.
    #[error(transparent)]
    Test(Box<TestFailed>),
    /// The service's user does not exist.
    #[error(transparent)]
    Account(#[from] NoAccount),
    /// See there.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// See there.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

fn shown(files: Option<u64>) -> String {
    files.map_or_else(|| "any number of".to_owned(), |files| files.to_string())
}

impl StageError {
    /// One word for programs; part of the protocol.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Incomplete { .. } | Self::Object(ObjectError::Absent(_)) => "incomplete",
            Self::NoSpace { .. } => "no-space",
            Self::Template { .. } | Self::NotText { .. } | Self::NoTemplate { .. } => "template",
            Self::Service(_) => "service",
            Self::Test(_) => "test",
            Self::Account(_) => "account",
            Self::Role { .. }
            | Self::PersistName { .. }
            | Self::Hidden { .. }
            | Self::Unresolved { .. }
            | Self::Bundle(_) => "bundle",
            Self::Object(ObjectError::Content { .. }) => "digest",
            Self::Object(ObjectError::Io(error)) | Self::Io(error) => io_kind(error),
        }
    }

    /// What a person might do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Incomplete { .. } | Self::Object(ObjectError::Content { .. } | ObjectError::Absent(_)) => {
                vec!["push the bundle again: what is here already is not sent again".to_owned()]
            }
            Self::NoSpace { .. } => vec!["`windlass node gc` removes old releases and objects".to_owned()],
            Self::Template { error, .. } => error.help.clone(),
            Self::Test(failed) => vec![format!("all that it said is on the node: {}", failed.log)],
            Self::Object(ObjectError::Io(error)) | Self::Io(error) => error.help(),
            Self::Role { .. }
            | Self::NotText { .. }
            | Self::NoTemplate { .. }
            | Self::PersistName { .. }
            | Self::Hidden { .. }
            | Self::Unresolved { .. }
            | Self::Service(_)
            | Self::Account(_)
            | Self::Bundle(_) => Vec::new(),
        }
    }
}
