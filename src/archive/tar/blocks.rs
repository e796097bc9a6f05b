//! A tar's bytes, block by block: read, skipped, counted.

use std::io::{self, BufRead, Read};

use super::{BLOCK, Reader, corrupt};
use crate::archive::Refusal;
use crate::archive::error::Fault;
use crate::model::ByteSize;

/// The longest long name or PAX header taken.
const MAX_EXTENSION: u64 = 1 << 20;
/// What an archive may hold besides content: so much, and so much again for each member.
const OVERHEAD: u64 = 64 << 20;
const OVERHEAD_PER_MEMBER: u64 = 16 << 10;

impl<R: Read> Reader<R> {
    /// The content of a long name or PAX header.
    pub(super) fn extension(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > MAX_EXTENSION {
            return Err(corrupt(self.position, "an extended header is longer than 1 MiB"));
        }
        let mut content = Vec::new();
        self.input.by_ref().take(size).read_to_end(&mut content)?;
        self.position += content.len() as u64;
        if (content.len() as u64) < size {
            return Err(self.truncated());
        }
        self.skip((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64)?;
        Ok(content)
    }

    /// Reads a block, or what is left of the stream; returns how much that was.
    pub(super) fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    pub(super) fn whole_block(&mut self, block: &mut [u8; BLOCK]) -> Result<(), Fault> {
        if self.block(block)? == BLOCK { Ok(()) } else { Err(self.truncated()) }
    }

    pub(super) fn skip(&mut self, mut count: u64) -> Result<(), Fault> {
        while count > 0 {
            let available = self.fill()?;
            if available == 0 {
                return Err(self.truncated());
            }
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(available);
            self.input.consume(step);
            self.position += step as u64;
            count -= step as u64;
        }
        Ok(())
    }

    pub(super) fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(buffer) => return Ok(buffer.len()),
            }
        }
    }

    /// Reads what follows the end marker, so that the whole artifact is seen.
    ///
    /// It is ignored, as every tar does: padding to the record size, mostly.
    pub(super) fn drain(&mut self) -> Result<(), Fault> {
        loop {
            self.check_overhead()?;
            let count = self.fill()?;
            if count == 0 {
                return Ok(());
            }
            self.input.consume(count);
            self.position += count as u64;
        }
    }

    /// Refuses an archive that goes on and on without ever holding a file.
    pub(super) fn check_overhead(&self) -> Result<(), Fault> {
        let overhead = self.position - self.content;
        if overhead > OVERHEAD + OVERHEAD_PER_MEMBER * self.members {
            return Err(Refusal::Overhead { size: ByteSize(overhead) }.into());
        }
        Ok(())
    }

    pub(super) fn truncated(&self) -> Fault {
        let within = if self.current.is_some() { "within this member" } else { "within a header" };
        Refusal::Truncated { at: self.position, within }.into()
    }
}
