//! One member's content, holes filled.

use std::io::{self, Read};

use super::Reader;
use crate::archive::sparse::Run;

/// The content of the member last found.
pub(super) struct Body<'a, R>(pub(super) &'a mut Reader<R>);

impl<R: Read> Body<'_, R> {
    fn stored(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let tar = &mut *self.0;
        let most = usize::try_from(tar.stored).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let count = tar.input.read(&mut buf[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TruncatedMember(tar.position)));
        }
        tar.position += count as u64;
        tar.content += count as u64;
        tar.stored -= count as u64;
        Ok(count)
    }
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(sparse) = &mut self.0.sparse else { return self.stored(buf) };
        let (run, hole) = match sparse.next_run() {
            Run::End => return Ok(0),
            Run::Hole(length) => (length, true),
            Run::Data(length) => (length, false),
        };
        let most = usize::try_from(run).unwrap_or(usize::MAX).min(buf.len());
        let buf = &mut buf[..most];
        let count = if hole {
            buf.fill(0);
            most
        } else {
            self.stored(buf)?
        };
        if let Some(sparse) = &mut self.0.sparse {
            sparse.advance(count as u64);
        }
        Ok(count)
    }
}

/// Where a tar ended within a member's content.
#[derive(Debug, thiserror::Error)]
#[error("the tar ends after {0} bytes")]
pub(in crate::archive) struct TruncatedMember(pub(in crate::archive) u64);
