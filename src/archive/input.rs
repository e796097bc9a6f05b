//! The artifact's bytes on their way in: counted, hashed, and stopped when asked to.
//!
//! # Invariants
//!
//! * Progress never counts a byte twice, however often the artifact is read, and ends at its size.
//! * A failure of the disk, or a cancellation, is remembered here and wins over whatever the
//!   decompressor made of it: a bad disk must not look like a bad archive.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use camino::Utf8Path;

use super::error::{Fault, printable};
use super::tar::TruncatedMember;
use super::{ArchiveError, Refusal, Source, codec};
use crate::model::{Cancel, Cancelled, Digest, Hasher};

/// An artifact being read, possibly several times.
pub(super) struct Input<'a> {
    name: &'a str,
    path: &'a Utf8Path,
    size: u64,
    cancel: &'a Cancel,
    progress: &'a dyn Fn(u64),
    reported: Cell<u64>,
    consumed: Cell<u64>,
    hasher: RefCell<Option<Hasher>>,
    failure: RefCell<Option<Failure>>,
}

enum Failure {
    Disk(io::Error),
    Cancelled(Cancelled),
}

impl<'a> Input<'a> {
    pub(super) fn new(
        source: &Source<'a>,
        cancel: &'a Cancel,
        progress: &'a dyn Fn(u64),
    ) -> Result<Self, ArchiveError> {
        let size = std::fs::metadata(source.path)
            .map_err(|error| ArchiveError::Open { path: source.path.to_owned(), source: error })?
            .len();
        Ok(Self {
            name: source.name,
            path: source.path,
            size,
            cancel,
            progress,
            reported: Cell::new(0),
            consumed: Cell::new(0),
            hasher: RefCell::new(None),
            failure: RefCell::new(None),
        })
    }

    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// The artifact's size when reading began.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Opens the artifact at its start; `hash` makes [`Self::digest`] mean something.
    pub(super) fn open(&self, hash: bool) -> Result<Meter<'_>, ArchiveError> {
        self.check_cancel()?;
        let file = File::open(self.path)
            .map_err(|source| ArchiveError::Open { path: self.path.to_owned(), source })?;
        self.consumed.set(0);
        *self.hasher.borrow_mut() = hash.then(Hasher::new);
        Ok(Meter { file, input: self })
    }

    /// The digest of what was read since the last [`Self::open`], if that asked for one.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.hasher.borrow_mut().take().map(Hasher::finish)
    }

    /// Reports what is left to report: the artifact is done.
    pub(super) fn report_done(&self) {
        self.report(self.size);
    }

    fn report(&self, position: u64) {
        let position = position.min(self.size);
        let before = self.reported.get();
        if position > before {
            self.reported.set(position);
            (self.progress)(position - before);
        }
    }

    pub(super) fn check_cancel(&self) -> Result<(), ArchiveError> {
        self.cancel.check().map_err(ArchiveError::from)
    }

    /// As [`Self::check_cancel`], for code below a [`Read`].
    pub(super) fn check_cancel_io(&self) -> io::Result<()> {
        self.cancel.check().map_err(|cancelled| self.remember(Failure::Cancelled(cancelled)))
    }

    /// Keeps `failure` for [`Self::fault`], and says what to return meanwhile.
    fn remember(&self, failure: Failure) -> io::Error {
        let stand_in = match &failure {
            Failure::Disk(error) => io::Error::from(error.kind()),
            Failure::Cancelled(cancelled) => io::Error::other(*cancelled),
        };
        *self.failure.borrow_mut() = Some(failure);
        stand_in
    }

    /// The error for a refusal of the archive, or of its member `member`.
    pub(super) fn refuse(&self, member: Option<&[u8]>, why: Refusal) -> ArchiveError {
        let archive = self.name.to_owned();
        match member {
            None => ArchiveError::Refused { archive, why },
            Some(name) => ArchiveError::Member { archive, member: printable(name), why },
        }
    }

    /// The error for a fault met while reading `member`.
    pub(super) fn fault(&self, member: Option<&[u8]>, fault: Fault) -> ArchiveError {
        let failure = self.failure.borrow_mut().take();
        match (failure, fault) {
            (Some(Failure::Cancelled(cancelled)), _) => cancelled.into(),
            (Some(Failure::Disk(source)), _) => ArchiveError::Read { path: self.path.to_owned(), source },
            (None, Fault::Refused(why)) => self.refuse(member, why),
            (None, Fault::Io(error)) => self.refuse(member, self.explain(&error)),
        }
    }

    /// What a decompressor's error says about the archive.
    fn explain(&self, error: &io::Error) -> Refusal {
        let truncated = error.get_ref().and_then(|inner| inner.downcast_ref::<TruncatedMember>());
        if let Some(TruncatedMember(at)) = truncated {
            Refusal::Truncated { at: *at, within: "within this member" }
        } else if let Some(limit) = codec::memory_limit(error) {
            Refusal::Memory { limit }
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            Refusal::Truncated { at: self.consumed.get().min(self.size), within: "within compressed data" }
        } else {
            Refusal::Corrupt { what: error.to_string() }
        }
    }
}

/// The artifact's file.
pub(super) struct Meter<'a> {
    file: File,
    input: &'a Input<'a>,
}

impl Read for Meter<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let input = self.input;
        input.check_cancel_io()?;
        let count = match self.file.read(buf) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(input.remember(Failure::Disk(error))),
        };
        if let Some(hasher) = &mut *input.hasher.borrow_mut() {
            hasher.update(buf.get(..count).unwrap_or_default());
        }
        input.consumed.set(input.consumed.get() + count as u64);
        input.report(input.consumed.get());
        Ok(count)
    }
}

impl Seek for Meter<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
