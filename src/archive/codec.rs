//! From an artifact's bytes to those of the tar inside.
//!
//! Every decoder here reads all members, frames or streams to the end of the file and checks their
//! checksums, so that reading to the end has seen (and hashed) every byte of the artifact.

use std::io::{self, BufRead, Read};

use super::gzip::Gunzip;
use super::{Compression, Refusal, sniff};
use crate::model::ByteSize;

/// What an xz stream may ask for; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// What a zstd frame may ask for; `zstd --ultra -22` needs it all. Also the library's default.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Decompresses `input`, after a look at its first bytes.
pub(super) fn open<'a>(
    compression: Compression,
    mut input: impl BufRead + 'a,
) -> io::Result<Result<Box<dyn Read + 'a>, Refusal>> {
    if let Some(refusal) = check_start(compression, input.fill_buf()?) {
        return Ok(Err(refusal));
    }
    Ok(Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(Gunzip::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let flags = liblzma::stream::CONCATENATED | liblzma::stream::TELL_UNSUPPORTED_CHECK;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
    }))
}

fn check_start(compression: Compression, start: &[u8]) -> Option<Refusal> {
    if start.is_empty() {
        return Some(Refusal::Empty);
    }
    let (fits, expected) = match compression {
        // Without magic bytes of its own; its first header is checked when it is read.
        Compression::None => (true, "a tar"),
        Compression::Gzip => (sniff::is_gzip(start), "a gzip stream"),
        Compression::Zstd => (sniff::is_zstd(start), "a zstd stream"),
        Compression::Xz => (sniff::is_xz(start), "an xz stream"),
        Compression::Bzip2 => (sniff::is_bzip2(start), "a bzip2 stream"),
    };
    if fits {
        return None;
    }
    Some(match sniff::looks_like(start) {
        Some(found) => Refusal::LooksLike { expected, found },
        None => Refusal::NotA { expected },
    })
}

/// The limit that `error` says was hit, if it says so.
pub(super) fn memory_limit(error: &io::Error) -> Option<ByteSize> {
    let inner = error.get_ref()?;
    if let Some(xz) = inner.downcast_ref::<liblzma::stream::Error>() {
        return matches!(xz, liblzma::stream::Error::MemLimit).then_some(ByteSize(XZ_MEMORY));
    }
    // libzstd's errors come as text only.
    inner.to_string().contains("Frame requires too much memory").then_some(ByteSize(1 << ZSTD_WINDOW_LOG))
}
