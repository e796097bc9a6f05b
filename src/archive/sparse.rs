//! Files with holes: which pieces of them a tar holds, and where they belong.

use super::Refusal;

/// More segments than any file system hands out for a real file; each costs 16 bytes here.
pub(super) const MAX_SEGMENTS: u64 = 1 << 20;

/// A piece of a file that is in the archive; what is between pieces is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A file with holes, read from its start.
#[derive(Debug)]
pub(super) struct Sparse {
    segments: std::vec::IntoIter<Segment>,
    current: Option<Segment>,
    at: u64,
    real_size: u64,
}

/// What comes next in a file with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// So many zeros.
    Hole(u64),
    /// So many bytes of the archive.
    Data(u64),
    End,
}

impl Sparse {
    /// Checks that the segments are in order, apart, inside the file, and use all that is stored.
    pub(super) fn new(segments: Vec<Segment>, real_size: u64, stored: u64) -> Result<Self, &'static str> {
        let mut end = 0;
        let mut sum = 0u64;
        for segment in &segments {
            // Each piece starts a tar block of its own, so only the last may end within one. Readers
            // disagree about archives where that is not so.
            if segment.length > 0 && !sum.is_multiple_of(512) {
                return Err("a sparse map has a piece that is no multiple of 512 bytes long");
            }
            if segment.offset < end {
                return Err("a sparse map is out of order");
            }
            end = segment.offset.checked_add(segment.length).ok_or("a sparse map is out of range")?;
            sum = sum.checked_add(segment.length).ok_or("a sparse map is out of range")?;
        }
        if end > real_size {
            return Err("a sparse map goes past the end of its file");
        }
        if sum != stored {
            return Err("a sparse map does not fit what is stored");
        }
        Ok(Self { segments: segments.into_iter(), current: None, at: 0, real_size })
    }

    pub(super) fn real_size(&self) -> u64 {
        self.real_size
    }

    pub(super) fn next_run(&mut self) -> Run {
        loop {
            let Some(segment) = self.current else {
                match self.segments.next() {
                    Some(next) => self.current = Some(next),
                    None if self.at < self.real_size => return Run::Hole(self.real_size - self.at),
                    None => return Run::End,
                }
                continue;
            };
            if self.at < segment.offset {
                return Run::Hole(segment.offset - self.at);
            }
            let left = (segment.offset + segment.length).saturating_sub(self.at);
            if left > 0 {
                return Run::Data(left);
            }
            self.current = None;
        }
    }

    /// Goes on by `count` bytes of the run.
    pub(super) fn advance(&mut self, count: u64) {
        self.at += count;
    }
}

/// The map at the start of a PAX 1.0 sparse file: decimal numbers, one a line, first their pairs' number.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    count: Option<u64>,
    offset: Option<u64>,
    segments: Vec<Segment>,
    digits: Vec<u8>,
}

impl MapReader {
    /// Takes in one block; the map, once it is whole.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<Option<Vec<Segment>>, Refusal> {
        let wrong = || Refusal::Corrupt { what: "the map of a sparse file is malformed".to_owned() };
        for byte in block {
            match byte {
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(*byte),
                b'\n' if !self.digits.is_empty() => {
                    let number = super::pax::number(&self.digits).map_err(|_| wrong())?;
                    self.digits.clear();
                    self.number(number).ok_or_else(wrong)?;
                    if self.count == Some(self.segments.len() as u64) && self.offset.is_none() {
                        return Ok(Some(std::mem::take(&mut self.segments)));
                    }
                }
                _ => return Err(wrong()),
            }
        }
        Ok(None)
    }

    fn number(&mut self, number: u64) -> Option<()> {
        match (self.count, self.offset.take()) {
            (None, _) => self.count = (number <= MAX_SEGMENTS).then_some(Some(number))?,
            (Some(_), None) => self.offset = Some(number),
            (Some(_), Some(offset)) => self.segments.push(Segment { offset, length: number }),
        }
        Some(())
    }
}
