//! A client in a thread of its own that works until a test has seen enough of it.
//!
//! Tests wait for a number of answers, never for a time: how much a client gets done depends on the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a client may take to get anything done before its test fails.
const BACKSTOP: Duration = Duration::from_mins(2);

/// What the client's thread sees of its test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Pace {
    /// Whether the client is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts one answer.
    pub(crate) fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// A running client; `T` is what it returns. It ends when dropped.
pub(crate) struct Worker<T> {
    what: &'static str,
    pace: Pace,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a client; `what` names what it counts, for messages.
    pub(crate) fn start(what: &'static str, work: impl FnOnce(&Pace) -> T + Send + 'static) -> Self {
        let pace = Pace::default();
        let seen = pace.clone();
        Self { what, pace, thread: Some(std::thread::spawn(move || work(&seen))) }
    }

    /// Waits until the client has counted `more` than now, and at least `least` in all.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64, least: u64) {
        let count = || self.pace.done.load(Ordering::Relaxed);
        let wanted = least.max(count() + more);
        let until = Instant::now() + BACKSTOP;
        while count() < wanted {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended || count() >= wanted, "the client ended after {} {}", count(), self.what);
            assert!(Instant::now() < until, "{} {} of {wanted} after {BACKSTOP:?}", count(), self.what);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the client.
    pub(crate) fn stop(mut self) -> T {
        self.pace.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.pace.stop.store(true, Ordering::Relaxed);
    }
}
