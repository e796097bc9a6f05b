//! Tables of contents: what is read is valid, and written again gives what was read.
//!
//! The first byte says whether the rest is the table as it stands in a blob, or what is inside its compression.

use windlass::bundle::{Toc, Tree};

pub(crate) fn run(input: &[u8]) {
    let [how, rest @ ..] = input else { return };
    let packed;
    let bytes = if how & 1 == 0 {
        rest
    } else {
        // One raw block of RFC 8878: compressing would hide the bytes from the fuzzer.
        packed = raw_frame(rest);
        &packed
    };
    let Ok(toc) = Toc::decode(bytes) else { return };
    let again = Toc::decode(&toc.encode().expect("a table can be written")).expect("and read");
    assert_eq!(again, toc);
    assert_eq!(toc.entries.len(), toc.offsets.len());
    assert!(toc.entries.windows(2).all(|pair| pair[0].path < pair[1].path));
    let end = toc.tar_size();
    for (entry, offset) in toc.entries.iter().zip(&toc.offsets) {
        assert!(offset + entry.size() <= end, "a file reaches beyond its tar");
        let frames = toc.frames_of(*offset, entry.size());
        assert_eq!(frames.is_empty(), entry.size() == 0);
    }
    let _ = (toc.files(), toc.unpacked_size(), toc.frames_size());
    let _ = Tree::new([toc.entries.as_slice()]).map(|tree| tree.totals());
}

/// `bytes` as a zstd frame of uncompressed blocks.
fn raw_frame(bytes: &[u8]) -> Vec<u8> {
    // Magic; a descriptor without checksum, single segment or content size; a window of 128 KiB.
    let mut out = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x38];
    let mut chunks = bytes.chunks(64 << 10).peekable();
    if chunks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0]);
    }
    while let Some(chunk) = chunks.next() {
        let last = u32::from(chunks.peek().is_none());
        let header = (u32::try_from(chunk.len()).expect("64 KiB") << 3) | last;
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(chunk);
    }
    out
}
