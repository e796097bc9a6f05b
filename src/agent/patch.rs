//! Contents packed for the wire: a few small ones together, or a large one as what differs from an old one.

use std::borrow::Cow;
use std::io;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

/// The largest file, old or new, that a patch is made for: both are held in memory.
pub const MAX_PATCH: u64 = 128 << 20;

/// Up to so many bytes, old and new together, the ordinary search reaches all of them.
const NEAR: usize = 1 << 20;

/// Packs contents of together at most [`PIECE`](crate::bundle::layout::PIECE) bytes.
pub fn pack(contents: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    crate::bundle::frame::compress_run(contents, level, &mut out)?;
    Ok(out)
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, zstd::zstd_safe::get_error_name(code))
}

/// A patch of contents that were seen whole.
const WHOLE: u8 = 0;

/// A patch of what is between what both contents begin with and what both end with.
const BETWEEN: u8 = 1;

/// So much of what is common on either side serves as well to find the rest in.
const AROUND: usize = 64 << 10;

/// What turns `old` into `new`; both at most [`MAX_PATCH`] bytes.
///
/// A byte tells which of two it is. After 0 comes a zstd frame of `new`, with `old` as prefix. After 1 come the bytes that
/// both begin with and those that both end with (8 bytes each, little-endian), and a zstd frame of what `new` has between
/// them, with what `old` has there as prefix, and up to 64 KiB on either side. That is for large contents with small edits:
/// comparing takes a twentieth of the time of searching.
pub fn make_patch(old: &[u8], new: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let between = Some(Between::of(old, new)).filter(|between| {
        // Where there is much between, it may be found anywhere.
        old.len() + new.len() > NEAR && between.inside(new).len() <= NEAR / 4
    });
    let between = between.unwrap_or_default();
    let mut out = Vec::new();
    if between == Between::default() {
        out.push(WHOLE);
    } else {
        out.push(BETWEEN);
        for side in [between.before, between.after] {
            out.extend_from_slice(&(side as u64).to_le_bytes());
        }
    }
    compress(between.around(old), between.inside(new), level, &mut out)?;
    Ok(out)
}

/// Which bytes two contents have in common on either side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Between {
    before: usize,
    after: usize,
}

impl Between {
    fn of(old: &[u8], new: &[u8]) -> Self {
        const STEP: usize = 4 << 10;
        let steps = old.chunks(STEP).zip(new.chunks(STEP)).take_while(|(a, b)| a.len() == b.len() && a == b);
        let whole = steps.map(|(step, _)| step.len()).sum();
        let bytes = old[whole..].iter().zip(&new[whole..]).take_while(|(a, b)| a == b);
        let before = whole + bytes.count();
        let (old, new) = (&old[before..], &new[before..]);
        let steps =
            old.rchunks(STEP).zip(new.rchunks(STEP)).take_while(|(a, b)| a.len() == b.len() && a == b);
        let whole: usize = steps.map(|(step, _)| step.len()).sum();
        let rest = |content: &[u8]| content.len() - whole;
        let bytes = old[..rest(old)].iter().rev().zip(new[..rest(new)].iter().rev());
        Self { before, after: whole + bytes.take_while(|(a, b)| a == b).count() }
    }

    fn kept(&self) -> Option<usize> {
        self.before.checked_add(self.after)
    }

    /// What is between, of a content that is no shorter than both sides.
    fn inside<'a>(&self, content: &'a [u8]) -> &'a [u8] {
        &content[self.before..content.len() - self.after]
    }

    /// As [`Self::inside`], with what is near it.
    fn around<'a>(&self, content: &'a [u8]) -> &'a [u8] {
        let end = content.len() - self.after;
        &content[self.before.saturating_sub(AROUND)..end.saturating_add(AROUND).min(content.len())]
    }
}

fn compress(prefix: &[u8], content: &[u8], level: i32, out: &mut Vec<u8>) -> io::Result<()> {
    let all = prefix.len() + content.len();
    let mut context = CCtx::create();
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(all.next_power_of_two().trailing_zeros().clamp(10, 31)),
        // Where everything is within reach of the ordinary search it would only take time.
        CParameter::EnableLongDistanceMatching(all > NEAR),
        CParameter::ContentSizeFlag(true),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).map_err(zstd_error)?;
    }
    context.ref_prefix(prefix).map_err(zstd_error)?;
    let mut frame = Vec::with_capacity(compress_bound(content.len()));
    context.compress2(&mut frame, content).map_err(zstd_error)?;
    out.extend_from_slice(&frame);
    Ok(())
}

/// The content of `size` bytes that a patch makes of `old`.
pub fn apply_patch(old: &[u8], patch: &[u8], size: u64) -> io::Result<Vec<u8>> {
    Ok(patched(old, patch, size)?.concat())
}

/// As [`apply_patch`]: parts that make the content one after another, of which the first and the last are `old`'s.
pub fn patched<'a>(old: &'a [u8], patch: &[u8], size: u64) -> io::Result<[Cow<'a, [u8]>; 3]> {
    let size = usize::try_from(size).ok().filter(|size| *size as u64 <= MAX_PATCH);
    let size = size.ok_or_else(|| wrong("it is too large for a patch"))?;
    let (between, frame) = parse(patch)?;
    let inside = between.kept().and_then(|kept| size.checked_sub(kept).filter(|_| kept <= old.len()));
    let inside = inside.ok_or_else(|| wrong("it keeps more than there is"))?;
    let mut context = DCtx::create();
    context.ref_prefix(between.around(old)).map_err(zstd_error)?;
    let mut made = Vec::with_capacity(inside);
    context.decompress(&mut made, frame).map_err(zstd_error)?;
    if made.len() != inside {
        return Err(wrong("it makes another number of bytes than the table says"));
    }
    let after = &old[old.len() - between.after..];
    Ok([Cow::Borrowed(&old[..between.before]), Cow::Owned(made), Cow::Borrowed(after)])
}

/// Bytes that applying a patch takes besides the old content's, for one of `size` bytes.
pub fn memory_of(patch: &[u8], size: u64) -> u64 {
    let kept = parse(patch).ok().and_then(|(between, _)| between.kept());
    size.saturating_sub(kept.map_or(0, |kept| kept as u64))
}

fn parse(patch: &[u8]) -> io::Result<(Between, &[u8])> {
    match patch.split_first() {
        Some((&WHOLE, frame)) => Ok((Between::default(), frame)),
        Some((&BETWEEN, rest)) => {
            let (before, rest) = rest.split_first_chunk().ok_or_else(|| wrong("it is cut short"))?;
            let (after, frame) = rest.split_first_chunk().ok_or_else(|| wrong("it is cut short"))?;
            let side = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes));
            let (Ok(before), Ok(after)) = (side(before), side(after)) else {
                return Err(wrong("it keeps more than there is"));
            };
            Ok((Between { before, after }, frame))
        }
        _ => Err(wrong("it is of no kind that is known")),
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_on_either_side_is_left_out() {
        let old: Vec<u8> =
            (0..600_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let edit = |at: usize, gone: usize, text: &[u8]| {
            let mut new = old.clone();
            new.splice(at..at + gone, text.iter().copied());
            new
        };
        let moved = [&old[1_200_000..], &old[..1_200_000]].concat();
        let doubled = [&old[..], &old[..]].concat();
        let news = [
            edit(0, 0, b"at the start"),
            edit(old.len(), 0, b"at the end"),
            edit(1_000_001, 7, b"in the middle"),
            edit(1_000_001, 70_000, b""),
            edit(1_000_001, 0, &vec![7; 100_000]),
            old.clone(),
            old[..old.len() - 1].to_vec(),
            Vec::new(),
            moved,
            doubled,
        ];
        for new in &news {
            let patch = make_patch(&old, new, 3).unwrap();
            assert!(patch.len() < 5_000, "{} for {}", patch.len(), new.len());
            assert!(apply_patch(&old, &patch, new.len() as u64).unwrap() == *new);
            // From the other side as well.
            let back = make_patch(new, &old, 3).unwrap();
            assert!(apply_patch(new, &back, old.len() as u64).unwrap() == old);
        }
        let patch = make_patch(&old, &news[2], 3).unwrap();
        assert_eq!(patch[0], BETWEEN);
        let size = news[2].len() as u64;
        for end in 0..patch.len() {
            assert!(apply_patch(&old, &patch[..end], size).is_err(), "{end}");
        }
        for (at, value) in [(0, 2), (8, 1), (8, 0xff), (16, 0x80), (3, 0xff)] {
            let mut other = patch.clone();
            other[at] = value;
            assert!(apply_patch(&old, &other, size).is_err(), "{at}");
        }
        assert!(apply_patch(&old[..100], &patch, size).is_err());
        assert!(apply_patch(&old, &patch, 100).is_err());
    }

    #[test]
    fn a_patch_is_small_and_checked() {
        let old: Vec<u8> =
            (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut new = old.clone();
        new.splice(1_000_000..1_000_010, *b"windlass was here");
        let patch = make_patch(&old, &new, 3).unwrap();
        assert!(patch.len() < 10_000, "{}", patch.len());
        assert!(apply_patch(&old, &patch, new.len() as u64).unwrap() == new);
        assert!(apply_patch(&old, &patch, new.len() as u64 - 1).is_err());
        assert!(apply_patch(&old, &patch, MAX_PATCH + 1).is_err());
        assert!(apply_patch(&old[1..], &patch, new.len() as u64).map_or(true, |made| made != new));
    }
}
