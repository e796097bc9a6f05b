//! One file's bytes, as a visitor gets them.

use std::io::{self, Read};

use super::error::Fault;
use super::input::Input;
use super::{ArchiveError, Refusal};

/// Exactly the bytes that a member declares, or an error.
///
/// # Invariants
///
/// * The last byte is only handed out once the member is known to be whole: a zip's CRC is checked first.
/// * The first failure is kept for [`Self::finish`], whatever the visitor makes of it.
pub(super) struct Content<'a> {
    data: &'a mut dyn Read,
    left: u64,
    size: u64,
    input: &'a Input<'a>,
    failure: Option<Fault>,
}

impl<'a> Content<'a> {
    /// `data` has to end after `size` bytes.
    pub(super) fn new(data: &'a mut dyn Read, size: u64, input: &'a Input<'a>) -> Self {
        Self { data, left: size, size, input, failure: None }
    }

    /// Says what was wrong with the archive; reads what the visitor left first, if `to_end`.
    pub(super) fn finish(mut self, member: &[u8], to_end: bool) -> Result<(), ArchiveError> {
        if to_end {
            self.read_rest();
        }
        match self.failure {
            None => Ok(()),
            Some(fault) => Err(self.input.fault(Some(member), fault)),
        }
    }

    fn read_rest(&mut self) {
        if self.size == 0 {
            self.failure = self.check_end().err();
        }
        let mut scratch = [0; 16 << 10];
        while self.left > 0 && self.failure.is_none() {
            // A failure is kept in `self`.
            let _ = self.read(&mut scratch);
        }
    }

    fn check_end(&mut self) -> Result<(), Fault> {
        if retrying(self.data, &mut [0])? == 0 {
            Ok(())
        } else {
            Err(Refusal::WrongSize { size: self.size }.into())
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, Fault> {
        self.input.check_cancel_io()?;
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let count = match buf.get_mut(..most) {
            Some(buf) => retrying(self.data, buf)?,
            None => 0,
        };
        if count == 0 {
            return Err(Refusal::WrongSize { size: self.size }.into());
        }
        self.left -= count as u64;
        if self.left == 0 {
            self.check_end()?;
        }
        Ok(count)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::Error::other("the archive could not be read"));
        }
        if self.left == 0 || buf.is_empty() {
            return Ok(0);
        }
        self.read_some(buf).map_err(|fault| {
            let stand_in = match &fault {
                Fault::Io(error) => io::Error::new(error.kind(), error.to_string()),
                Fault::Refused(refusal) => io::Error::new(io::ErrorKind::InvalidData, refusal.to_string()),
            };
            self.failure = Some(fault);
            stand_in
        })
    }
}

fn retrying(data: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match data.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
