//! Names of roles, versions and nodes, and references to bundles.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Digest, DigestError};

/// What a node runs: `[a-z0-9]` first, then `[a-z0-9_-]`, at most 64 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Role(String);

/// A bundle's version. An OCI tag: `[A-Za-z0-9_]` first, then `[A-Za-z0-9_.-]`, at most 128 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Version(String);

/// A node's name: `[A-Za-z0-9]` first, then `[A-Za-z0-9_.-]`, at most 64 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeName(String);

/// Why a text is no name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}; expected {expected}")]
pub struct NameError {
    text: String,
    kind: &'static str,
    expected: &'static str,
}

fn fits(text: &str, max: usize, first: impl Fn(u8) -> bool, rest: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    text.len() <= max && bytes.next().is_some_and(&first) && bytes.all(|b| first(b) || rest(b))
}

macro_rules! name {
    ($type:ident, $kind:literal, $expected:literal, $max:literal, $first:expr, $rest:expr) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if fits(text, $max, $first, $rest) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { text: text.to_owned(), kind: $kind, expected: $expected })
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

name!(
    Role,
    "role",
    "a lower-case letter or digit, then lower-case letters, digits, `-` and `_`, at most 64",
    64,
    |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit(),
    |b: u8| b == b'-' || b == b'_'
);
name!(
    Version,
    "version",
    "a letter, digit or `_`, then letters, digits, `_`, `.` and `-`, at most 128",
    128,
    |b: u8| b.is_ascii_alphanumeric() || b == b'_',
    |b: u8| b == b'.' || b == b'-'
);
name!(
    NodeName,
    "node",
    "a letter or digit, then letters, digits, `_`, `.` and `-`, at most 64",
    64,
    |b: u8| b.is_ascii_alphanumeric(),
    |b: u8| b == b'.' || b == b'-' || b == b'_'
);

/// How a person names a bundle: `role:version`, `role` (its newest) or `sha256:...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// One role at one version.
    Tagged(Role, Version),
    /// The newest bundle of a role.
    Newest(Role),
    /// A manifest's digest.
    Digest(Digest),
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The part before or after the colon is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It starts as a digest and is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.starts_with("sha256:") {
            return Ok(Self::Digest(text.parse()?));
        }
        Ok(match text.split_once(':') {
            Some((role, version)) => Self::Tagged(role.parse()?, version.parse()?),
            None => Self::Newest(text.parse()?),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tagged(role, version) => write!(f, "{role}:{version}"),
            Self::Newest(role) => write!(f, "{role}"),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!("elasticsearch-hot".parse::<Role>().is_ok());
        assert!("-x".parse::<Role>().is_err());
        assert!("Kafka".parse::<Role>().is_err());
        assert!("6.7.0-1".parse::<Version>().is_ok());
        assert!("6.7.0+1".parse::<Version>().is_err());
        assert_eq!("kafka:2.1.1-3".parse::<Reference>().unwrap().to_string(), "kafka:2.1.1-3");
        assert!("sha256:12".parse::<Reference>().is_err());
    }
}
