//! What can go wrong while layers are made.

use std::io;
use std::sync::Arc;

use crate::fs::IoError;
use crate::model::{Cancelled, PathError};

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
