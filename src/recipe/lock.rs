//! windlass.lock: the digest and size of every artifact in use, so that a build is the same anywhere.
//!
//! # Invariants
//!
//! * Entries are sorted by name, so that two people who add artifacts rarely meet in one hunk.
//! * The same entries are always the same bytes: [`Lock::to_text`] of what [`Lock::parse`] read from it.
//! * Changing the format bumps the schema; a newer one is refused with advice.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::diagnostic::Diagnostics;
use super::place::{Place, Source};
use super::reader::{Fields, Problems, check_schema};
use super::tree::{Table, parse};
use crate::model::Digest;

/// What is known of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Of the file as the vendor ships it.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The artifacts in use, by their path below `install/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock(BTreeMap<String, Locked>);

const HEAD: &str = "# Written by `windlass lock`; commit it.\nschema = 1\n";

impl Lock {
    /// The file's name in the project's folder.
    pub const FILE: &'static str = "windlass.lock";

    /// A lock of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a lock file's text.
    pub fn parse(text: &str) -> Result<Self, Diagnostics> {
        let source = Source::new(Self::FILE, text);
        if let Some(at) = source.text().lines().position(|line| line.starts_with("<<<<<<<")) {
            let start = source.text().split_inclusive('\n').take(at).map(str::len).sum();
            return Err(Place::new(&source, start..start + 7)
                .problem("windlass.lock holds a merge conflict")
                .help("keep the entries of both sides and remove the markers")
                .help("then run `windlass lock`")
                .into());
        }
        let problems = Problems::default();
        let mut lock = Self::default();
        match parse(&source) {
            Ok(table) => lock.read(&table, &problems),
            Err(errors) => problems.extend(errors),
        }
        problems.finish()?;
        Ok(lock)
    }

    fn read(&mut self, table: &Table, problems: &Problems) {
        if !check_schema(table, Self::FILE, problems) {
            return;
        }
        let fields = Fields::new(table, Self::FILE, &["schema", "artifact"], problems);
        let mut places: BTreeMap<&str, &Place> = BTreeMap::new();
        for table in fields.tables("artifact") {
            let fields = Fields::new(table, "[[artifact]]", &["name", "sha256", "size"], problems);
            let name = fields.require("name", "\"<file>\"").and_then(|node| node.string("name", problems));
            let digest = fields.require("sha256", "\"<64 hex digits>\"").and_then(|node| {
                let text = node.string("sha256", problems)?;
                let hex = text.strip_prefix("sha256:").unwrap_or(text);
                let read = Digest::from_hex(hex).map_err(|_| "`sha256` must be 64 lower-case hex digits");
                problems.accept(&node.place, read)
            });
            let size = fields
                .require("size", "<bytes>")
                .and_then(|node| node.integer("size", 0, u64::MAX.into(), problems))
                .and_then(|size| u64::try_from(size).ok());
            let (Some(name), Some(digest), Some(size)) = (name, digest, size) else { continue };
            let place = fields.node("name").map_or(fields.place(), |node| &node.place);
            if let Some(first) = places.insert(name, place) {
                let problem = place.problem(format!("there are two entries for `{name}`"));
                problems.add(problem.help(format!("the first is at {first}")));
            }
            self.insert(name, digest, size);
        }
    }

    /// The file's text: TOML, sorted by name, LF at each line's end.
    pub fn to_text(&self) -> String {
        let mut out = HEAD.to_owned();
        for (name, Locked { digest, size }) in &self.0 {
            let name = toml::Value::from(name.as_str());
            let hex = digest.hex();
            // Writing to a String cannot fail.
            let _ = write!(out, "\n[[artifact]]\nname = {name}\nsha256 = \"{hex}\"\nsize = {size}\n");
        }
        out
    }

    /// What is known of the artifact `name`.
    pub fn get(&self, name: &str) -> Option<Locked> {
        self.0.get(name).copied()
    }

    /// Records an artifact; gives what was known of it before.
    pub fn insert(&mut self, name: &str, digest: Digest, size: u64) -> Option<Locked> {
        self.0.insert(name.to_owned(), Locked { digest, size })
    }

    /// Forgets an artifact.
    pub fn remove(&mut self, name: &str) -> Option<Locked> {
        self.0.remove(name)
    }

    /// Every artifact, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Locked)> {
        self.0.iter().map(|(name, locked)| (name.as_str(), *locked))
    }

    /// How many artifacts there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
