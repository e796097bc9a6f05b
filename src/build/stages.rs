//! Where a build's CPU time goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A stage of making a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading artifacts, inflating and parsing them, and their digests.
    Read,
    /// Digests of files.
    Files,
    /// Gathering small files and headers into runs.
    Gather,
    /// Compressing pieces.
    Compress,
    /// Unpacking large files' frames again, for the tar's digest.
    Unpack,
    /// Digests of layers' tars.
    Tar,
    /// Digests of layers' blobs.
    Blob,
    /// Writing blobs.
    Write,
}

/// CPU time of each stage, over all threads.
#[derive(Debug, Default)]
pub struct Stages([AtomicU64; 8]);

impl Stage {
    /// Every stage with its name.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Read, "read"),
        (Self::Files, "files' digests"),
        (Self::Gather, "gather"),
        (Self::Compress, "compress"),
        (Self::Unpack, "unpack"),
        (Self::Tar, "tars' digests"),
        (Self::Blob, "blobs' digests"),
        (Self::Write, "write"),
    ];
}

impl Stages {
    /// Does some work and counts the CPU time of this thread for a stage.
    pub fn time<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = thread_time();
        let done = work();
        let spent = thread_time().saturating_sub(start);
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.0[stage as usize].fetch_add(nanos, Ordering::Relaxed);
        done
    }

    /// What was counted, in the order of [`Stage::ALL`].
    pub fn totals(&self) -> [Duration; 8] {
        std::array::from_fn(|index| Duration::from_nanos(self.0[index].load(Ordering::Relaxed)))
    }
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
