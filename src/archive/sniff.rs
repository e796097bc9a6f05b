//! What a file's first bytes look like; only to explain a refusal, never to choose a format.

/// What `start`, the first bytes of a file, look like, with its article; `None` if like nothing known.
pub(super) fn looks_like(start: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 15] = [
        (b"\x1f\x8b", "a gzip stream"),
        (b"\x28\xb5\x2f\xfd", "a zstd stream"),
        (b"\xfd7zXZ\0", "an xz stream"),
        (b"BZh", "a bzip2 stream"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PK\x05\x06", "an empty zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!", "a rar archive"),
        (b"\x7fELF", "an ELF executable"),
        (b"#!", "a script"),
        (b"%PDF", "a PDF document"),
        (b"\xed\xab\xee\xdb", "an RPM package"),
        (b"!<arch>\n", "an ar archive or Debian package"),
        (b"-----BEGIN ", "a PEM file"),
        (b"version https://git-lfs", "a Git LFS pointer"),
    ];
    if let Some((_, what)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(what);
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some("a tar");
    }
    if !start.is_empty() && start.iter().all(|byte| *byte == 0) {
        return Some("a file of zeros");
    }
    let text = start.trim_ascii_start();
    let has = |prefix: &str| {
        text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    if has("<!doctype html") || has("<html") {
        Some("an HTML page")
    } else if has("<?xml") {
        Some("an XML document")
    } else if has("{") {
        Some("a JSON document")
    } else {
        None
    }
}

pub(super) fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(b"\x1f\x8b")
}

/// Also true for a skippable frame, which a zstd stream may start with.
pub(super) fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(b"\x28\xb5\x2f\xfd")
        || matches!(start, [low, 0x2a, 0x4d, 0x18, ..] if (0x50..=0x5f).contains(low))
}

pub(super) fn is_xz(start: &[u8]) -> bool {
    start.starts_with(b"\xfd7zXZ\0")
}

pub(super) fn is_bzip2(start: &[u8]) -> bool {
    start.starts_with(b"BZh")
}

/// Whether a kernel would run a file that starts so.
pub(super) fn is_executable(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF") || start.starts_with(b"#!")
}
