//! The globs of recipes: one syntax for artifacts and conf, as gitignore has it less the negation.
//!
//! `*` and `?` stay within a directory, `**` crosses directories, `{a,b}` is either.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Bytes that a pattern may have.
const LONGEST: usize = 1000;

/// Compiles `patterns`, which match paths relative to the archive's or conf directory's top.
///
/// An empty list matches nothing. Patterns of a [`super::Spec`] fail only if they are absurdly large
/// together.
pub fn glob_set(patterns: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(compile(pattern)?);
    }
    set.build()
}

fn compile(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()
}

/// Why `pattern` is no glob, or can never match.
pub(super) fn check_glob(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("it is empty".to_owned());
    }
    if pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
        return Err("paths are relative and have no `..`, so it can never match".to_owned());
    }
    if pattern.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    // Not `glob_set`: that compiles a regex, which takes longer than reading all of the recipe.
    compile(pattern).map(|_| ()).map_err(|error| error.kind().to_string())
}
