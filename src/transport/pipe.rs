//! A pipe in memory, of whole [`Bytes`], with an end that can fail.
//!
//! It stands between a channel's tasks and whoever reads or writes the channel. Capacity is counted in
//! bytes, not messages: a peer that sends many small packets must not stall the connection.
//!
//! # Invariants
//!
//! * A reader sees every byte written before the end, then either end of file or the failure, never both.
//! * A pipe whose reader is gone swallows what is written when it is lossy, else fails the writer.
//! * Dropping the writer without [`PipeWriter::finish`] is an end of file.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// The end was written: no more bytes follow those in the queue.
    ended: Option<Result<(), Failure>>,
    /// The consumer has handed on all bytes and the end.
    drained: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// An I/O error that can be told twice.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: io::ErrorKind,
    pub(super) text: Arc<str>,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        io::Error::new(failure.kind, failure.text.to_string())
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    capacity: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; a poisoned one is as good as new.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing end.
#[derive(Debug)]
pub(super) struct PipeWriter(Arc<Shared>);

/// The reading end.
#[derive(Debug)]
pub(super) struct PipeReader {
    shared: Arc<Shared>,
    rest: Bytes,
}

/// A pipe whose writer waits once `capacity` bytes are unread.
pub(super) fn pipe(capacity: usize) -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Shared { state: Mutex::default(), capacity });
    (PipeWriter(shared.clone()), PipeReader { shared, rest: Bytes::new() })
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone")
}

impl PipeWriter {
    /// Waits until there is room; fails once the reader is gone.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if let Some(Err(failure)) = &state.ended {
            return Poll::Ready(Err(failure.clone().into()));
        }
        if state.reader_gone || state.ended.is_some() {
            return Poll::Ready(Err(gone()));
        }
        if state.bytes < self.0.capacity {
            return Poll::Ready(Ok(self.0.capacity - state.bytes));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Adds `bytes`, over the capacity if need be: [`Self::poll_room`] is what waits.
    pub(super) fn push(&self, bytes: Bytes) {
        let mut state = self.0.lock();
        if bytes.is_empty() || state.reader_gone || state.ended.is_some() {
            return;
        }
        state.bytes += bytes.len();
        state.queue.push_back(bytes);
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    /// Waits for room and adds `bytes`; they are dropped when the reader is gone.
    pub(super) async fn send_lossy(&self, bytes: Bytes) {
        if std::future::poll_fn(|cx| self.poll_room(cx)).await.is_ok() {
            self.push(bytes);
        }
    }

    /// Waits for room and adds `bytes`.
    pub(super) async fn send(&self, bytes: Bytes) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_room(cx)).await?;
        self.push(bytes);
        Ok(())
    }

    /// Writes the end, good or bad; a second end is ignored.
    pub(super) fn finish(&self, end: Result<(), Failure>) {
        let mut state = self.0.lock();
        if state.ended.is_none() {
            state.ended = Some(end);
        }
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    /// Ready once the reader is gone.
    pub(super) async fn reader_gone(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.reader_gone {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.finish(Ok(()));
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx))?;
        let taken = room.min(buf.len());
        self.push(Bytes::copy_from_slice(&buf[..taken]));
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ready once the other side has taken everything and the end.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish(Ok(()));
        let mut state = self.0.lock();
        if let Some(Err(failure)) = &state.ended {
            return Poll::Ready(Err(failure.clone().into()));
        }
        if state.drained {
            return Poll::Ready(Ok(()));
        }
        if state.reader_gone {
            return Poll::Ready(Err(gone()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl PipeReader {
    /// The next piece; `None` at the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        let mut state = self.shared.lock();
        if let Some(bytes) = state.queue.pop_front() {
            state.bytes -= bytes.len();
            if let Some(waker) = state.writer.take() {
                waker.wake();
            }
            return Poll::Ready(Ok(Some(bytes)));
        }
        match &state.ended {
            Some(Ok(())) => Poll::Ready(Ok(None)),
            Some(Err(failure)) => Poll::Ready(Err(failure.clone().into())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Tells a writer that waits in `shutdown` that all it wrote was handed on, or why it was not.
    pub(super) fn settle(&self, outcome: Result<(), Failure>) {
        let mut state = self.shared.lock();
        match outcome {
            Ok(()) => state.drained = true,
            Err(failure) => {
                state.queue.clear();
                state.bytes = 0;
                state.ended = Some(Err(failure));
            }
        }
        if let Some(waker) = state.writer.take() {
            waker.wake();
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader_gone = true;
        state.queue.clear();
        state.bytes = 0;
        if let Some(waker) = state.writer.take() {
            waker.wake();
        }
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut bytes) = ready!(self.poll_next(cx))? {
            let taken = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes.split_to(taken));
            self.rest = bytes;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn carries_bytes_then_the_end() {
        let (mut writer, mut reader) = pipe(4);
        let sent = tokio::spawn(async move {
            writer.write_all(b"hello, world").await.unwrap();
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        sent.await.unwrap();
        assert_eq!(text, "hello, world");
    }

    #[tokio::test]
    async fn a_failure_comes_after_the_bytes() {
        let (writer, mut reader) = pipe(4);
        writer.push(Bytes::from_static(b"ab"));
        writer.finish(Err(Failure { kind: io::ErrorKind::ConnectionAborted, text: "cut".into() }));
        let mut got = Vec::new();
        let error = reader.read_to_end(&mut got).await.unwrap_err();
        assert_eq!((got.as_slice(), error.kind()), (b"ab".as_slice(), io::ErrorKind::ConnectionAborted));
    }

    #[tokio::test]
    async fn a_writer_learns_that_its_reader_is_gone() {
        let (mut writer, reader) = pipe(1);
        writer.write_all(b"a").await.unwrap();
        drop(reader);
        assert_eq!(writer.write_all(b"b").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
