//! Paths inside a bundle.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// A path inside a bundle: UTF-8, relative, `/` between components, none of them empty, `.` or `..`.
///
/// At most 4,095 bytes (`PATH_MAX` less the NUL), each component at most 255 (`NAME_MAX`).
/// Order is that of the bytes, so a directory comes before what is in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BundlePath(String);

/// Why a text is no path inside a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Nothing is left after removing `.` components.
    #[error("the path is empty")]
    Empty,
    /// It starts with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// A component is `..`.
    #[error("the path has a `..` component")]
    Parent,
    /// It holds a NUL byte.
    #[error("the path holds a NUL byte")]
    Nul,
    /// It or a component is too long for a file system.
    #[error("the path is longer than 4095 bytes, or a component is longer than 255")]
    TooLong,
}

impl BundlePath {
    /// Takes a text that is a path in its plain form; gives back any other.
    pub fn plain(text: String) -> Result<Self, String> {
        let plain = |component: &[u8]| !matches!(component, b"" | b"." | b"..") && component.len() <= 255;
        let bytes = text.as_bytes();
        if bytes.len() <= 4095 && !bytes.contains(&0) && bytes.split(|byte| *byte == b'/').all(plain) {
            Ok(Self(text))
        } else {
            Err(text)
        }
    }

    /// Checks `text`, dropping `.` components and doubled or trailing slashes.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.contains('\0') {
            return Err(PathError::Nul);
        }
        let mut out = String::with_capacity(text.len());
        for component in text.split('/') {
            match component {
                "" | "." => continue,
                ".." => return Err(PathError::Parent),
                _ => {}
            }
            if component.len() > 255 {
                return Err(PathError::TooLong);
            }
            if !out.is_empty() {
                out.push('/');
            }
            out.push_str(component);
        }
        if out.is_empty() {
            return Err(PathError::Empty);
        }
        if out.len() > 4095 {
            return Err(PathError::TooLong);
        }
        Ok(Self(out))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that holds it; `None` at the top.
    pub fn parent(&self) -> Option<BundlePath> {
        self.above().map(|parent| Self(parent.to_owned()))
    }

    /// The directory that holds it, as text; `None` at the top.
    pub fn above(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(above, _)| above)
    }

    /// Every directory above it, the topmost first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// The components, from the top.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// `other` below this path.
    pub fn join(&self, other: &BundlePath) -> Result<BundlePath, PathError> {
        Self::new(&format!("{}/{}", self.0, other.0))
    }

    /// Whether it is `other` or below it.
    pub fn starts_with(&self, other: &BundlePath) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for BundlePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BundlePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for BundlePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(&text).map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_and_refuses() {
        assert_eq!(BundlePath::new("./a//b/").unwrap().as_str(), "a/b");
        assert_eq!(BundlePath::new("/a"), Err(PathError::Absolute));
        assert_eq!(BundlePath::new("a/../b"), Err(PathError::Parent));
        assert_eq!(BundlePath::new("./"), Err(PathError::Empty));
        assert_eq!(BundlePath::new(&"x".repeat(256)), Err(PathError::TooLong));
        for text in ["a", "a/b", "a/..b/.c", &format!("{}/x", "x".repeat(255))] {
            assert_eq!(BundlePath::plain(text.to_owned()), Ok(BundlePath::new(text).unwrap()));
        }
        for text in
            ["", "/a", "a/", "a//b", "./a", "a/.", "a/../b", "a\0", &"x".repeat(256), &"x/".repeat(2048)]
        {
            assert_eq!(BundlePath::plain(text.to_owned()), Err(text.to_owned()));
        }
        let path = BundlePath::new("a/b/c").unwrap();
        assert_eq!((path.above(), BundlePath::new("a").unwrap().above()), (Some("a/b"), None));
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(path.name(), "c");
        assert!(path.starts_with(&BundlePath::new("a/b").unwrap()));
        assert!(!path.starts_with(&BundlePath::new("a/bc").unwrap()));
    }
}
