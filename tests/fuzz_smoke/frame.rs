//! Frames: what unpacks has the size that was asked for, and what was packed comes back.

use windlass::bundle::frame;

pub(crate) fn run(input: &[u8]) {
    let [a, b, c, rest @ ..] = input else { return };
    let size = u64::from(u32::from_le_bytes([*a, *b, *c, 0]));
    let mut out = Vec::new();
    if frame::decompress(rest, size, &mut out).is_ok() {
        assert_eq!(out.len() as u64, size);
    }
    let mut packed = Vec::new();
    let compress = if b & 1 == 0 { frame::compress_run } else { frame::compress_data };
    compress(rest, i32::from(a % 9) + 1, &mut packed).expect("anything can be compressed");
    frame::decompress(&packed, rest.len() as u64, &mut out).expect("and unpacked");
    assert!(out == rest);
}
