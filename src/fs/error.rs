//! I/O errors that always name the path.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};

/// An I/O failure, with what was tried and on which path.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {path}")]
pub struct IoError {
    /// What was tried, as in `could not <action> <path>`.
    pub action: &'static str,
    /// On what.
    pub path: Utf8PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl IoError {
    /// What was tried on which path, and what the system said.
    pub fn new(action: &'static str, path: &Utf8Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }

    /// What a person might do about it.
    pub fn help(&self) -> Vec<String> {
        let advice = match self.source.kind() {
            io::ErrorKind::StorageFull => "free some space on that disk (`windlass gc` removes old bundles)",
            io::ErrorKind::QuotaExceeded => "the user's disk quota is used up",
            io::ErrorKind::PermissionDenied => {
                "check the owner and mode of the path and the folders above it"
            }
            io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only",
            _ if self.source.raw_os_error() == Some(24) => "raise the limit of open files (`ulimit -n`)",
            _ => return Vec::new(),
        };
        vec![advice.to_owned()]
    }
}

/// Adds the path to an I/O error.
pub trait IoResultExt<T> {
    /// Says what was tried on which path.
    fn at(self, action: &'static str, path: &Utf8Path) -> Result<T, IoError>;
}

impl<T, E: Into<io::Error>> IoResultExt<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Utf8Path) -> Result<T, IoError> {
        self.map_err(|source| IoError::new(action, path, source))
    }
}
