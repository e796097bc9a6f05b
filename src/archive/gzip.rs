//! gzip of several members, as `cat a.gz b.gz`, pigz and bgzip make it.
//!
//! Unlike `flate2::bufread::MultiGzDecoder` it takes zeros after the last member, which tapes and
//! some build tools leave; anything else there is refused.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use super::sniff;

pub(super) struct Gunzip<R> {
    /// `None` once the last member has ended.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(input: R) -> Self {
        Self { member: Some(GzDecoder::new(input)) }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buf)?;
            if count > 0 || buf.is_empty() {
                return Ok(count);
            }
            let Some(mut input) = self.member.take().map(GzDecoder::into_inner) else { break };
            if next_member(&mut input)? {
                self.member = Some(GzDecoder::new(input));
            }
        }
        Ok(0)
    }
}

/// Whether another member follows; what follows otherwise may only be zeros.
fn next_member(input: &mut impl BufRead) -> io::Result<bool> {
    let mut padding = false;
    loop {
        let ahead = input.fill_buf()?;
        let Some(first) = ahead.first() else { return Ok(false) };
        // One byte will do: a member cut after it fails on its own.
        if !padding && (sniff::is_gzip(ahead) || ahead == [0x1f]) {
            return Ok(true);
        }
        if *first != 0 || ahead.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "something other than gzip follows its end",
            ));
        }
        padding = true;
        let count = ahead.len();
        input.consume(count);
    }
}
