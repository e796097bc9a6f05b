//! Which members of an artifact are taken, and where they go.

use std::fmt;
use std::str::FromStr;

use super::Globs;
use crate::model::BundlePath;

/// How many leading components a member's path loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strip {
    /// One, if the archive has exactly one top entry and that is a directory; else none.
    #[default]
    Auto,
    /// So many; members with no more components than that vanish.
    Count(u32),
}

/// Why a text is no number of components.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no number of path components; expected \"auto\", 0, 1, 2, ...")]
pub struct StripError(String);

impl FromStr for Strip {
    type Err = StripError;

    fn from_str(text: &str) -> Result<Self, StripError> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Count).map_err(|_| StripError(number.to_owned())),
        }
    }
}

impl fmt::Display for Strip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// Which members are taken, and where they go.
///
/// Globs see the path after `strip` and below `into`. What they leave out is not checked for
/// conflicts and links either, so a recipe can leave out the one member that is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Leading components that paths lose.
    pub strip: Strip,
    /// Only what these match is taken; with none, everything is.
    pub include: Globs,
    /// What these match is left out, whatever `include` says.
    pub exclude: Globs,
    /// Whether files keep their setuid and setgid bits.
    pub keep_setuid: bool,
    /// The directory of the bundle that the members will be put into; `None` is its root.
    ///
    /// It decides how many `..` a symlink may have. A visitor gets paths below it.
    pub into: Option<BundlePath>,
}

/// What an archive may cost.
///
/// Besides, no archive may unpack to more than 1000 times its size (once past 1 MiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all its files together, taken or not.
    pub max_unpacked: u64,
}
