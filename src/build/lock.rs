//! windlass.lock against what is in `install/`.

use crate::model::{BundlePath, ByteSize, Digest};
use crate::recipe::{Lock, Locked};

/// An artifact and its entry in windlass.lock do not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockMismatch {
    /// Another content than was recorded.
    #[error(
        "install/{name} is not the file that windlass.lock records: expected {expected} ({expected_size}), found {found} ({found_size})"
    )]
    Differs {
        /// The artifact.
        name: BundlePath,
        /// Recorded.
        expected: Digest,
        /// Recorded.
        expected_size: ByteSize,
        /// In `install/`.
        found: Digest,
        /// In `install/`.
        found_size: ByteSize,
    },
    /// `--locked`, and no entry.
    #[error("install/{name} is not in windlass.lock")]
    Unrecorded {
        /// The artifact.
        name: BundlePath,
    },
}

impl LockMismatch {
    /// What to do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Differs { name, .. } => vec![
                "put the recorded file back, or look into why it changed".to_owned(),
                format!("`windlass lock --update {name}` accepts the file as it is now"),
            ],
            Self::Unrecorded { .. } => {
                vec![
                    "run `windlass lock` and commit windlass.lock; --locked adds nothing by itself"
                        .to_owned(),
                ]
            }
        }
    }
}

/// Checks an artifact against its entry; `true` when it has none yet and may be added.
pub(super) fn check(
    lock: &Lock,
    name: &BundlePath,
    found: Locked,
    locked: bool,
) -> Result<bool, LockMismatch> {
    match lock.get(name.as_str()) {
        Some(expected) if expected == found => Ok(false),
        Some(expected) => Err(LockMismatch::Differs {
            name: name.clone(),
            expected: expected.digest,
            expected_size: ByteSize(expected.size),
            found: found.digest,
            found_size: ByteSize(found.size),
        }),
        None if locked => Err(LockMismatch::Unrecorded { name: name.clone() }),
        None => Ok(true),
    }
}
