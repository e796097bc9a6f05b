//! Where a sparse file's map is kept: in GNU header blocks, in PAX records, or before its content.

use std::io::{self, Read};

use ::tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{BLOCK, Reader, corrupt};
use crate::archive::error::Fault;
use crate::archive::pax::{PaxSparse, SparseFormat};
use crate::archive::sparse::{MAX_SEGMENTS, MapReader, Segment, Sparse};

impl<R: Read> Reader<R> {
    /// The holes of the file that `header` describes; `None` if it has none.
    pub(super) fn sparse_map(
        &mut self,
        header: &Header,
        pax: PaxSparse,
        at: u64,
    ) -> Result<Option<Sparse>, Fault> {
        let missing = "a sparse file does not tell its size";
        if header.as_bytes()[156] == b'S' {
            let gnu = header.as_gnu().ok_or_else(|| corrupt(at, "a sparse file has no GNU header"))?;
            let real = gnu.real_size().map_err(|_| corrupt(at, missing))?;
            let segments = self.gnu_segments(&gnu.sparse, gnu.is_extended(), at)?;
            return Sparse::new(segments, real, self.stored).map(Some).map_err(|what| corrupt(at, what));
        }
        let Some(format) = pax.format()? else { return Ok(None) };
        let real = pax.real_size.ok_or_else(|| corrupt(at, missing))?;
        let segments = match format {
            SparseFormat::MapInData => self.map_in_data()?,
            SparseFormat::MapInHeader => {
                let segments = pax.segments.unwrap_or_default();
                if pax.count.is_some_and(|count| count != segments.len() as u64) {
                    return Err(corrupt(at, "a sparse map has more or fewer pieces than it declares"));
                }
                segments
            }
        };
        Sparse::new(segments, real, self.stored).map(Some).map_err(|what| corrupt(at, what))
    }

    /// The map of an old GNU sparse file: four pieces in the header, then 21 in each block that follows.
    fn gnu_segments(
        &mut self,
        first: &[GnuSparseHeader],
        mut more: bool,
        at: u64,
    ) -> Result<Vec<Segment>, Fault> {
        let mut segments = Vec::new();
        gnu_pieces(first, &mut segments, at)?;
        let mut extension = GnuExtSparseHeader::new();
        while more {
            self.whole_block(extension.as_mut_bytes())?;
            gnu_pieces(extension.sparse(), &mut segments, at)?;
            if segments.len() as u64 > MAX_SEGMENTS {
                return Err(corrupt(at, "a sparse map has too many pieces"));
            }
            more = extension.is_extended();
        }
        Ok(segments)
    }

    /// The map of a PAX 1.0 sparse file: blocks at the start of its content.
    fn map_in_data(&mut self) -> Result<Vec<Segment>, Fault> {
        let mut map = MapReader::default();
        loop {
            self.stored = self
                .stored
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| corrupt(self.position, "a sparse map is longer than its file"))?;
            let mut block = [0; BLOCK];
            self.whole_block(&mut block)?;
            if let Some(segments) = map.block(&block)? {
                return Ok(segments);
            }
        }
    }
}

fn gnu_pieces(pieces: &[GnuSparseHeader], segments: &mut Vec<Segment>, at: u64) -> Result<(), Fault> {
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let number = |field: io::Result<u64>| field.map_err(|_| corrupt(at, "a sparse map is malformed"));
        segments.push(Segment { offset: number(piece.offset())?, length: number(piece.length())? });
    }
    Ok(())
}
