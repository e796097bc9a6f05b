//! A vendor's version of a product, as far as versions are compared: `6.7.0`, `8.0.0-rc1`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A vendor's version. Ones that differ after the `-` are ordered by that text, and all of them stand before the
/// one without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductVersion {
    /// The first number.
    pub major: u64,
    /// The second; 0 where there is none.
    pub minor: u64,
    /// The third; 0 where there is none.
    pub patch: u64,
    /// What stands after a `-`.
    pub pre: Option<String>,
}

impl ProductVersion {
    /// The numbers that a text begins with, of a name as well as of a version: `7.17`, `2.11.1-SNAPSHOT`,
    /// `6.7.0.tar.gz`; without what comes after them. `None` where no number comes first.
    pub fn leading(text: &str) -> Option<Self> {
        let mut numbers = text.split(['.', '-', '+', '_']).map(str::parse::<u64>);
        let major = numbers.next()?.ok()?;
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Self { major, minor: next(), patch: next(), pre: None })
    }

    /// The numbers of `product` in a bundle: what the recipe names, or else what an artifact is called.
    pub fn in_bundle<'a>(
        product: &str,
        versions: &BTreeMap<String, String>,
        mut artifacts: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let named = versions.get(product).and_then(|text| Self::leading(text));
        named.or_else(|| {
            artifacts.find_map(|name| {
                let name = name.rsplit('/').next().unwrap_or(name);
                Self::leading(name.strip_prefix(product)?.strip_prefix('-')?)
            })
        })
    }

    /// Major and minor.
    pub fn line(&self) -> (u64, u64) {
        (self.major, self.minor)
    }
}

impl FromStr for ProductVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre.to_owned())),
            None => (text, None),
        };
        let mut parts = numbers.split('.').map(|part| part.parse::<u64>().map_err(drop));
        let major = parts.next().ok_or(())??;
        let minor = parts.next().transpose()?.unwrap_or(0);
        let patch = parts.next().transpose()?.unwrap_or(0);
        match parts.next() {
            Some(_) => Err(()),
            None => Ok(Self { major, minor, patch, pre }),
        }
    }
}

impl Ord for ProductVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |one: &Self| (one.major, one.minor, one.patch);
        numbers(self).cmp(&numbers(other)).then_with(|| match (&self.pre, &other.pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(other)) => one.cmp(other),
        })
    }
}

impl PartialOrd for ProductVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ProductVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        match &self.pre {
            Some(pre) => write!(f, "-{pre}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ProductVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        let sorted = ["6.4.2", "6.7.0", "6.10", "7.17.0", "7.17.28", "8.0.0-rc1", "8.0.0", "8.18"];
        for pair in sorted.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("8.18"), version("v8.18.0"));
        assert_eq!(ProductVersion::leading("2.11.1-SNAPSHOT"), Some(version("2.11.1")));
        assert_eq!(ProductVersion::leading("6.7.0.tar.gz"), Some(version("6.7.0")));
        assert_eq!(ProductVersion::leading("latest"), None);
        for wrong in ["", "x", "1.2.3.4", "1..2", "-1"] {
            assert!(wrong.parse::<ProductVersion>().is_err(), "{wrong}");
        }
    }
}
