//! What can go wrong while an archive is read.

use std::io;

use camino::Utf8PathBuf;

use super::{Refusal, VisitError};
use crate::model::Cancelled;

/// Why an archive was not read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The artifact cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The artifact.
        path: Utf8PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The artifact's bytes cannot be had: a failing disk, not a bad archive.
    #[error("cannot read {path}")]
    Read {
        /// The artifact.
        path: Utf8PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The archive as a whole is refused.
    #[error("{archive}: {why}")]
    Refused {
        /// The artifact's file name.
        archive: String,
        /// What was expected and found.
        why: Refusal,
    },
    /// The archive is refused for one of its members.
    #[error("{archive}: `{member}`: {why}")]
    Member {
        /// The artifact's file name.
        archive: String,
        /// The member's name in the archive, fit to print.
        member: String,
        /// What was expected and found.
        why: Refusal,
    },
    /// The visitor failed.
    #[error(transparent)]
    Visitor(VisitError),
    /// The work was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl ArchiveError {
    /// Whether the archive itself is bad, rather than the disk, the visitor or the time.
    ///
    /// Exhaustive on purpose: a new variant must answer this question.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Member { .. } => true,
            Self::Open { .. } | Self::Read { .. } | Self::Visitor(_) | Self::Cancelled(_) => false,
        }
    }

    /// Next steps.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Refused { why, .. } | Self::Member { why, .. } => {
                vec![why.help().to_owned()]
            }
            Self::Open { .. } | Self::Read { .. } | Self::Visitor(_) | Self::Cancelled(_) => Vec::new(),
        }
    }
}

/// A failure on its way up, before it is known of which archive and member.
#[derive(Debug)]
pub(super) enum Fault {
    /// From the decompressor or from the file; [`super::input::Input`] knows which.
    Io(io::Error),
    /// The archive is bad.
    Refused(Refusal),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Why a member is not taken, before it is known which it is.
#[derive(Debug)]
pub(super) enum Halt {
    Refused(Refusal),
    Failed(ArchiveError),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ArchiveError> for Halt {
    fn from(error: ArchiveError) -> Self {
        Self::Failed(error)
    }
}

/// `name` fit to print: no control characters that a terminal would obey, and not endless.
pub(super) fn printable(name: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(name);
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            out.push_str("...");
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
