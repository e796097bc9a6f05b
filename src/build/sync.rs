//! A thread that waits for the disk so that the pool need not.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::fs::{IoError, Staged};

/// Brings written files to the disk in the background.
#[derive(Debug)]
pub(super) struct Syncer {
    sender: Mutex<Option<Sender<Arc<Staged>>>>,
    thread: Mutex<Option<JoinHandle<Result<(), IoError>>>>,
}

impl Syncer {
    /// Starts the thread.
    pub(super) fn new() -> Self {
        let (sender, receiver) = channel::<Arc<Staged>>();
        let thread = std::thread::spawn(move || {
            let mut outcome = Ok(());
            // After a failure the queue is still drained, so that nobody waits for it.
            for staged in receiver {
                if outcome.is_ok() {
                    outcome = staged.sync();
                }
            }
            outcome
        });
        Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) }
    }

    /// Asks for a file as it is now to be brought to the disk.
    pub(super) fn start(&self, staged: Arc<Staged>) {
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            // The receiver lives until the sender goes.
            let _ = sender.send(staged);
        }
    }

    /// Waits until all that was asked for is on the disk.
    pub(super) fn finish(&self) -> Result<(), IoError> {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        match self.thread.lock().unwrap_or_else(PoisonError::into_inner).take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}
