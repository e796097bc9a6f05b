//! What differs between two bundles' trees.

use std::collections::BTreeSet;

use crate::bundle::{Entry, Node, Tree};

/// Files larger than this are not shown as text.
const MAX_TEXT: u64 = 1 << 20;

/// What differs, in path order. Directories are left out; what is in them speaks for them.
#[derive(Debug, Default)]
pub struct TreeDiff<'a> {
    /// Only in the second.
    pub added: Vec<(usize, &'a Entry)>,
    /// Only in the first.
    pub removed: Vec<(usize, &'a Entry)>,
    /// In both, but not the same.
    pub changed: Vec<Change<'a>>,
    /// The same in both.
    pub unchanged: usize,
}

/// A path that differs.
#[derive(Debug)]
pub struct Change<'a> {
    /// Layer and entry in the first.
    pub from: (usize, &'a Entry),
    /// Layer and entry in the second.
    pub to: (usize, &'a Entry),
    /// What differs.
    pub what: ContentChange,
}

/// What differs at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentChange {
    /// The bytes.
    Content,
    /// The mode alone.
    Mode,
    /// A link's target.
    Target,
    /// File, link or directory.
    Kind,
}

impl ContentChange {
    /// One word for JSON and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Mode => "mode",
            Self::Target => "target",
            Self::Kind => "kind",
        }
    }
}

impl<'a> TreeDiff<'a> {
    /// Compares two trees.
    pub fn new(from: &Tree<'a>, to: &Tree<'a>) -> Self {
        let paths: BTreeSet<&str> =
            from.entries().chain(to.entries()).map(|(_, entry)| entry.path.as_str()).collect();
        let mut diff = Self::default();
        for path in paths {
            match (from.get(path), to.get(path)) {
                (Some(old), None) if !is_directory(old.1) => diff.removed.push(old),
                (None, Some(new)) if !is_directory(new.1) => diff.added.push(new),
                (Some(old), Some(new)) => match compare(from, old, to, new) {
                    Some(what) => diff.changed.push(Change { from: old, to: new, what }),
                    None if is_directory(old.1) => {}
                    None => diff.unchanged += 1,
                },
                _ => {}
            }
        }
        diff
    }
}

fn is_directory(entry: &Entry) -> bool {
    matches!(entry.node, Node::Directory)
}

/// What differs; a hard link stands for the file it is another name of.
fn compare<'a>(
    from: &Tree<'a>,
    old: (usize, &'a Entry),
    to: &Tree<'a>,
    new: (usize, &'a Entry),
) -> Option<ContentChange> {
    match (&from.content_of(old).node, &to.content_of(new).node) {
        (Node::File { mode: a, digest: x, .. }, Node::File { mode: b, digest: y, .. }) => {
            (x != y).then_some(ContentChange::Content).or((a != b).then_some(ContentChange::Mode))
        }
        (Node::Symlink { target: a }, Node::Symlink { target: b }) => {
            (a != b).then_some(ContentChange::Target)
        }
        (a, b) => (a.kind() != b.kind()).then_some(ContentChange::Kind),
    }
}

/// Two texts as a unified diff; `None` if one of them is no text or is too long.
pub fn unified(path: &str, from: &[u8], to: &[u8]) -> Option<String> {
    let text = |bytes: &'_ [u8]| -> Option<String> {
        let fits = bytes.len() as u64 <= MAX_TEXT && !bytes.contains(&0);
        if fits { String::from_utf8(bytes.to_vec()).ok() } else { None }
    };
    let (from, to) = (text(from)?, text(to)?);
    let diff = similar::TextDiff::from_lines(&from, &to);
    Some(diff.unified_diff().context_radius(3).header(&format!("a/{path}"), &format!("b/{path}")).to_string())
}
