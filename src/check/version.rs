//! Versions of products, as far as lints care: numbers with dots.

use std::collections::BTreeMap;
use std::fmt;

/// The first three numbers of a product's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProductVersion(pub u32, pub u32, pub u32);

impl ProductVersion {
    /// Reads `6.7.0`, `7.17`, `2.11.1-SNAPSHOT`; `None` where no number comes first.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(['.', '-', '+', '_']).map(str::parse::<u32>);
        let first = numbers.next()?.ok()?;
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Self(first, next(), next()))
    }

    /// The version of `product` in a bundle: what the recipe names, or else what an artifact is called.
    pub fn of<'a>(
        product: &str,
        versions: &BTreeMap<String, String>,
        artifacts: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        if let Some(found) = versions.get(product).and_then(|text| Self::parse(text)) {
            return Some(found);
        }
        let mut artifacts = artifacts;
        artifacts.find_map(|name| {
            let name = name.rsplit('/').next().unwrap_or(name);
            Self::parse(name.strip_prefix(product)?.strip_prefix('-')?)
        })
    }
}

impl fmt::Display for ProductVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}
