//! Making the layers that are not in the store yet.
//!
//! One driver a thread takes the next layer that is left, reads its source and puts it together; what
//! it gives the pool on the way (compressing, unpacking) is done by whoever has nothing else to do.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use camino::Utf8Path;

use super::collect::{Collector, Shared};
use super::source::{ArtifactSource, FilesSource};
use super::spill::Keeper;
use super::{BuildError, LayerBlob, Observer, WorkError, Writer, assemble};
use crate::archive::{self, Limits, VisitError, Visitor};
use crate::bundle::Node;
use crate::model::{BundlePath, Digest, Role};

/// A layer to make.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// From what.
    pub source: Source,
    /// For whom, to tell them how far it is.
    pub roles: Vec<Role>,
    /// Whether the artifact's digest is wanted.
    pub hash: bool,
    /// Bytes to read.
    pub size: u64,
}

/// From what a layer is made.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// An artifact in `install/`.
    Artifact(Arc<ArtifactSource>),
    /// Files in memory.
    Files(Arc<FilesSource>),
}

/// A layer that was made.
#[derive(Debug)]
pub(super) struct Done {
    /// The layer.
    pub blob: LayerBlob,
    /// The artifact's digest, where it was wanted.
    pub digest: Option<Digest>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Everything that the drivers share.
#[derive(Clone, Copy)]
pub(super) struct Workshop<'a> {
    pub shared: &'a Arc<Shared>,
    pub dir: &'a Utf8Path,
    pub writer: &'a Writer,
    pub limits: Limits,
    pub observer: &'a dyn Observer,
}

/// Makes all layers, in parallel, within the pool that this is called in; results stand in the jobs' order.
pub(super) fn make_all(jobs: &[Job], workshop: Workshop<'_>) -> Result<Vec<Done>, BuildError> {
    let lanes = workshop.shared.budget.layers;
    let order = order(jobs.iter().map(|job| job.size), lanes);
    let queue = Mutex::new(VecDeque::from(order));
    let results: Vec<Mutex<Option<Done>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let failure: Mutex<Option<BuildError>> = Mutex::new(None);
    rayon::broadcast(|context| {
        if context.index() >= lanes {
            return;
        }
        while lock(&failure).is_none() {
            let Some(index) = lock(&queue).pop_front() else { break };
            match make(&jobs[index], workshop) {
                Ok(done) => *lock(&results[index]) = Some(done),
                Err(error) => {
                    // The first failure is the one to report; later ones may follow from it.
                    lock(&failure).get_or_insert(error);
                }
            }
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    results
        .into_iter()
        .map(|slot| {
            slot.into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .ok_or_else(|| BuildError::Internal("a layer was not made".to_owned()))
        })
        .collect()
}

/// In which order layers of these sizes are begun.
///
/// The largest first, for all lanes but one; then from the smallest up. Reading is a chain that no other
/// thread can help with, and a small layer has nothing to compress until it is read: as the last one it
/// would leave the others idle. While a large one is read there are always pieces to compress.
fn order(sizes: impl Iterator<Item = u64>, lanes: usize) -> Vec<usize> {
    let mut order: Vec<(u64, usize)> = sizes.zip(0..).collect();
    order.sort_by_key(|one| std::cmp::Reverse(*one));
    let first = lanes.saturating_sub(1).max(1);
    if let Some(rest) = order.get_mut(first..) {
        rest.reverse();
    }
    order.into_iter().map(|(_, index)| index).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes one layer.
pub(super) fn make(job: &Job, workshop: Workshop<'_>) -> Result<Done, BuildError> {
    let (budget, buffers) = (Arc::clone(&workshop.shared.budget), Arc::clone(&workshop.shared.buffers));
    let keeper = Arc::new(Keeper::new(budget, buffers, workshop.dir.to_owned()));
    let into = match &job.source {
        Source::Artifact(source) => source.selection.into.clone(),
        Source::Files(_) => None,
    };
    let mut collector = Collector::new(Arc::clone(workshop.shared), Arc::clone(&keeper), into);
    let what = describe(&job.source);
    let work = |source| BuildError::Work { what: what.clone(), source };
    let mut done = (None, Vec::new());
    match &job.source {
        Source::Artifact(source) => done = unpack(source, job, workshop, &mut collector)?,
        Source::Files(source) => collect_files(source, &mut collector).map_err(work)?,
    }
    let collected = collector.finish();
    if let Some(bad) = collected.iter().find(|one| one.entry.path.name().starts_with(".wh.")) {
        return Err(work(WorkError::Whiteout { path: bad.entry.path.to_string() }));
    }
    let blob = assemble(collected, workshop.shared, &keeper, workshop.dir, workshop.writer).map_err(work)?;
    Ok(Done { blob, digest: done.0, warnings: done.1 })
}

fn describe(source: &Source) -> String {
    match source {
        Source::Artifact(source) => format!("install/{}", source.name),
        Source::Files(source) => {
            source.files.first().map_or_else(|| "conf".to_owned(), |file| format!("conf ({})", file.path))
        }
    }
}

fn unpack(
    source: &ArtifactSource,
    job: &Job,
    workshop: Workshop<'_>,
    collector: &mut Collector,
) -> Result<(Option<Digest>, Vec<String>), BuildError> {
    let progress = |bytes| workshop.observer.read(&job.roles, bytes);
    let archive = archive::Source { name: source.name.as_str(), path: &source.path, format: source.format };
    let cancel = &workshop.shared.cancel;
    let outcome = archive::read(
        &archive,
        &source.selection,
        &workshop.limits,
        job.hash,
        cancel,
        &progress,
        &mut Unpacker(collector),
    );
    match outcome {
        Ok(summary) => {
            let warn = |glob| format!("install/{}: the glob `{glob}` matches nothing in it", source.name);
            Ok((summary.digest, summary.unmatched.iter().map(warn).collect()))
        }
        Err(archive::ArchiveError::Visitor(error)) => match error.downcast::<WorkError>() {
            Ok(source_error) => {
                Err(BuildError::Work { what: format!("install/{}", source.name), source: *source_error })
            }
            Err(other) => Err(archive::ArchiveError::Visitor(other).into()),
        },
        Err(other) => Err(other.into()),
    }
}

fn collect_files(source: &FilesSource, collector: &mut Collector) -> Result<(), WorkError> {
    for path in &source.directories {
        collector.directory(path.clone())?;
    }
    for file in &source.files {
        match &file.node {
            Node::File { mode, .. } => {
                collector.file(file.path.clone(), *mode, file.bytes.len() as u64, &mut &file.bytes[..])?;
            }
            Node::Symlink { target } => collector.symlink(file.path.clone(), target.clone())?,
            Node::Directory => collector.directory(file.path.clone())?,
            Node::HardLink { target } => collector.hard_link(file.path.clone(), target.clone())?,
        }
    }
    Ok(())
}

/// Hands an archive's members to a collector.
struct Unpacker<'a>(&'a mut Collector);

impl Visitor for Unpacker<'_> {
    fn restart(&mut self) -> Result<(), VisitError> {
        self.0.forget();
        Ok(())
    }

    fn directory(&mut self, path: BundlePath) -> Result<(), VisitError> {
        Ok(self.0.directory(path)?)
    }

    fn file(
        &mut self,
        path: BundlePath,
        mode: u16,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<(), VisitError> {
        Ok(self.0.file(path, mode, size, data)?)
    }

    fn symlink(&mut self, path: BundlePath, target: String) -> Result<(), VisitError> {
        Ok(self.0.symlink(path, target)?)
    }

    fn hard_link(&mut self, path: BundlePath, target: BundlePath) -> Result<(), VisitError> {
        Ok(self.0.hard_link(path, target)?)
    }
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn the_largest_is_first_and_the_last_is_no_small_one() {
        let begun = |sizes: &[u64], lanes| -> Vec<u64> {
            order(sizes.iter().copied(), lanes).into_iter().map(|index| sizes[index]).collect()
        };
        assert_eq!(begun(&[5, 30, 1, 20], 1), [30, 1, 5, 20]);
        assert_eq!(begun(&[5, 30, 1, 20], 2), [30, 1, 5, 20]);
        assert_eq!(begun(&[5, 30, 1, 20], 3), [30, 20, 1, 5]);
        assert_eq!(begun(&[5, 30, 1, 20], 8), [30, 20, 5, 1]);
        assert!(begun(&[], 2).is_empty());
    }
}
