//! A bundle's layers laid over each other: what stands where on a node.
//!
//! # Invariants
//!
//! * A path is a directory in every layer that has it, or in none.
//! * Nothing stands below a symbolic link, and every link resolves inside the bundle.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Entry, Node};
use crate::model::BundlePath;

/// The directory that holds what windlass itself says about a bundle.
pub const OWN: &str = ".windlass";

/// Symbolic links that one path may lead through, as Linux has it.
const MAX_LINKS: usize = 40;

/// A bundle's tree: each path, the layer it comes from, and what stands there.
#[derive(Debug, Default)]
pub struct Tree<'a> {
    /// By path.
    paths: Vec<(usize, &'a Entry)>,
    layers: Vec<&'a [Entry]>,
}

/// Why layers do not make a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A directory in one layer, something else in another.
    #[error("`{path}` is a {first_kind} in layer {first} and a {second_kind} in layer {second}")]
    Conflict {
        /// The path.
        path: String,
        /// The earlier layer.
        first: usize,
        /// What it has there.
        first_kind: &'static str,
        /// The later layer.
        second: usize,
        /// What it has there.
        second_kind: &'static str,
    },
    /// A path leads through a symbolic link.
    #[error("`{path}` in layer {layer} stands below `{link}`, which is a symlink in layer {link_layer}")]
    ThroughLink {
        /// The path.
        path: String,
        /// Its layer.
        layer: usize,
        /// The link.
        link: String,
        /// The link's layer.
        link_layer: usize,
    },
    /// A link leads out of the bundle.
    #[error("the symlink `{path}` in layer {layer} leads out of the bundle, to `{target}`")]
    Escapes {
        /// The link.
        path: String,
        /// Its layer.
        layer: usize,
        /// As written.
        target: String,
    },
    /// A path that is windlass's own.
    #[error("`{path}` in layer {layer} is where windlass keeps its own record")]
    Reserved {
        /// The path.
        path: String,
        /// Its layer.
        layer: usize,
    },
}

impl<'a> Tree<'a> {
    /// Lays `layers` over each other, the first at the bottom.
    pub fn new(layers: impl IntoIterator<Item = &'a [Entry]>) -> Result<Self, TreeError> {
        let layers: Vec<&[Entry]> = layers.into_iter().collect();
        let all = layers.iter().enumerate();
        let mut paths: Vec<(usize, &Entry)> =
            all.flat_map(|(layer, entries)| entries.iter().map(move |entry| (layer, entry))).collect();
        // Each layer is in order already, which this sort makes use of; of one path the upper layer's comes later.
        paths.sort_by(|(_, a), (_, b)| a.path.as_str().cmp(b.path.as_str()));
        for same in paths.windows(2) {
            check_same(same[0], same[1])?;
        }
        paths.reverse();
        paths.dedup_by(|(_, lower), (_, upper)| lower.path == upper.path);
        paths.reverse();
        let tree = Self { paths, layers };
        tree.check_links()?;
        Ok(tree)
    }

    /// Where the entries of each path in order are: the layer's index, and the entry's in the layer.
    pub fn order(&self) -> Vec<(usize, usize)> {
        let place =
            |(layer, entry): &(usize, &'a Entry)| Some((*layer, self.layers[*layer].element_offset(entry)?));
        self.paths.iter().filter_map(place).collect()
    }

    /// Lays layers over each other that [`Self::new`] has seen, in the order that [`Self::order`] gave for them.
    pub fn in_order(layers: impl IntoIterator<Item = &'a [Entry]>, order: &[(usize, usize)]) -> Self {
        let layers: Vec<&[Entry]> = layers.into_iter().collect();
        let found = |(layer, entry): &(usize, usize)| Some((*layer, layers.get(*layer)?.get(*entry)?));
        Self { paths: order.iter().filter_map(found).collect(), layers }
    }

    /// Every path in order, with its layer's index.
    pub fn entries(&self) -> impl Iterator<Item = (usize, &'a Entry)> + '_ {
        self.paths.iter().copied()
    }

    /// What stands at a path, with its layer's index.
    pub fn get(&self, path: &str) -> Option<(usize, &'a Entry)> {
        self.at(self.position(path)?)
    }

    /// One of [`Self::entries`], counted from 0.
    pub fn at(&self, position: usize) -> Option<(usize, &'a Entry)> {
        self.paths.get(position).copied()
    }

    /// Which of [`Self::entries`] stands at a path, counted from 0.
    pub fn position(&self, path: &str) -> Option<usize> {
        self.position_in(0..self.paths.len(), path)
    }

    /// As [`Self::position`], where it is one of `among`.
    pub fn position_in(&self, among: Range<usize>, path: &str) -> Option<usize> {
        let found =
            self.paths.get(among.clone())?.binary_search_by(|(_, entry)| entry.path.as_str().cmp(path));
        Some(among.start + found.ok()?)
    }

    /// Which of [`Self::entries`] stand below a directory; all, for the tree's own, whose path is empty.
    pub fn below(&self, directory: &str) -> Range<usize> {
        if directory.is_empty() {
            return 0..self.paths.len();
        }
        let rest = |entry: &'a Entry| entry.path.as_str().strip_prefix(directory);
        let is_before = |entry: &'a Entry| match rest(entry) {
            Some(rest) => rest.as_bytes().first() < Some(&b'/'),
            None => entry.path.as_str() < directory,
        };
        let start = self.paths.partition_point(|(_, entry)| is_before(entry));
        let is_below = |entry: &'a Entry| rest(entry).is_some_and(|rest| rest.starts_with('/'));
        start..start + self.paths[start..].partition_point(|(_, entry)| is_below(entry))
    }

    /// What a hard link of a layer is another name of, whatever covers that in later layers; or the entry.
    pub fn content_of(&self, (layer, entry): (usize, &'a Entry)) -> &'a Entry {
        let Node::HardLink { target } = &entry.node else { return entry };
        let entries = self.layers.get(layer).copied().unwrap_or_default();
        entries.binary_search_by(|other| other.path.cmp(target)).map_or(entry, |index| &entries[index])
    }

    /// Regular files and hard links, and the bytes of the files.
    pub fn totals(&self) -> (u64, u64) {
        self.entries().fold((0, 0), |(files, bytes), (_, entry)| match entry.node {
            Node::File { size, .. } => (files + 1, bytes + size),
            Node::HardLink { .. } => (files + 1, bytes),
            Node::Directory | Node::Symlink { .. } => (files, bytes),
        })
    }

    /// Fails if a layer that is not windlass's own has something where windlass keeps its record.
    pub fn check_reserved(&self) -> Result<(), TreeError> {
        let from = self.paths.partition_point(|(_, entry)| entry.path.as_str() < OWN);
        match self.paths[from..].iter().find(|(_, entry)| is_own(&entry.path)) {
            Some((layer, entry)) => {
                Err(TreeError::Reserved { path: entry.path.as_str().to_owned(), layer: *layer })
            }
            None => Ok(()),
        }
    }

    /// What stands above a path is a directory.
    fn check_above(&self, path: &str, layer: usize, above: &str) -> Result<(), TreeError> {
        match self.get(above) {
            None | Some((_, Entry { node: Node::Directory, .. })) => Ok(()),
            Some((link_layer, Entry { node: Node::Symlink { .. }, .. })) => Err(TreeError::ThroughLink {
                path: path.to_owned(),
                layer,
                link: above.to_owned(),
                link_layer,
            }),
            Some((first, old)) => Err(TreeError::Conflict {
                path: above.to_owned(),
                first,
                first_kind: old.node.kind(),
                second: layer,
                second_kind: "directory",
            }),
        }
    }

    /// Everything above a path is a directory, and every link stays inside.
    fn check_links(&self) -> Result<(), TreeError> {
        let links: BTreeMap<&str, (usize, &str)> = self
            .paths
            .iter()
            .filter_map(|(layer, entry)| match &entry.node {
                Node::Symlink { target } => Some((entry.path.as_str(), (*layer, target.as_str()))),
                _ => None,
            })
            .collect();
        let mut checked = "";
        for (layer, entry) in &self.paths {
            // Layers hold every directory above what they hold, so that one step up is enough; and in path
            // order neighbours share their parent.
            let Some(above) = entry.path.above().filter(|above| *above != checked) else {
                continue;
            };
            checked = above;
            self.check_above(entry.path.as_str(), *layer, above)?;
        }
        for (path, (layer, target)) in &links {
            if !stays_inside(path, target, |path| links.get(path).map(|(_, target)| *target)) {
                let (path, target) = ((*path).to_owned(), (*target).to_owned());
                return Err(TreeError::Escapes { path, layer: *layer, target });
            }
        }
        Ok(())
    }
}

/// A path is a directory in both of two layers, or in neither.
fn check_same(lower: (usize, &Entry), upper: (usize, &Entry)) -> Result<(), TreeError> {
    let directories = [lower, upper].map(|(_, entry)| matches!(entry.node, Node::Directory));
    if lower.1.path != upper.1.path || directories[0] == directories[1] {
        return Ok(());
    }
    Err(TreeError::Conflict {
        path: upper.1.path.as_str().to_owned(),
        first: lower.0,
        first_kind: lower.1.node.kind(),
        second: upper.0,
        second_kind: upper.1.node.kind(),
    })
}

/// Whether the link at `path` resolves inside the tree, through other links (`link_at`) as the kernel would.
///
/// A target that does not exist is allowed; vendors ship such links.
pub fn stays_inside<'a>(path: &'a str, target: &'a str, link_at: impl Fn(&str) -> Option<&'a str>) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut at: Vec<&str> = path.split('/').collect();
    at.pop();
    let mut todo: Vec<&str> = target.split('/').rev().collect();
    let mut followed = 0;
    while let Some(component) = todo.pop() {
        match component {
            "" | "." => {}
            ".." => {
                if at.pop().is_none() {
                    return false;
                }
            }
            name => {
                at.push(name);
                if let Some(target) = link_at(&at.join("/")) {
                    followed += 1;
                    if target.starts_with('/') || followed > MAX_LINKS {
                        return false;
                    }
                    at.pop();
                    todo.extend(target.split('/').rev());
                }
            }
        }
    }
    true
}

/// Whether `path` is windlass's own or below it.
pub fn is_own(path: &BundlePath) -> bool {
    path.components().next() == Some(OWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    fn entry(path: &str, node: Node) -> Entry {
        Entry { path: BundlePath::new(path).unwrap(), node }
    }

    fn file(path: &str) -> Entry {
        entry(path, Node::File { mode: 0o644, size: 5, digest: Digest::of(path.as_bytes()) })
    }

    fn link(path: &str, target: &str) -> Entry {
        entry(path, Node::Symlink { target: target.to_owned() })
    }

    fn error(layers: &[&[Entry]]) -> String {
        Tree::new(layers.iter().copied()).unwrap_err().to_string()
    }

    #[test]
    fn a_later_layer_covers_an_earlier_one() {
        let layers =
            [vec![entry("a", Node::Directory), file("a/b")], vec![entry("a", Node::Directory), file("a/b")]];
        let tree = Tree::new(layers.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(tree.get("a/b").unwrap().0, 1);
        assert_eq!(tree.totals(), (1, 5));
    }

    #[test]
    fn what_stands_below_a_directory_is_found() {
        let mut layer: Vec<Entry> =
            ["a", "a/b", "c"].into_iter().map(|path| entry(path, Node::Directory)).collect();
        layer.extend(["a-b", "a.txt", "a/a", "a/b/c", "a/b0", "a0", "c/d"].into_iter().map(file));
        layer.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        let tree = Tree::new([layer.as_slice()]).unwrap();
        let all: Vec<&str> = tree.entries().map(|(_, entry)| entry.path.as_str()).collect();
        let paths = |range: Range<usize>| all[range].to_vec();
        assert_eq!(paths(tree.below("")).len(), 10);
        assert_eq!(paths(tree.below("a")), ["a/a", "a/b", "a/b/c", "a/b0"]);
        assert_eq!(paths(tree.below("a/b")), ["a/b/c"]);
        assert_eq!(paths(tree.below("a/b0")), [""; 0]);
        assert_eq!(paths(tree.below("c")), ["c/d"]);
        for (position, (_, entry)) in tree.entries().enumerate() {
            assert_eq!(tree.position(entry.path.as_str()), Some(position));
        }
        assert_eq!(tree.position_in(tree.below("a"), "a/b0"), tree.position("a/b0"));
        assert_eq!(tree.position_in(tree.below("a"), "a0"), None);
    }

    #[test]
    fn conflicts_are_named() {
        insta::assert_snapshot!(error(&[&[file("a")], &[entry("a", Node::Directory)]]),
            @"`a` is a file in layer 0 and a directory in layer 1");
        insta::assert_snapshot!(error(&[&[link("a", "b")], &[file("a/x")]]),
            @"`a/x` in layer 1 stands below `a`, which is a symlink in layer 0");
        insta::assert_snapshot!(error(&[&[link("d/a", "../../x")]]),
            @"the symlink `d/a` in layer 0 leads out of the bundle, to `../../x`");
    }

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        // `up` is the top; through it `..` leads out although the text looks harmless.
        assert!(Tree::new([&[link("d/up", "..")][..]]).is_ok());
        assert!(Tree::new([&[link("d/e/up", "../.."), link("x", "d/e/up/../y")][..]]).is_err());
        assert!(Tree::new([&[link("loop", "loop")][..]]).is_err());
        assert!(Tree::new([&[link("a", "b"), link("b", "missing")][..]]).is_ok());
        assert!(Tree::new([&[link("a", "/etc/passwd")][..]]).is_err());
    }

    #[test]
    fn windlass_own_place_is_reserved() {
        let layers = [file(".windlass/bundle.json")];
        assert!(Tree::new([&layers[..]]).unwrap().check_reserved().is_err());
        let layers = [file(".windlassed/x")];
        assert!(Tree::new([&layers[..]]).unwrap().check_reserved().is_ok());
    }
}
