//! Which old file a new one is probably made from: by path, by path without versions, by name.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::source::{At, Source};
use crate::agent::ObjectId;
use crate::agent::wire::MAX_PATCH;
use crate::bundle::Entry;

/// Files of like names that are told apart by their paths.
const COMPARED: usize = 32;

/// A new content and the old one that it is to be patched from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Where the new content stands first.
    pub(super) new: At,
    /// Where the old one stands.
    pub(super) old: At,
    pub(super) old_id: ObjectId,
    pub(super) old_size: u64,
}

/// The old files that a key may mean.
type ByKey = HashMap<String, Vec<(At, u64)>>;

/// Pairs each content of `new` that `old` does not have with one that it does, where one is like it.
pub(super) fn pairs(old: &Source, new: &Source) -> Vec<Pair> {
    let olds = || old.files().filter(|(_, entry, _)| entry.size() <= MAX_PATCH);
    let has_layer = |at: At| old.layers.iter().any(|layer| Arc::ptr_eq(layer, &new.layers[at.layer]));
    let mut seen = HashSet::new();
    // What stands in a layer that both have is there: after a change of conf nothing is looked up for it.
    let maybe: Vec<_> = new
        .files()
        .filter(|(at, entry, id)| !has_layer(*at) && entry.size() <= MAX_PATCH && seen.insert(*id))
        .collect();
    let asked: HashSet<ObjectId> = seen.iter().copied().chain(seen.iter().map(ObjectId::twin)).collect();
    let mut there: HashMap<ObjectId, At> = HashMap::new();
    for (at, _, id) in olds().filter(|(.., id)| asked.contains(id)) {
        there.entry(id).or_insert(at);
    }
    let wanted: Vec<_> = maybe.into_iter().filter(|(_, _, id)| !there.contains_key(id)).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    // Most find their partner by its path.
    let stripped = LazyCell::new(|| by_key(olds(), without_versions));
    let names = LazyCell::new(|| by_key(olds(), |path| without_versions(name(path))));
    let mut pairs = Vec::new();
    for (at, entry, id) in wanted {
        let path = entry.path.as_str();
        // Of several, the one whose path is most like it; of too many to compare, the one of the nearest size.
        let like = |found: Option<&Vec<(At, u64)>>| {
            let found = found?;
            let unlike = |at: At| strsim::levenshtein(old.entry(at).path.as_str(), path);
            let measure = |(at, size): &&(At, u64)| {
                let far = if found.len() == 1 || found.len() > COMPARED { 0 } else { unlike(*at) };
                (far, size.abs_diff(entry.size()))
            };
            found.iter().min_by_key(measure).map(|(at, _)| *at)
        };
        // The same bytes with another mode are the best partner there is.
        let partner = there
            .get(&id.twin())
            .copied()
            .or_else(|| old.find(&entry.path).filter(|at| old.entry(*at).size() <= MAX_PATCH))
            .or_else(|| like(stripped.get(&without_versions(path))))
            .or_else(|| like(names.get(&without_versions(name(path)))));
        if let Some(partner) = partner {
            let before = old.entry(partner);
            let Some(old_id) = object(before) else { continue };
            pairs.push(Pair { new: at, old: partner, old_id, old_size: before.size() });
        }
    }
    pairs
}

fn by_key<'a>(files: impl Iterator<Item = (At, &'a Entry, ObjectId)>, key: impl Fn(&str) -> String) -> ByKey {
    let mut found = ByKey::new();
    for (at, entry, _) in files {
        found.entry(key(entry.path.as_str())).or_default().push((at, entry.size()));
    }
    found
}

fn object(entry: &Entry) -> Option<ObjectId> {
    match &entry.node {
        crate::bundle::Node::File { mode, digest, .. } => {
            Some(ObjectId { digest: *digest, executable: mode & 0o111 != 0 })
        }
        _ => None,
    }
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// `lib/spark-core_2.12-3.5.5.jar` and `lib/spark-core_2.13-3.5.6.jar` become the same.
fn without_versions(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.chars().peekable();
    while let Some(c) = bytes.next() {
        if !c.is_ascii_digit() {
            out.push(c);
            continue;
        }
        // A run of digits and dots between digits: one version.
        while let Some(next) = bytes.peek() {
            if !next.is_ascii_digit() && *next != '.' {
                break;
            }
            bytes.next();
        }
        out.push('#');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_stripped() {
        assert_eq!(without_versions("lib/spark-core_2.12-3.5.5.jar"), "lib/spark-core_#-#jar");
        assert_eq!(without_versions("a/v10/b"), "a/v#/b");
        assert_eq!(without_versions("plain/name"), "plain/name");
    }
}
