//! A bundle's tree on the disk, every file checked on the way.
//!
//! Work is cut into runs of small files and single large files, the largest first, and spread over the
//! pool. A file that does not have the digest that its layer's table says is an error.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;

use super::{LayerReader, Store, StoreError, StoredBundle};
use crate::bundle::{Entry, Frame, Node, Tree, layout};
use crate::fs::{IoError, IoResultExt as _, calls};
use crate::model::{Cancel, Digest, Hasher};

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Regular files and hard links.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// A part of the work.
enum Item<'a> {
    /// A frame with the small files that are wanted of it: entry and start in the tar.
    Run { layer: &'a LayerReader, frame: Frame, files: Vec<(&'a Entry, u64)> },
    /// A large file.
    Large { layer: &'a LayerReader, index: usize, entry: &'a Entry },
}

impl Item<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Run { frame, .. } => frame.tar_size,
            Self::Large { entry, .. } => entry.size(),
        }
    }
}

impl Store {
    /// Writes a bundle's tree into `dir`, which must be empty or not there yet.
    ///
    /// Modes are those of the bundle whatever the umask; owner and times are those of whoever unpacks.
    pub fn unpack(
        &self,
        bundle: &StoredBundle,
        dir: &Utf8Path,
        cancel: &Cancel,
    ) -> Result<Unpacked, StoreError> {
        make_empty(dir)?;
        let layers =
            bundle.manifest.layers.iter().map(|layer| self.layer(layer)).collect::<Result<Vec<_>, _>>()?;
        let tree = Tree::new(layers.iter().map(|layer| layer.toc.entries.as_slice()))
            .map_err(|error| StoreError::Damaged { digest: bundle.tagged.digest, what: error.to_string() })?;
        make_directories(dir, &tree)?;
        let mut items = items(&layers, &tree);
        items.sort_by_key(|item| std::cmp::Reverse(item.size()));
        let write = Writer { dir, cancel };
        items.par_iter().with_max_len(1).try_for_each(|item| match item {
            Item::Run { layer, frame, files } => write.run(layer, frame, files),
            Item::Large { layer, index, entry } => write.large(layer, *index, entry),
        })?;
        make_links(dir, &tree)?;
        let (files, bytes) = tree.totals();
        Ok(Unpacked { files, bytes })
    }
}

fn make_empty(dir: &Utf8Path) -> Result<(), StoreError> {
    calls::create_dir_all(dir).at("create", dir)?;
    if dir.read_dir_utf8().at("read", dir)?.next().is_some() {
        return Err(StoreError::NotEmpty(dir.to_owned()));
    }
    Ok(())
}

fn make_directories(dir: &Utf8Path, tree: &Tree<'_>) -> Result<(), IoError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o755);
    for (_, entry) in tree.entries() {
        if matches!(entry.node, Node::Directory) {
            let path = dir.join(entry.path.as_str());
            builder.create(&path).at("create", &path)?;
        }
    }
    Ok(())
}

/// Whether a file is the one that stands at its path, or is covered by a later layer or linked to.
fn wanted(tree: &Tree<'_>, layer: usize, entry: &Entry) -> bool {
    tree.get(entry.path.as_str()).is_some_and(|(from, _)| from == layer)
}

fn items<'a>(layers: &'a [LayerReader], tree: &Tree<'_>) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let toc = &layer.toc;
        let mut runs: Vec<Vec<(&Entry, u64)>> = vec![Vec::new(); toc.frames.len()];
        for (index, (entry, start)) in toc.entries.iter().zip(&toc.offsets).enumerate() {
            let Node::File { size, .. } = entry.node else { continue };
            if !wanted(tree, number, entry) {
                continue;
            }
            if layout::is_large(size) {
                items.push(Item::Large { layer, index, entry });
            } else {
                // Even an empty file belongs to the frame that holds its header.
                let frame =
                    toc.frames.partition_point(|frame| frame.tar_offset + frame.tar_size < *start + size);
                if let Some(run) = runs.get_mut(frame) {
                    run.push((entry, *start));
                }
            }
        }
        for (frame, files) in toc.frames.iter().zip(runs).filter(|(_, files)| !files.is_empty()) {
            items.push(Item::Run { layer, frame: *frame, files });
        }
    }
    items
}

struct Writer<'a> {
    dir: &'a Utf8Path,
    cancel: &'a Cancel,
}

impl Writer<'_> {
    fn run(&self, layer: &LayerReader, frame: &Frame, files: &[(&Entry, u64)]) -> Result<(), StoreError> {
        self.check()?;
        layer.with_frame(frame, |raw| {
            for (entry, start) in files {
                let at = usize::try_from(start.saturating_sub(frame.tar_offset)).unwrap_or(usize::MAX);
                let end = at.saturating_add(usize::try_from(entry.size()).unwrap_or(usize::MAX));
                let bytes = raw.get(at..end).ok_or_else(|| misplaced(layer, entry))?;
                check_digest(layer, entry, Digest::of(bytes))?;
                let (path, mut file) = self.create(entry)?;
                file.write_all(bytes).at("write", &path)?;
            }
            Ok(())
        })
    }

    fn large(&self, layer: &LayerReader, index: usize, entry: &Entry) -> Result<(), StoreError> {
        let (path, mut file) = self.create(entry)?;
        let mut hasher = Hasher::new();
        let start = layer.toc.offsets.get(index).copied().unwrap_or(0);
        for frame in layer.toc.frames_of(start, entry.size()) {
            self.check()?;
            layer.with_frame(frame, |raw| {
                // A large file's frames hold nothing but the file.
                hasher.update(raw);
                Ok(file.write_all(raw).at("write", &path)?)
            })?;
        }
        check_digest(layer, entry, hasher.finish())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.cancel.check().map_err(StoreError::Cancelled)
    }

    fn create(&self, entry: &Entry) -> Result<(Utf8PathBuf, std::fs::File), StoreError> {
        let mode = if let Node::File { mode, .. } = entry.node { u32::from(mode) } else { 0o644 };
        let path = self.dir.join(entry.path.as_str());
        let file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).at("create", &path)?;
        // A umask may have taken bits away, and setuid needs asking for.
        if file.metadata().at("read", &path)?.permissions().mode() & 0o7777 != mode {
            file.set_permissions(std::fs::Permissions::from_mode(mode)).at("set the mode of", &path)?;
        }
        Ok((path, file))
    }
}

fn misplaced(layer: &LayerReader, entry: &Entry) -> StoreError {
    StoreError::Damaged {
        digest: layer.digest(),
        what: format!("`{}` is not where its table says", entry.path),
    }
}

fn check_digest(layer: &LayerReader, entry: &Entry, found: Digest) -> Result<(), StoreError> {
    match &entry.node {
        Node::File { digest, .. } if *digest != found => Err(StoreError::Damaged {
            digest: layer.digest(),
            what: format!("`{}` has digest {found}; the table says {digest}", entry.path),
        }),
        _ => Ok(()),
    }
}

fn make_links(dir: &Utf8Path, tree: &Tree<'_>) -> Result<(), IoError> {
    for (_, entry) in tree.entries() {
        let path = dir.join(entry.path.as_str());
        match &entry.node {
            Node::Symlink { target } => std::os::unix::fs::symlink(target, &path).at("create", &path)?,
            Node::HardLink { target } => {
                std::fs::hard_link(dir.join(target.as_str()), &path).at("create", &path)?;
            }
            Node::Directory | Node::File { .. } => {}
        }
    }
    Ok(())
}
