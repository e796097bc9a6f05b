//! What a node knows of bundles: `bundles/<sha256>/` with the manifest, its config and the tables of contents.
//!
//! # Invariants
//!
//! * A bundle's directory has its name only when everything in it was checked against that name. It is on the disk when a
//!   release made from it is, as all that belongs to a release; until then a power cut may tear it.
//! * Whatever is read from it is checked again: a file that was changed on the disk is an error.

use std::io::Write as _;

use camino::Utf8PathBuf;
use rayon::prelude::*;

use super::layout::Root;
use super::objects::{ObjectError, ObjectId, Objects};
use super::workers;
use crate::bundle::manifest::{Layer, MAX_MANIFEST};
use crate::bundle::{
    Entry, Manifest, ManifestError, Node, RECORD_PATH, Record, RecordError, Toc, TocError, Tree, TreeError,
};
use crate::fs::{DirLock, IoError, IoResultExt as _, LockKind, calls};
use crate::model::{Cancel, Digest};

/// The most bytes of a compressed table of contents.
pub(super) const MAX_TOC: u64 = 256 << 20;

/// Layer and entry of each path in order, as [`Tree::order`] gives them.
type Order = Vec<(usize, usize)>;

/// A bundle that the node knows, its objects there or not.
#[derive(Debug)]
pub struct Bundle {
    /// Its name.
    pub digest: Digest,
    /// What its manifest says.
    pub manifest: Manifest,
    /// One a layer.
    pub tocs: Vec<Toc>,
    /// Which entries of theirs stand where, found once: it is asked for many times.
    order: Order,
}

/// Why a bundle cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It was never pushed here.
    #[error("bundle {0} is not on this node")]
    Absent(Digest),
    /// The bytes are not those of the name.
    #[error("the {what} of bundle {bundle} should be {wanted} and is {found}")]
    Damaged {
        /// Which bundle.
        bundle: Digest,
        /// Which part.
        what: &'static str,
        /// As named.
        wanted: Digest,
        /// As hashed.
        found: Digest,
    },
    /// Larger than any is.
    #[error("the {what} has {size} bytes, too many for its kind")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Bytes.
        size: u64,
    },
    /// Not a manifest.
    #[error("bundle {bundle} cannot be used")]
    Manifest {
        /// Which bundle.
        bundle: Digest,
        /// Why not.
        source: ManifestError,
    },
    /// Not a table of contents.
    #[error("layer {layer} of the bundle cannot be used")]
    Toc {
        /// Counted from 0.
        layer: usize,
        /// Why not.
        source: TocError,
    },
    /// Its layers do not fit over each other.
    #[error("the bundle's layers make no tree")]
    Tree(#[from] TreeError),
    /// It does not say how to run it.
    #[error("the bundle has no usable {RECORD_PATH}")]
    Record(#[from] RecordError),
    /// It has none at all.
    #[error("the bundle has no {RECORD_PATH}")]
    NoRecord,
    /// Its record is not on the node, or not whole.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// A file of a bundle: where its content is first listed, and under which object it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The content.
    pub id: ObjectId,
    /// Its bytes.
    pub size: u64,
    /// The layer that lists it.
    pub layer: usize,
    /// Which entry of that layer.
    pub entry: usize,
}

/// The object that a file's content is stored as.
pub(super) fn object_of(node: &Node) -> Option<(ObjectId, u64)> {
    match node {
        Node::File { mode, size, digest } => {
            Some((ObjectId { digest: *digest, executable: mode & 0o111 != 0 }, *size))
        }
        Node::Directory | Node::Symlink { .. } | Node::HardLink { .. } => None,
    }
}

impl Bundle {
    /// Its layers, laid over each other; that they make a tree was checked when they were read.
    pub fn tree(&self) -> Tree<'_> {
        Tree::in_order(self.tocs.iter().map(|toc| toc.entries.as_slice()), &self.order)
    }

    /// The regular file that holds the content of `entry` of `layer`: itself, or what it is another name of.
    pub fn content_of<'a>(&'a self, layer: usize, entry: &'a Entry) -> Option<&'a Entry> {
        match &entry.node {
            Node::HardLink { target } => {
                let toc = self.tocs.get(layer)?;
                toc.entries.get(toc.find(target)?)
            }
            Node::File { .. } => Some(entry),
            Node::Directory | Node::Symlink { .. } => None,
        }
    }

    /// Every object that its tree needs, each once.
    pub fn objects(&self) -> Vec<Wanted> {
        let mut seen = std::collections::HashSet::new();
        let mut wanted = Vec::new();
        for (layer, index) in self.order.iter().copied() {
            let toc = &self.tocs[layer];
            let entry = match &toc.entries[index].node {
                Node::HardLink { target } => toc.find(target),
                Node::File { .. } | Node::Directory | Node::Symlink { .. } => Some(index),
            };
            if let Some(entry) = entry
                && let Some((id, size)) = object_of(&toc.entries[entry].node)
                && seen.insert(id)
            {
                wanted.push(Wanted { id, size, layer, entry });
            }
        }
        wanted
    }

    /// What it says about itself, out of the objects.
    pub fn record(&self, objects: &Objects) -> Result<Record, BundleError> {
        let tree = self.tree();
        let entry = tree.get(RECORD_PATH).ok_or(BundleError::NoRecord)?.1;
        let (id, size) = object_of(&entry.node).ok_or(BundleError::NoRecord)?;
        if size > MAX_MANIFEST {
            return Err(BundleError::TooLarge { what: "record", size });
        }
        Ok(Record::parse(&objects.read(id, size)?)?)
    }
}

/// Checks a manifest and its config against the bundle's name.
pub(super) fn check_manifest(
    bundle: Digest,
    manifest: &[u8],
    config: &[u8],
) -> Result<Manifest, BundleError> {
    check(bundle, "manifest", bundle, manifest)?;
    let unusable = |source| BundleError::Manifest { bundle, source };
    let (digest, _) = Manifest::config_of(manifest).map_err(unusable)?;
    check(bundle, "config", digest, config)?;
    Manifest::parse(manifest, config).map_err(unusable)
}

fn check(bundle: Digest, what: &'static str, wanted: Digest, bytes: &[u8]) -> Result<(), BundleError> {
    match Digest::of(bytes) {
        found if found == wanted => Ok(()),
        found => Err(BundleError::Damaged { bundle, what, wanted, found }),
    }
}

/// Checks tables of contents against their manifest; gives the order of their entries in the tree, too.
pub(super) fn check_tocs(
    bundle: Digest,
    manifest: &Manifest,
    tocs: &[Vec<u8>],
) -> Result<(Vec<Toc>, Order), BundleError> {
    let checked = |(layer, (described, bytes)): (usize, (&Layer, &Vec<u8>))| {
        check(bundle, "table of contents", described.place.digest, bytes)?;
        Toc::decode(bytes).map_err(|source| BundleError::Toc { layer, source })
    };
    let layers = manifest.layers.iter().zip(tocs).enumerate();
    // That there are no threads says nothing against a bundle.
    let checked: Vec<Toc> = match workers::start() {
        Ok(()) => layers.collect::<Vec<_>>().into_par_iter().map(checked).collect::<Result<_, _>>()?,
        Err(_) => layers.map(checked).collect::<Result<_, _>>()?,
    };
    let order = Tree::new(checked.iter().map(|toc| toc.entries.as_slice()))?.order();
    Ok((checked, order))
}

/// A bundle that is being stored has a name that starts so.
const NEW: &str = ".new-";

fn toc_name(digest: &Digest) -> String {
    format!("toc-{}", digest.hex())
}

impl Root {
    fn bundle(&self, digest: &Digest) -> Utf8PathBuf {
        self.bundles().join(digest.hex())
    }

    /// Every bundle known here, in order.
    pub fn known_bundles(&self) -> Result<Vec<Digest>, IoError> {
        let dir = self.bundles();
        let entries = match dir.read_dir_utf8() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.at("read", &dir)?,
        };
        let mut known = Vec::new();
        for entry in entries {
            known.extend(Digest::from_hex(entry.at("read", &dir)?.file_name()));
        }
        known.sort();
        Ok(known)
    }

    /// Reads and checks a bundle.
    pub fn load_bundle(&self, digest: Digest) -> Result<Bundle, BundleError> {
        let dir = self.bundle(&digest);
        if !dir.exists() {
            return Err(BundleError::Absent(digest));
        }
        let read = |name: &str, max: u64| -> Result<Vec<u8>, BundleError> {
            let path = dir.join(name);
            let size = path.metadata().at("read", &path)?.len();
            if size > max {
                return Err(BundleError::TooLarge { what: "part of a bundle", size });
            }
            Ok(std::fs::read(&path).at("read", &path)?)
        };
        let manifest =
            check_manifest(digest, &read("manifest", MAX_MANIFEST)?, &read("config", MAX_MANIFEST)?)?;
        let tocs = manifest.layers.iter().map(|layer| read(&toc_name(&layer.place.digest), MAX_TOC));
        let tocs: Vec<Vec<u8>> = tocs.collect::<Result<_, _>>()?;
        let (tocs, order) = check_tocs(digest, &manifest, &tocs)?;
        Ok(Bundle { digest, manifest, tocs, order })
    }

    /// A table of contents that some bundle here has; its digest is for the caller to check.
    pub fn find_toc(&self, digest: &Digest) -> Option<Vec<u8>> {
        let name = toc_name(digest);
        let known = self.known_bundles().ok()?;
        known.iter().find_map(|bundle| std::fs::read(self.bundle(bundle).join(&name)).ok())
    }

    /// Stores a bundle after checking all of it.
    pub fn store_bundle(
        &self,
        digest: Digest,
        manifest: &[u8],
        config: &[u8],
        tocs: &[Vec<u8>],
    ) -> Result<Bundle, BundleError> {
        let checked = check_manifest(digest, manifest, config)?;
        let (decoded, order) = check_tocs(digest, &checked, tocs)?;
        if self.load_bundle(digest).is_err() {
            // One at a time: whatever has no name of its own then is of a process that was killed.
            let _alone = DirLock::wait(&self.bundles(), LockKind::Exclusive, &Cancel::new())?;
            self.clear_bundles()?;
            if self.load_bundle(digest).is_err() {
                self.make_bundle(digest, &checked, [manifest, config], tocs)?;
            }
        }
        Ok(Bundle { digest, manifest: checked, tocs: decoded, order })
    }

    fn make_bundle(
        &self,
        digest: Digest,
        checked: &Manifest,
        [manifest, config]: [&[u8]; 2],
        tocs: &[Vec<u8>],
    ) -> Result<(), BundleError> {
        let dir = self.bundle(&digest);
        // What is there is damaged, or of a push that was broken off.
        crate::fs::remove_tree(&dir)?;
        let new = self.bundles().join(format!("{NEW}{}", digest.short()));
        calls::create_dir(&new, 0o777).at("create", &new)?;
        let named = checked.layers.iter().map(|layer| toc_name(&layer.place.digest));
        let files = [("manifest".to_owned(), manifest), ("config".to_owned(), config)];
        let tocs = named.zip(tocs.iter().map(Vec::as_slice));
        let made = files.into_iter().chain(tocs).try_for_each(|(name, bytes)| {
            let path = new.join(name);
            let mut file = std::fs::File::create(&path).at("create", &path)?;
            file.write_all(bytes).at("write", &path)
        });
        let made = made.and_then(|()| calls::rename(&new, &dir).at("rename a directory to", &dir));
        if made.is_err() {
            // The failure to tell is the first; whoever stores a bundle next clears this.
            let _ = crate::fs::remove_tree(&new);
        }
        Ok(made?)
    }

    /// Removes what killed processes left of bundles. The caller holds `bundles/` alone.
    fn clear_bundles(&self) -> Result<(), IoError> {
        let dir = self.bundles();
        for entry in dir.read_dir_utf8().at("read", &dir)? {
            let entry = entry.at("read", &dir)?;
            if entry.file_name().starts_with(NEW) {
                crate::fs::remove_tree(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes what killed processes left of bundles, unless somebody is storing one now.
    pub(super) fn clear_unfinished_bundles(&self) -> Result<(), IoError> {
        match DirLock::attempt(&self.bundles(), LockKind::Exclusive)? {
            Some(_alone) => self.clear_bundles(),
            None => Ok(()),
        }
    }

    /// Forgets a bundle.
    pub fn forget_bundle(&self, digest: &Digest) -> Result<(), IoError> {
        crate::fs::remove_tree(&self.bundle(digest))
    }
}
