//! Puts a layer together: collected entries become frames in tar order, a table and a footer.
//!
//! Batches of pieces are made in parallel (runs built and compressed, large files' frames fetched and
//! unpacked again for the tar's digest) while the batch before is hashed and written. The two digests
//! that need the bytes in order, of the tar and of the blob, run beside each other.

use std::ops::Range;
use std::sync::Arc;

use camino::Utf8Path;
use rayon::prelude::*;

use super::collect::{Collected, Content, Shared, wait};
use super::spill::Keeper;
use super::writer::{Outgoing, Writer};
use super::{Stage, Stages, WorkError};
use crate::bundle::layout::{self, Piece};
use crate::bundle::{Entry, Node, Toc, TocPlace, frame, tar};
use crate::fs::Staged;
use crate::model::{Digest, Hasher};

/// A finished layer, not yet published.
#[derive(Debug)]
pub(super) struct LayerBlob {
    /// Of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Of the tar: OCI's `diff_id`.
    pub diff_id: Digest,
    /// Where its table is.
    pub place: TocPlace,
    /// The table.
    pub toc: Toc,
    /// The file; on the disk once the writer has finished.
    pub staged: Arc<Staged>,
}

/// One piece, as tar and as frame.
struct Made {
    raw: Vec<u8>,
    packed: Vec<u8>,
}

/// The blob as far as it is written.
struct Output<'a> {
    staged: Arc<Staged>,
    blob: Hasher,
    tar: Hasher,
    sizes: Vec<u64>,
    written: u64,
    file: Outgoing<'a>,
    stages: &'a Stages,
}

/// Writes the layer of `collected`, which stands in path order, to a nameless file in `dir`.
pub(super) fn assemble(
    mut collected: Vec<Collected>,
    shared: &Shared,
    keeper: &Keeper,
    dir: &Utf8Path,
    writer: &Writer,
) -> Result<LayerBlob, WorkError> {
    let entries: Vec<_> = collected.iter().map(|collected| collected.entry.clone()).collect();
    let pieces = layout::pieces(&entries);
    let staged = Arc::new(Staged::new_in(dir)?);
    let mut output = Output {
        file: writer.file(Arc::clone(&staged)),
        staged,
        blob: Hasher::new(),
        tar: Hasher::new(),
        sizes: Vec::with_capacity(pieces.len()),
        written: 0,
        stages: &shared.stages,
    };
    let mut ready: Vec<Made> = Vec::new();
    for batch in pieces.chunks(shared.budget.batch) {
        shared.cancel.check()?;
        let make = || batch.par_iter().map(|piece| make(piece, &collected, shared, keeper)).collect();
        let write = || output.write(&ready);
        let (made, written): (Result<Vec<Made>, WorkError>, _) = rayon::join(make, write);
        written?;
        give_back(std::mem::replace(&mut ready, made?), shared);
        // What the batch held is in `ready` now.
        forget(batch, &mut collected);
    }
    output.write(&ready)?;
    give_back(ready, shared);
    output.finish(entries)
}

fn give_back(made: Vec<Made>, shared: &Shared) {
    for made in made {
        shared.buffers.give(made.raw);
        shared.buffers.give(made.packed);
    }
}

fn forget(batch: &[Piece], collected: &mut [Collected]) {
    for piece in batch {
        match piece {
            Piece::Data { entry, range } => {
                if let Content::Large(slots) = &mut collected[*entry].content
                    && let Some(slot) = slots.get_mut(piece_index(range.start))
                {
                    *slot = Arc::default();
                }
            }
            Piece::Run { entries, .. } => {
                for collected in &mut collected[entries.clone()] {
                    // A run has large files' headers too, and their pieces come after it.
                    if matches!(collected.content, Content::Small(_)) {
                        collected.content = Content::None;
                    }
                }
            }
        }
    }
}

fn piece_index(start: u64) -> usize {
    usize::try_from(start / layout::PIECE).unwrap_or(usize::MAX)
}

fn make(piece: &Piece, collected: &[Collected], shared: &Shared, keeper: &Keeper) -> Result<Made, WorkError> {
    let (mut raw, mut packed) = (shared.buffers.take(), shared.buffers.take());
    match piece {
        Piece::Run { padding, entries, end, size } => {
            let gather = || gather(collected, entries.clone(), *padding, *end, *size, keeper, &mut raw);
            shared.stages.time(Stage::Gather, gather)?;
            debug_assert_eq!(raw.len() as u64, *size, "a run has the size that its layout says");
            let level = layout::run_level(shared.level, entries.len(), *size);
            shared
                .stages
                .time(Stage::Compress, || frame::compress_run(&raw, level, &mut packed))
                .map_err(WorkError::Compress)?;
        }
        Piece::Data { entry, range } => {
            let Content::Large(slots) = &collected[*entry].content else {
                return Err(WorkError::Bug("a large file was collected as a small one"));
            };
            let slot =
                slots.get(piece_index(range.start)).ok_or(WorkError::Bug("a large file lacks a piece"))?;
            wait(slot);
            match slot.get() {
                Some(Ok(kept)) => keeper.append(kept, &mut packed)?,
                Some(Err(error)) => return Err(WorkError::Elsewhere(Arc::clone(error))),
                None => return Err(WorkError::Bug("a piece was awaited and is not there")),
            }
            shared
                .stages
                .time(Stage::Unpack, || frame::decompress(&packed, range.end - range.start, &mut raw))
                .map_err(WorkError::Compress)?;
        }
    }
    Ok(Made { raw, packed })
}

/// The mode of the file that a hard link names; the entries stand in path order.
fn linked_mode(entry: &Entry, collected: &[Collected]) -> u16 {
    let Node::HardLink { target } = &entry.node else { return 0 };
    let at = collected.binary_search_by(|one| one.entry.path.cmp(target));
    match at.map(|at| &collected[at].entry.node) {
        Ok(Node::File { mode, .. }) => *mode,
        _ => 0o644,
    }
}

/// Puts a run's bytes together.
fn gather(
    collected: &[Collected],
    entries: Range<usize>,
    padding: u64,
    end: bool,
    size: u64,
    keeper: &Keeper,
    raw: &mut Vec<u8>,
) -> Result<(), WorkError> {
    raw.reserve(usize::try_from(size).unwrap_or(0));
    zeros(raw, padding);
    for one in &collected[entries] {
        tar::write_header(&one.entry, linked_mode(&one.entry, collected), raw);
        if let Content::Small(kept) = &one.content {
            keeper.append(kept, raw)?;
            zeros(raw, tar::padding(one.entry.size()));
        }
    }
    zeros(raw, if end { tar::END } else { 0 });
    Ok(())
}

fn zeros(out: &mut Vec<u8>, count: u64) {
    out.resize(out.len() + usize::try_from(count).unwrap_or(0), 0);
}

impl Output<'_> {
    fn write(&mut self, made: &[Made]) -> Result<(), WorkError> {
        let (tar, blob, file) = (&mut self.tar, &mut self.blob, &mut self.file);
        let stages = self.stages;
        let hash_tar = || stages.time(Stage::Tar, || made.iter().for_each(|made| tar.update(&made.raw)));
        let write = || -> Result<(), WorkError> {
            for made in made {
                stages.time(Stage::Blob, || blob.update(&made.packed));
                file.write(&made.packed)?;
            }
            Ok(())
        };
        rayon::join(hash_tar, write).1?;
        for made in made {
            self.sizes.push(made.packed.len() as u64);
            self.written += made.packed.len() as u64;
        }
        Ok(())
    }

    fn finish(mut self, entries: Vec<Entry>) -> Result<LayerBlob, WorkError> {
        let toc = Toc::new(entries, self.sizes.iter().copied());
        let table = toc.encode().map_err(WorkError::Compress)?;
        let (trailer, place) = TocPlace::trailer(&table, self.written);
        self.blob.update(&trailer);
        self.file.write(&trailer)?;
        self.file.finish();
        Ok(LayerBlob {
            digest: self.blob.finish(),
            size: self.written + trailer.len() as u64,
            diff_id: self.tar.finish(),
            place,
            toc,
            staged: self.staged,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use camino::Utf8PathBuf;
    use proptest::prelude::*;

    use super::super::Budget;
    use super::super::blocks::BLOCK;
    use super::super::collect::Collector;
    use super::*;
    use crate::model::{Buffers, BundlePath, Cancel};

    fn path(text: &str) -> BundlePath {
        BundlePath::new(text).unwrap()
    }

    fn noise(size: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2) + 1;
        (0..size)
            .map(|n| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if n % 3 == 0 { b'x' } else { state.to_be_bytes()[1] }
            })
            .collect()
    }

    /// The same layer in any order of arrival, with any memory and threads.
    fn layer(dir: &Utf8Path, memory: u64, jobs: usize, reverse: bool) -> LayerBlob {
        let budget = Arc::new(Budget::new(memory, jobs));
        if memory == 0 {
            while budget.keep(1 << 20, false) {}
        }
        let shared = Arc::new(Shared {
            budget: Arc::clone(&budget),
            buffers: Arc::new(Buffers::sized(BLOCK)),
            cancel: Cancel::new(),
            level: 3,
            stages: Stages::default(),
        });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build().unwrap();
        let writer = Writer::new(Arc::clone(&shared), dir).unwrap();
        let blob = pool.install(|| {
            let keeper = Arc::new(Keeper::new(budget, Arc::clone(&shared.buffers), dir.to_owned()));
            let mut collector = Collector::new(Arc::clone(&shared), Arc::clone(&keeper), Some(path("top")));
            let mut numbers: Vec<usize> = (0..400).collect();
            if reverse {
                numbers.reverse();
            }
            for n in numbers {
                let size = if n % 50 == 7 { 2_500_000 + n * 20_000 } else { n * 31 };
                let bytes = noise(size, n as u64);
                collector
                    .file(path(&format!("d{}/f{n}", n % 7)), 0o644, size as u64, &mut &bytes[..])
                    .unwrap();
            }
            collector.symlink(path("link"), "d1/f1".to_owned()).unwrap();
            // The first name in path order comes last.
            collector.hard_link(path("d0/a-name"), path("d3/f3")).unwrap();
            assemble(collector.finish(), &shared, &keeper, dir, &writer).unwrap()
        });
        writer.finish().unwrap();
        blob
    }

    #[test]
    fn the_same_bytes_whatever_the_memory_threads_and_order() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        let one = layer(&dir, 512 << 20, 1, false);
        for (memory, jobs, reverse) in [(512 << 20, 4, false), (0, 2, true), (64 << 20, 3, true)] {
            let other = layer(&dir, memory, jobs, reverse);
            assert_eq!((one.digest, one.diff_id), (other.digest, other.diff_id));
        }
        let names: Vec<_> = one.toc.entries.iter().map(|entry| entry.path.as_str()).take(3).collect();
        assert_eq!(names, ["top", "top/d0", "top/d0/a-name"]);

        let blob = dir.join("blob");
        Arc::into_inner(one.staged).unwrap().publish(&blob).unwrap();
        let bytes = std::fs::read(&blob).unwrap();
        assert_eq!(Digest::of(&bytes), one.digest);
        let place = TocPlace::from_footer(&bytes[bytes.len() - 72..]).unwrap();
        assert_eq!(place, one.place);
        let table = &bytes[usize::try_from(place.offset).unwrap()..][..usize::try_from(place.size).unwrap()];
        assert_eq!(Toc::decode(table).unwrap(), one.toc);

        let status = Command::new("sh")
            .args(["-c", "zstd -dc blob > blob.tar && mkdir tree && tar -C tree -xf blob.tar"])
            .current_dir(&dir)
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(Digest::of(&std::fs::read(dir.join("blob.tar")).unwrap()), one.diff_id);
        assert_eq!(std::fs::read(dir.join("tree/top/d0/a-name")).unwrap(), noise(93, 3));
        assert_eq!(std::fs::read(dir.join("tree/top/d3/f3")).unwrap(), noise(93, 3));
        assert_eq!(
            std::fs::read(dir.join("tree/top/d3/f157")).unwrap(),
            noise(2_500_000 + 157 * 20_000, 157)
        );
    }

    /// Random files: path to size and whether it is executable.
    fn files() -> impl Strategy<Value = std::collections::BTreeMap<String, (usize, bool)>> {
        let size = prop_oneof![6 => 0usize..5_000, 2 => 60_000usize..300_000, 1 => 1_000_000usize..1_100_000];
        let path = "[a-zé .-]{1,12}(/[a-z0-9]{1,100}){0,3}";
        prop::collection::btree_map(path, (size, any::<bool>()), 1..12)
    }

    fn random_layer(
        files: &[(String, (usize, bool))],
        spilled: bool,
        jobs: usize,
        dir: &Utf8Path,
    ) -> LayerBlob {
        let budget = Arc::new(Budget::new(0, jobs));
        while spilled && budget.keep(1 << 20, false) {}
        let shared = Arc::new(Shared {
            budget: Arc::clone(&budget),
            buffers: Arc::new(Buffers::sized(BLOCK)),
            cancel: Cancel::new(),
            level: 3,
            stages: Stages::default(),
        });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build().unwrap();
        let writer = Writer::new(Arc::clone(&shared), dir).unwrap();
        let blob = pool.install(|| {
            let keeper = Arc::new(Keeper::new(budget, Arc::clone(&shared.buffers), dir.to_owned()));
            let mut collector = Collector::new(Arc::clone(&shared), Arc::clone(&keeper), None);
            for (name, (size, executable)) in files.iter().rev() {
                let bytes = noise(*size, *size as u64);
                let mode = if *executable { 0o755 } else { 0o644 };
                collector.file(path(name), mode, *size as u64, &mut &bytes[..]).unwrap();
            }
            assemble(collector.finish(), &shared, &keeper, dir, &writer).unwrap()
        });
        writer.finish().unwrap();
        blob
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_random_tree_comes_back(files in files(), spilled: bool, jobs in 1usize..4) {
            // A path cannot be a file and a directory.
            let taken: Vec<String> = files.keys().cloned().collect();
            let files: Vec<_> = files
                .into_iter()
                .filter(|(name, _)| BundlePath::new(name).is_ok_and(|path| path.as_str() == name))
                .filter(|(name, _)| !taken.iter().any(|other| other.starts_with(&format!("{name}/"))))
                .collect();
            let keep = tempfile::tempdir().unwrap();
            let dir = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
            let blob = random_layer(&files, spilled, jobs, &dir);
            Arc::into_inner(blob.staged).unwrap().publish(&dir.join("blob")).unwrap();
            let bytes = std::fs::read(dir.join("blob")).unwrap();
            // A plain zstd reader passes over the table and the footer.
            let tar = zstd::stream::decode_all(&bytes[..]).unwrap();
            prop_assert_eq!(Digest::of(&tar), blob.diff_id);
            let mut found = Vec::new();
            for entry in ::tar::Archive::new(&tar[..]).entries().unwrap() {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().to_str().unwrap().to_owned();
                if !entry.header().entry_type().is_dir() {
                    let mode = entry.header().mode().unwrap();
                    let mut content = Vec::new();
                    std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
                    prop_assert_eq!(&content, &noise(content.len(), content.len() as u64));
                    found.push((name, (content.len(), mode == 0o755)));
                }
            }
            prop_assert_eq!(found, files);
        }
    }
}
