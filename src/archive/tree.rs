//! What is at which path, and whether it all can be there at once.
//!
//! Nothing is written here, so the question is never what the disk would do with a second entry or with
//! a path through a symlink: both are refused, in whichever order they come.

use std::collections::HashMap;

use super::Refusal;
use super::error::printable;
use crate::model::{BundlePath, ByteSize};

/// Names may take so much memory; an archive of deep paths could ask for far more than its own size.
const MAX_NAMES: u64 = 128 << 20;
/// As many as Linux follows.
const MAX_LINKS: u32 = 40;

/// The paths taken so far, below `into`.
#[derive(Default)]
pub(super) struct Tree {
    nodes: HashMap<Box<str>, Node>,
    names: u64,
}

enum Node {
    Directory,
    /// Something lies below it, but it has no entry yet.
    Implied,
    File,
    Symlink(Box<str>),
}

impl Tree {
    /// Adds a directory; whether it is new.
    pub(super) fn directory(&mut self, path: &BundlePath) -> Result<bool, Refusal> {
        self.imply_parents(path)?;
        match self.nodes.get_mut(path.as_str()) {
            None => self.insert(path.as_str(), Node::Directory).map(|()| true),
            Some(Node::Directory) => Ok(false),
            Some(node @ Node::Implied) => {
                *node = Node::Directory;
                Ok(true)
            }
            Some(Node::File | Node::Symlink(_)) => Err(Refusal::TwoEntries),
        }
    }

    pub(super) fn file(&mut self, path: &BundlePath) -> Result<(), Refusal> {
        self.imply_parents(path)?;
        match self.nodes.get(path.as_str()) {
            None => self.insert(path.as_str(), Node::File),
            Some(Node::Directory | Node::Implied | Node::File | Node::Symlink(_)) => Err(Refusal::TwoEntries),
        }
    }

    pub(super) fn symlink(&mut self, path: &BundlePath, target: &str) -> Result<(), Refusal> {
        self.imply_parents(path)?;
        match self.nodes.get(path.as_str()) {
            None => self.insert(path.as_str(), Node::Symlink(target.into())),
            Some(Node::Implied) => Err(Refusal::SymlinkAbove),
            Some(Node::Directory | Node::File | Node::Symlink(_)) => Err(Refusal::TwoEntries),
        }
    }

    fn imply_parents(&mut self, path: &BundlePath) -> Result<(), Refusal> {
        let path = path.as_str();
        let mut missing = Vec::new();
        // From the deepest up: where a directory is known, so are those above it.
        for (at, _) in path.rmatch_indices('/') {
            let above = &path[..at];
            match self.nodes.get(above) {
                None => missing.push(above),
                Some(Node::Directory | Node::Implied) => break,
                Some(Node::File) => return Err(Refusal::BelowFile { file: printable(above.as_bytes()) }),
                Some(Node::Symlink(_)) => {
                    return Err(Refusal::ThroughSymlink { link: printable(above.as_bytes()) });
                }
            }
        }
        missing.into_iter().try_for_each(|above| self.insert(above, Node::Implied))
    }

    fn insert(&mut self, path: &str, node: Node) -> Result<(), Refusal> {
        let target = if let Node::Symlink(target) = &node { target.len() } else { 0 };
        self.names += (path.len() + target) as u64 + 64;
        if self.names > MAX_NAMES {
            return Err(Refusal::Overhead { size: ByteSize(MAX_NAMES) });
        }
        self.nodes.insert(path.into(), node);
        Ok(())
    }

    /// Follows every symlink, through the others, in a bundle where these paths lie below `into`.
    ///
    /// The first that leaves the bundle, by byte order, so that the same archive fails the same way.
    pub(super) fn check_symlinks(&self, into: Option<&BundlePath>) -> Result<(), (String, Refusal)> {
        let mut links: Vec<(&str, &str)> = self
            .nodes
            .iter()
            .filter_map(|(path, node)| match node {
                Node::Symlink(target) => Some((&**path, &**target)),
                Node::Directory | Node::Implied | Node::File => None,
            })
            .collect();
        links.sort_unstable();
        let base: Vec<&str> = into.map(|into| into.components().collect()).unwrap_or_default();
        for (path, target) in links {
            self.follow(&base, path, target).map_err(|why| (path.to_owned(), why))?;
        }
        Ok(())
    }

    fn follow<'a>(&'a self, base: &[&'a str], path: &'a str, target: &'a str) -> Result<(), Refusal> {
        let mut at: Vec<&str> = base.to_vec();
        at.extend(path.split('/'));
        at.pop();
        // What is still to be walked, the next component last.
        let mut ahead: Vec<&str> = target.split('/').rev().collect();
        // The link itself counts.
        let mut links = 1;
        while let Some(component) = ahead.pop() {
            match component {
                "" | "." => {}
                ".." => {
                    at.pop().ok_or_else(|| Refusal::Escapes { target: printable(target.as_bytes()) })?;
                }
                name => {
                    at.push(name);
                    let Some(next) = self.symlink_at(base, &at) else { continue };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Refusal::Loop { target: printable(target.as_bytes()) });
                    }
                    at.pop();
                    ahead.extend(next.split('/').rev());
                }
            }
        }
        Ok(())
    }

    fn symlink_at(&self, base: &[&str], at: &[&str]) -> Option<&str> {
        let below = at.strip_prefix(base)?;
        match self.nodes.get(below.join("/").as_str())? {
            Node::Symlink(target) => Some(target),
            Node::Directory | Node::Implied | Node::File => None,
        }
    }
}
