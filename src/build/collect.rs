//! Takes in a layer's entries in any order and keeps their content until the layer is put together.
//!
//! Large files are cut and compressed while their archive is still being read; small ones wait for their
//! neighbours. Nothing is unpacked to disk.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::spill::{Keeper, Kept};
use super::{Budget, Stage, Stages, WorkError};
use crate::bundle::layout::{self, PIECE};
use crate::bundle::{Entry, Node, frame};
use crate::model::{Buffers, BundlePath, Cancel, Digest, Hasher};

/// One entry and, for a regular file, what it holds.
#[derive(Debug)]
pub(super) struct Collected {
    pub entry: Entry,
    pub content: Content,
}

/// What a regular file holds.
#[derive(Debug)]
pub(super) enum Content {
    /// It is no regular file, or another name of one.
    None,
    /// All of it.
    Small(Kept),
    /// A frame for each of its pieces, some of them still being made.
    Large(Vec<Arc<Slot>>),
}

/// Where a frame will be once it is made.
pub(super) type Slot = OnceLock<Result<Kept, Arc<WorkError>>>;

/// What all layers of a build share.
#[derive(Debug)]
pub(super) struct Shared {
    pub budget: Arc<Budget>,
    pub buffers: Arc<Buffers>,
    pub cancel: Cancel,
    pub level: i32,
    pub stages: Stages,
}

/// Collects one layer.
#[derive(Debug)]
pub(super) struct Collector {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    into: Option<BundlePath>,
    entries: Vec<Collected>,
    directories: BTreeSet<BundlePath>,
}

impl Collector {
    /// A collector that puts everything below `into`.
    pub(super) fn new(shared: Arc<Shared>, keeper: Arc<Keeper>, into: Option<BundlePath>) -> Self {
        Self { shared, keeper, into, entries: Vec::new(), directories: BTreeSet::new() }
    }

    /// The entries in path order, with every directory above them; what a hard link names stands before it.
    pub(super) fn finish(mut self) -> Vec<Collected> {
        if let Some(into) = self.into.take() {
            self.add_directory(into);
        }
        first_names_first(&mut self.entries);
        for path in std::mem::take(&mut self.directories) {
            let entry = Entry { path, node: Node::Directory };
            self.entries.push(Collected { entry, content: Content::None });
        }
        self.entries.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        std::mem::take(&mut self.entries)
    }

    /// Forgets everything; frames under way are awaited so that their memory is given back.
    pub(super) fn forget(&mut self) {
        self.directories.clear();
        for collected in self.entries.drain(..) {
            match collected.content {
                Content::None | Content::Small(_) => {}
                Content::Large(slots) => slots.iter().for_each(|slot| wait(slot)),
            }
        }
    }

    fn place(&self, path: BundlePath) -> Result<BundlePath, WorkError> {
        match &self.into {
            None => Ok(path),
            Some(into) => into.join(&path).map_err(|error| WorkError::Path { path: path.to_string(), error }),
        }
    }

    fn add_directory(&mut self, path: BundlePath) {
        let mut next = path.parent();
        self.directories.insert(path);
        while let Some(path) = next {
            next = path.parent();
            if !self.directories.insert(path) {
                break;
            }
        }
    }

    fn push(&mut self, path: BundlePath, node: Node, content: Content) {
        if let Some(parent) = path.parent() {
            self.add_directory(parent);
        }
        self.entries.push(Collected { entry: Entry { path, node }, content });
    }

    /// A directory; empty ones are kept too.
    pub(super) fn directory(&mut self, path: BundlePath) -> Result<(), WorkError> {
        let path = self.place(path)?;
        self.add_directory(path);
        Ok(())
    }

    /// A regular file of `size` bytes.
    pub(super) fn file(
        &mut self,
        path: BundlePath,
        mode: u16,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<(), WorkError> {
        let path = self.place(path)?;
        let (digest, content) =
            if layout::is_large(size) { self.large(size, data)? } else { self.small(size, data)? };
        self.push(path, Node::File { mode, size, digest }, content);
        Ok(())
    }

    /// A symbolic link.
    pub(super) fn symlink(&mut self, path: BundlePath, target: String) -> Result<(), WorkError> {
        let path = self.place(path)?;
        self.push(path, Node::Symlink { target }, Content::None);
        Ok(())
    }

    /// Another name of a file collected before.
    pub(super) fn hard_link(&mut self, path: BundlePath, target: BundlePath) -> Result<(), WorkError> {
        let (path, target) = (self.place(path)?, self.place(target)?);
        self.push(path, Node::HardLink { target }, Content::None);
        Ok(())
    }

    fn read(&self, data: &mut dyn Read, into: &mut [u8]) -> Result<(), WorkError> {
        self.shared.stages.time(Stage::Read, || data.read_exact(into)).map_err(WorkError::Read)
    }

    fn small(&mut self, size: u64, data: &mut dyn Read) -> Result<(Digest, Content), WorkError> {
        self.shared.cancel.check()?;
        let length = usize::try_from(size).map_err(|_| WorkError::TooLarge)?;
        let mut bytes = self.shared.buffers.take_filled(length);
        self.read(data, &mut bytes)?;
        let digest = self.shared.stages.time(Stage::Files, || Digest::of(&bytes));
        let kept = self.keeper.keep_plain(&bytes)?;
        self.shared.buffers.give(bytes);
        Ok((digest, Content::Small(kept)))
    }

    fn large(&mut self, size: u64, data: &mut dyn Read) -> Result<(Digest, Content), WorkError> {
        let mut hasher = Hasher::new();
        let mut slots = Vec::new();
        for range in layout::data_pieces(size) {
            self.shared.cancel.check()?;
            let length = usize::try_from(range.end - range.start).map_err(|_| WorkError::TooLarge)?;
            let mut piece = self.shared.buffers.take_filled(length);
            self.read(data, &mut piece)?;
            self.shared.stages.time(Stage::Files, || hasher.update(&piece));
            slots.push(self.compress(piece));
        }
        Ok((hasher.finish(), Content::Large(slots)))
    }

    /// Sends a piece to the pool, helping with what is there while too much is under way.
    fn compress(&self, piece: Vec<u8>) -> Arc<Slot> {
        let slot = Arc::new(Slot::new());
        let counted = piece.len() + usize::try_from(PIECE).unwrap_or(usize::MAX);
        while !self.shared.budget.take_off(counted) {
            help();
        }
        let (shared, keeper, target) =
            (Arc::clone(&self.shared), Arc::clone(&self.keeper), Arc::clone(&slot));
        rayon::spawn(move || {
            let mut packed = shared.buffers.take();
            let made = shared
                .stages
                .time(Stage::Compress, || frame::compress_data(&piece, shared.level, &mut packed))
                .map_err(WorkError::Compress)
                .and_then(|()| Ok(keeper.keep_frame(packed)?));
            shared.buffers.give(piece);
            shared.budget.land(counted);
            // The slot was made for this one result.
            let _ = target.set(made.map_err(Arc::new));
        });
        slot
    }
}

/// Does some other work of the pool, or waits a moment if there is none.
pub(super) fn help() {
    match rayon::yield_now() {
        Some(rayon::Yield::Executed) => {}
        Some(rayon::Yield::Idle) | None => std::thread::sleep(Duration::from_micros(50)),
    }
}

/// Helps until the slot is filled.
pub(super) fn wait(slot: &Slot) {
    while slot.get().is_none() {
        help();
    }
}

/// Makes the first name in path order of each hard-linked file the one that holds the content.
fn first_names_first(entries: &mut [Collected]) {
    let mut links: Vec<(BundlePath, usize)> = Vec::new();
    for (index, collected) in entries.iter().enumerate() {
        if let Node::HardLink { target } = &collected.entry.node {
            links.push((target.clone(), index));
        }
    }
    if links.is_empty() {
        return;
    }
    links.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| entries[a.1].entry.path.cmp(&entries[b.1].entry.path)));
    let holders: std::collections::BTreeMap<BundlePath, usize> = entries
        .iter()
        .enumerate()
        .filter(|(_, collected)| matches!(collected.entry.node, Node::File { .. }))
        .map(|(index, collected)| (collected.entry.path.clone(), index))
        .collect();
    for group in links.chunk_by(|a, b| a.0 == b.0) {
        let Some(&holder) = holders.get(&group[0].0) else { continue };
        let first = group[0].1;
        if entries[first].entry.path < entries[holder].entry.path {
            // The content moves to the first name; the old holder becomes a link like the others.
            let path = entries[first].entry.path.clone();
            let old = std::mem::replace(&mut entries[holder].entry.path, path.clone());
            entries[first].entry.path = old;
            for (_, link) in group {
                entries[*link].entry.node = Node::HardLink { target: path.clone() };
            }
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.forget();
    }
}
