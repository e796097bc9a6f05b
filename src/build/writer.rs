//! A thread that writes blobs and brings them to the disk, so that the pool need not wait for it.
//!
//! Whole chunks go past the system's page cache where the file system allows it: copying into fresh pages
//! takes several times the processor's time, and the sync at a blob's end finds next to nothing to do.
//!
//! # Invariants
//!
//! * A chunk is given back once it is written, and a layer that waits for one holds none: as long as there
//!   are as many chunks as layers in work, somebody can go on.
//! * After a failure nothing is written any more, and whoever writes next hears of it.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use camino::Utf8Path;

use super::Stage;
use super::collect::{Shared, help};
use crate::fs::{AlignedBuffer, IoError, IoResultExt as _, Staged, is_direct, set_direct};

/// Bytes that are written at a time: 1 MiB. A disk that is written to directly wants them large.
pub(super) const CHUNK: usize = 1 << 20;

/// Bytes after which a file that is written through the page cache is synced.
const SYNC_EVERY: u64 = 32 << 20;

/// Writes files in the background.
#[derive(Debug)]
pub(super) struct Writer {
    sender: Mutex<Option<Sender<Task>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    desk: Arc<Desk>,
}

/// What the thread and those who write share.
#[derive(Debug)]
struct Desk {
    shared: Arc<Shared>,
    chunks: Mutex<Chunks>,
    /// The first; everybody is told of it, as any layer's end may be the one that is told on.
    failure: Mutex<Option<IoError>>,
}

#[derive(Debug, Default)]
struct Chunks {
    free: Vec<Chunk>,
    made: usize,
}

/// Bytes for one write, aligned as direct writes need it.
#[derive(Debug)]
struct Chunk {
    room: AlignedBuffer,
    filled: usize,
}

#[derive(Debug)]
struct Task {
    staged: Arc<Staged>,
    at: u64,
    chunk: Chunk,
    last: bool,
}

/// A file that is being written from its start to its end.
pub(super) struct Outgoing<'a> {
    writer: &'a Writer,
    staged: Arc<Staged>,
    at: u64,
    chunk: Option<Chunk>,
}

impl Writer {
    /// Starts the thread; `dir` is for messages.
    pub(super) fn new(shared: Arc<Shared>, dir: &Utf8Path) -> Result<Self, IoError> {
        let (sender, receiver) = channel();
        let desk = Arc::new(Desk { shared, chunks: Mutex::default(), failure: Mutex::default() });
        let thread = std::thread::Builder::new().spawn({
            let desk = Arc::clone(&desk);
            move || desk.work(&receiver)
        });
        let thread = Mutex::new(Some(thread.at("start a thread to write to", dir)?));
        Ok(Self { sender: Mutex::new(Some(sender)), thread, desk })
    }

    /// Starts to write a file.
    pub(super) fn file(&self, staged: Arc<Staged>) -> Outgoing<'_> {
        Outgoing { writer: self, staged, at: 0, chunk: None }
    }

    /// Waits until all files that were finished are on the disk.
    pub(super) fn finish(&self) -> Result<(), IoError> {
        drop(held(&self.sender).take());
        if let Some(Err(panic)) = held(&self.thread).take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        self.desk.check()
    }

    fn send(&self, task: Task) {
        if let Some(sender) = &*held(&self.sender) {
            // The receiver lives until the sender goes.
            let _ = sender.send(task);
        }
    }
}

/// A build that is given up waits for the write that is being made and for no other: then no file of it is left in
/// the thread's hands.
impl Drop for Writer {
    fn drop(&mut self) {
        let given_up = || IoError::new("write", "a layer".into(), io::ErrorKind::Interrupted);
        held(&self.desk.failure).get_or_insert_with(given_up);
        drop(held(&self.sender).take());
        if let Some(thread) = held(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Outgoing<'_> {
    /// Writes the next bytes, later.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), IoError> {
        while !bytes.is_empty() {
            let chunk = self.chunk.get_or_insert_with(|| self.writer.desk.chunk());
            bytes = chunk.take_in(bytes);
            if chunk.filled == CHUNK {
                self.writer.desk.check()?;
                self.send(false);
            }
        }
        Ok(())
    }

    /// Nothing follows: the file is synced once all of it is written.
    pub(super) fn finish(mut self) {
        self.send(true);
    }

    fn send(&mut self, last: bool) {
        let chunk = self.chunk.take().unwrap_or_else(|| self.writer.desk.chunk());
        let (staged, at) = (Arc::clone(&self.staged), self.at);
        self.at += chunk.filled as u64;
        self.writer.send(Task { staged, at, chunk, last });
    }
}

/// A file that is given up keeps no chunk from the others.
impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.writer.desk.give(chunk);
        }
    }
}

impl Desk {
    /// An empty chunk; helps the pool until there is one.
    fn chunk(&self) -> Chunk {
        loop {
            let mut chunks = held(&self.chunks);
            if let Some(chunk) = chunks.free.pop() {
                return chunk;
            }
            if chunks.made < self.shared.budget.chunks {
                chunks.made += 1;
                return Chunk::new();
            }
            drop(chunks);
            help();
        }
    }

    fn work(&self, tasks: &Receiver<Task>) {
        // After a failure the queue is still emptied, so that nobody waits for a chunk.
        for task in tasks {
            if held(&self.failure).is_none()
                && let Err(error) = self.shared.stages.time(Stage::Write, || task.write())
            {
                *held(&self.failure) = Some(error);
            }
            self.give(task.chunk);
        }
    }

    fn give(&self, mut chunk: Chunk) {
        chunk.filled = 0;
        held(&self.chunks).free.push(chunk);
    }

    fn check(&self) -> Result<(), IoError> {
        let failure = held(&self.failure);
        let Some(IoError { action, path, source }) = &*failure else { return Ok(()) };
        let again = match source.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(source.kind(), source.to_string()),
        };
        Err(IoError::new(action, path, again))
    }
}

impl Task {
    fn write(&self) -> Result<(), IoError> {
        let (file, bytes) = (self.staged.file(), self.chunk.bytes());
        let write = || file.write_all_at(bytes, self.at).at("write a layer to", self.staged.dir());
        if self.last {
            set_direct(file, false);
            write()?;
            return self.staged.sync();
        }
        if self.at == 0 {
            set_direct(file, true);
        }
        if let Err(error) = write() {
            // Some file systems take the flag and then no writes, or want another alignment.
            if error.source.kind() != io::ErrorKind::InvalidInput || !set_direct(file, false) {
                return Err(error);
            }
            write()?;
        }
        if (self.at + bytes.len() as u64).is_multiple_of(SYNC_EVERY) && !is_direct(file) {
            self.staged.sync()?;
        }
        Ok(())
    }
}

impl Chunk {
    fn new() -> Self {
        Self { room: AlignedBuffer::new(CHUNK), filled: 0 }
    }

    /// Takes in what fits; gives back the rest.
    fn take_in<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (here, rest) = bytes.split_at(bytes.len().min(CHUNK - self.filled));
        self.room[self.filled..][..here.len()].copy_from_slice(here);
        self.filled += here.len();
        rest
    }

    fn bytes(&self) -> &[u8] {
        &self.room[..self.filled]
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::super::blocks::BLOCK;
    use super::super::{Budget, Stages};
    use super::*;
    use crate::fs::ALIGNMENT;
    use crate::model::{Buffers, Cancel};

    fn shared() -> Arc<Shared> {
        Arc::new(Shared {
            budget: Arc::new(Budget::new(0, 1)),
            buffers: Arc::new(Buffers::sized(BLOCK)),
            cancel: Cancel::new(),
            level: 3,
            stages: Stages::default(),
        })
    }

    /// Files of every kind of length: empty, less than a chunk, whole chunks, more than all chunks together.
    #[test]
    fn what_was_written_is_in_the_files() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        let writer = Writer::new(shared(), &dir).unwrap();
        let lengths = [0, 1, ALIGNMENT, CHUNK - 1, CHUNK, 2 * CHUNK, 9 * CHUNK + 77];
        let content = |length: usize| -> Vec<u8> { (0..=250).cycle().take(length).collect() };
        let mut files = Vec::new();
        for length in lengths {
            let staged = Arc::new(Staged::new_in(&dir).unwrap());
            let mut file = writer.file(Arc::clone(&staged));
            content(length).chunks(300_001).for_each(|bytes| file.write(bytes).unwrap());
            file.finish();
            files.push(staged);
        }
        writer.finish().unwrap();
        for (length, staged) in lengths.into_iter().zip(files) {
            let path = dir.join(length.to_string());
            Arc::into_inner(staged).unwrap().publish(&path).unwrap();
            assert!(std::fs::read(&path).unwrap() == content(length), "{length}");
        }
    }

    /// A file that was opened for reading stands for a disk that takes nothing.
    #[test]
    fn a_failure_is_told_to_all_and_ends_the_others() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        let writer = Writer::new(shared(), &dir).unwrap();
        let bad = Arc::new(Staged::unwritable(&dir));
        let mut file = writer.file(Arc::clone(&bad));
        file.write(b"x").unwrap();
        file.finish();
        let mut file = writer.file(Arc::new(Staged::new_in(&dir).unwrap()));
        let bytes = vec![7; CHUNK];
        let error = (0..100_000).find_map(|_| file.write(&bytes).err()).unwrap();
        assert_eq!(error.source.raw_os_error(), Some(9), "{error:?}");
        assert_eq!(file.write(&bytes).unwrap_err().source.raw_os_error(), Some(9));
        assert_eq!(writer.finish().unwrap_err().source.raw_os_error(), Some(9));
    }
}
