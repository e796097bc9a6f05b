//! The globs of `include` and `exclude`.
//!
//! A glob that matches a directory covers all below it, so `modules/x-pack-ml` and
//! `modules/x-pack-ml/**` mean the same. `*` does not match a `/`, `**` does.

use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Globs over paths inside an artifact, in the order written.
#[derive(Clone, Default)]
pub struct Globs {
    written: Vec<String>,
    set: GlobSet,
}

/// Why a text is no glob over paths inside an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{glob}` is not a glob for paths inside an artifact: {why}")]
pub struct GlobError {
    /// The glob as written.
    pub glob: String,
    /// What is wrong with it.
    pub why: String,
}

impl Globs {
    /// Checks and compiles globs.
    pub fn new(written: Vec<String>) -> Result<Self, GlobError> {
        let mut set = GlobSetBuilder::new();
        for glob in &written {
            let wrong = |why: String| GlobError { glob: glob.clone(), why };
            let pattern = normal(glob).map_err(|why| wrong(why.to_owned()))?;
            let compiled = GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| wrong(error.kind().to_string()))?;
            set.add(compiled);
        }
        let set = set.build().map_err(|error| GlobError {
            glob: error.glob().unwrap_or("?").to_owned(),
            why: error.kind().to_string(),
        })?;
        Ok(Self { written, set })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// The globs as written.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// The indices of the globs that match `path` itself.
    pub(super) fn matching(&self, path: &str, into: &mut Vec<usize>) {
        self.set.matches_into(path, into);
    }
}

/// The glob without what changes nothing: `./` before, `/` or `/**` after.
fn normal(glob: &str) -> Result<&str, &'static str> {
    let mut rest = glob;
    while let Some(shorter) = rest.strip_prefix("./") {
        rest = shorter;
    }
    if rest.starts_with('/') {
        return Err("it is absolute; paths start below the directory that `strip` removes");
    }
    while let Some(shorter) = rest.strip_suffix('/').or_else(|| rest.strip_suffix("/**")) {
        rest = shorter;
    }
    if rest.split('/').any(|component| component == "..") {
        return Err("it has a `..` component");
    }
    if rest.is_empty() { Err("it is empty") } else { Ok(rest) }
}

impl fmt::Debug for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.written, f)
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Globs {}

/// Which globs match, asked path by path; remembers which ever did.
#[derive(Debug)]
pub struct Matcher<'a> {
    globs: &'a Globs,
    ever: Vec<bool>,
    hits: Vec<usize>,
    /// The last directory asked about, and whether it is covered: neighbours share it.
    directory: Option<(String, bool)>,
}

impl<'a> Matcher<'a> {
    /// Nothing was asked yet.
    pub fn new(globs: &'a Globs) -> Self {
        Self { globs, ever: vec![false; globs.written.len()], hits: Vec::new(), directory: None }
    }

    /// Whether a glob matches `path` or a directory above it.
    pub fn covers(&mut self, path: &str) -> bool {
        if self.globs.is_empty() {
            return false;
        }
        // Not short-circuited: every glob that matches has to be remembered.
        let own = self.matches(path);
        let Some((directory, _)) = path.rsplit_once('/') else { return own };
        if let Some((known, covered)) = &self.directory
            && known == directory
        {
            return own || *covered;
        }
        let mut covered = false;
        for (at, _) in path.match_indices('/') {
            covered |= self.matches(&path[..at]);
        }
        self.directory = Some((directory.to_owned(), covered));
        own || covered
    }

    fn matches(&mut self, path: &str) -> bool {
        self.globs.matching(path, &mut self.hits);
        for hit in &self.hits {
            if let Some(ever) = self.ever.get_mut(*hit) {
                *ever = true;
            }
        }
        !self.hits.is_empty()
    }

    /// The globs that never matched, as written.
    pub fn unmatched(&self) -> impl Iterator<Item = &'a str> {
        let globs: &'a Globs = self.globs;
        globs.written.iter().zip(self.ever.clone()).filter(|(_, ever)| !ever).map(|(glob, _)| glob.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(glob: &str, path: &str) -> bool {
        let globs = Globs::new(vec![glob.to_owned()]).unwrap();
        Matcher::new(&globs).covers(path)
    }

    #[test]
    fn a_directory_covers_what_is_below() {
        for glob in ["modules/ml", "modules/ml/", "modules/ml/**", "./modules/ml", "modules/*l", "**/ml"] {
            for path in ["modules/ml", "modules/ml/a", "modules/ml/a/b"] {
                assert!(covers(glob, path), "{glob} {path}");
            }
            assert!(!covers(glob, "modules/mlx"), "{glob}");
            assert!(!covers(glob, "modules"), "{glob}");
        }
        assert!(covers("**", "a"));
        assert!(covers("**/*.txt", "a.txt"));
        assert!(covers("*.txt", "a.txt"));
        assert!(!covers("*.txt", "a/b.txt"));
        assert!(covers("{a,b}/c", "b/c"));
    }

    #[test]
    fn bad_globs_are_named() {
        for (glob, why) in [
            ("/a", "it is absolute; paths start below the directory that `strip` removes"),
            ("a/../b", "it has a `..` component"),
            ("", "it is empty"),
            ("./", "it is empty"),
        ] {
            let error = Globs::new(vec!["ok".into(), glob.into()]).unwrap_err();
            assert_eq!((&*error.glob, &*error.why), (glob, why));
        }
        insta::assert_snapshot!(
            Globs::new(vec!["a[".into()]).unwrap_err(),
            @"`a[` is not a glob for paths inside an artifact: unclosed character class; missing ']'"
        );
    }

    #[test]
    fn remembers_what_never_matched() {
        let globs = Globs::new(vec!["a".into(), "b/**".into(), "c".into()]).unwrap();
        let mut matcher = Matcher::new(&globs);
        assert!(matcher.covers("b/x"));
        assert!(matcher.covers("b/y"));
        assert!(matcher.covers("c"));
        assert_eq!(matcher.unmatched().collect::<Vec<_>>(), ["a"]);
    }
}
