//! Contents packed for the wire: a few small ones together, or a large one as what differs from an old one.

use std::io;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

/// The largest file, old or new, that a patch is made for: both are held in memory.
pub const MAX_PATCH: u64 = 128 << 20;

/// Packs contents of together at most [`PIECE`](crate::bundle::layout::PIECE) bytes.
pub fn pack(contents: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    crate::bundle::frame::compress_run(contents, level, &mut out)?;
    Ok(out)
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, zstd::zstd_safe::get_error_name(code))
}

/// What turns `old` into `new`; both at most [`MAX_PATCH`] bytes.
pub fn make_patch(old: &[u8], new: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let window = (old.len() + new.len()).next_power_of_two().trailing_zeros().clamp(10, 31);
    let mut context = CCtx::create();
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window),
        CParameter::EnableLongDistanceMatching(true),
        CParameter::ContentSizeFlag(true),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).map_err(zstd_error)?;
    }
    context.ref_prefix(old).map_err(zstd_error)?;
    let mut out = Vec::with_capacity(compress_bound(new.len()));
    context.compress2(&mut out, new).map_err(zstd_error)?;
    Ok(out)
}

/// The content of `size` bytes that a patch makes of `old`.
pub fn apply_patch(old: &[u8], patch: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let size = usize::try_from(size).ok().filter(|size| *size as u64 <= MAX_PATCH);
    let size = size.ok_or_else(|| wrong("it is too large for a patch"))?;
    let mut context = DCtx::create();
    context.ref_prefix(old).map_err(zstd_error)?;
    let mut out = Vec::with_capacity(size);
    context.decompress(&mut out, patch).map_err(zstd_error)?;
    if out.len() == size {
        Ok(out)
    } else {
        Err(wrong("it makes another number of bytes than the table says"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
