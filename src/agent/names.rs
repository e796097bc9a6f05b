//! Names of releases.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::Version;

/// A release on one node: `<n>-<version>`, where `n` counts the role's releases on that node from 1.
///
/// A number is never used again, so that a name means one content for ever. Order is that of the numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseName {
    number: u64,
    version: Version,
}

/// Why a text is no release's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a release; expected a number, `-` and a version, as in `3-6.7.0-1`")]
pub struct ReleaseNameError(String);

impl ReleaseName {
    /// The `number`th release, of `version`.
    pub fn new(number: u64, version: Version) -> Self {
        Self { number, version }
    }

    /// Which one of its role on its node.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Of the bundle it was made from.
    pub fn version(&self) -> &Version {
        &self.version
    }
}

impl fmt::Display for ReleaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.number, self.version))
    }
}

impl fmt::Debug for ReleaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReleaseName {
    type Err = ReleaseNameError;

    fn from_str(text: &str) -> Result<Self, ReleaseNameError> {
        let wrong = || ReleaseNameError(text.to_owned());
        let (number, version) = text.split_once('-').ok_or_else(wrong)?;
        let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        Ok(Self { number, version: version.parse().map_err(|_| wrong())? })
    }
}

impl Serialize for ReleaseName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReleaseName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_sort_by_number() {
        let name: ReleaseName = "12-6.7.0-1".parse().unwrap();
        assert_eq!(
            (name.number(), name.version().as_str(), name.to_string().as_str()),
            (12, "6.7.0-1", "12-6.7.0-1")
        );
        assert!("9-z".parse::<ReleaseName>().unwrap() < "10-a".parse().unwrap());
        for text in ["", "1", "x-1", "-1", "01-1", "0-1", "+1-1", "1-../x", "1-"] {
            assert!(text.parse::<ReleaseName>().is_err(), "{text}");
        }
    }
}
