//! Compressions, old headers, single files, and files that are not what their names say.

use std::io::Write;

use insta::assert_snapshot;
use windlass::archive::{Selection, Strip};

use crate::archive::support::{Entry, Tar, all, gzip, read, refusal};

fn small() -> Vec<u8> {
    Tar::new().file("a", "1").dir("d").file("d/b", "2").end()
}

const SMALL: &str = "a 644 \"1\"\nd/\nd/b 644 \"2\"";

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Compress = fn(&[u8]) -> Vec<u8>;
const CODECS: [(&str, Compress); 4] = [("gz", gzip), ("xz", xz), ("bz2", bzip2), ("zst", zstd)];

#[test]
fn every_compression_in_one_piece_and_in_several() {
    assert_eq!(read("x.tar", &small(), &all()).unwrap().0.listing(), SMALL);
    for (name, compress) in CODECS {
        let name = format!("x.tar.{name}");
        assert_eq!(read(&name, &compress(&small()), &all()).unwrap().0.listing(), SMALL);
        let pieces: Vec<u8> = small().chunks(700).flat_map(compress).chain(compress(b"")).collect();
        assert_eq!(read(&name, &pieces, &all()).unwrap().0.listing(), SMALL, "{name}");
    }
}

#[test]
fn skippable_zstd_frames_are_skipped() {
    let skippable = b"\x52\x2a\x4d\x18\x03\0\0\0abc";
    let (before, after) = (zstd(&small()[..700]), zstd(&small()[700..]));
    let bytes = [&skippable[..], &before, skippable, &after, skippable].concat();
    assert_eq!(read("x.tar.zst", &bytes, &all()).unwrap().0.listing(), SMALL);
}

#[test]
fn gzip_may_be_padded_with_zeros_only() {
    for zeros in [1, 511, 300_000] {
        let padded = [gzip(&small()), vec![0; zeros]].concat();
        assert_eq!(read("x.tgz", &padded, &all()).unwrap().0.listing(), SMALL);
        let garbage = [padded, vec![1]].concat();
        let error = refusal("x.tgz", &garbage, &all());
        assert_eq!(error, "x.tgz: it is corrupt: something other than gzip follows its end");
    }
}

#[test]
fn garbage_after_the_end_is_corrupt() {
    for (name, compress) in CODECS {
        let bytes = [compress(&small()), b"garbage garbage garbage".to_vec()].concat();
        let error = refusal(&format!("x.tar.{name}"), &bytes, &all());
        assert!(error.contains("it is corrupt"), "{error}");
    }
}

#[test]
fn a_flipped_bit_is_noticed() {
    let content = "0123456789abcdef".repeat(64);
    let tar = Tar::new().file("a", &content).end();
    for (name, compress) in CODECS {
        let good = compress(&tar);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            // Names and times in headers are nobody's business; what is read must be the truth.
            if let Ok((seen, _)) = read(&format!("x.tar.{name}"), &bad, &all()) {
                assert_eq!(seen.content("a"), content.as_bytes(), "{name} {at}");
            }
        }
    }
}

#[test]
fn too_much_memory_is_said_so() {
    let tar = small();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(29).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&tar).unwrap();
    let bytes = encoder.finish().unwrap();
    assert_snapshot!(refusal("x.tar.zst", &bytes, &all()), @"x.tar.zst: it needs more memory to decompress than the 128 MiB that are allowed");
    // The dictionary's size in a header that says 512 MiB; the encoder is never asked for so much.
    let mut bytes = xz(&tar);
    let size = bytes[16];
    assert_eq!(bytes[14..16], [0x21, 1], "an LZMA2 filter, {size}");
    bytes[16] = 34;
    let crc = {
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..20]);
        crc.sum()
    };
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    assert_snapshot!(refusal("x.tar.xz", &bytes, &all()), @"x.tar.xz: it needs more memory to decompress than the 256 MiB that are allowed");
}

#[test]
fn files_that_are_something_else() {
    let page = b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>";
    assert_snapshot!(refusal("x.tar.gz", page, &all()), @"x.tar.gz: expected a gzip stream, but it starts like an HTML page");
    assert_snapshot!(refusal("x.tar", page, &all()), @"x.tar: expected a tar, but it starts like an HTML page");
    assert_snapshot!(refusal("x.zip", page, &all()), @"x.zip: expected a zip archive, but it starts like an HTML page");
    assert_snapshot!(refusal("x.tar.gz", b"PK\x03\x04....", &all()), @"x.tar.gz: expected a gzip stream, but it starts like a zip archive");
    assert_snapshot!(refusal("x.tar.xz", &gzip(&small()), &all()), @"x.tar.xz: expected an xz stream, but it starts like a gzip stream");
    assert_snapshot!(refusal("x.tar", &gzip(&small()), &all()), @"x.tar: expected a tar, but it starts like a gzip stream");
    assert_snapshot!(refusal("x.tar.gz", &gzip(&gzip(&small())), &all()), @"x.tar.gz: expected a tar, but it starts like a gzip stream");
    assert_snapshot!(refusal("x.tar.zst", &small(), &all()), @"x.tar.zst: expected a zstd stream, but it starts like a tar");
    assert_snapshot!(refusal("x.tar.bz2", b"hello", &all()), @"x.tar.bz2: expected a bzip2 stream, but it does not start like one");
    assert_snapshot!(refusal("x.tar", &b"hello ".repeat(200), &all()), @"x.tar: expected a tar, but it does not start like one");
    assert_snapshot!(refusal("x.zip", &b"hello ".repeat(200), &all()), @"x.zip: expected a zip archive, but it does not start like one");
    assert_snapshot!(refusal("x.zip", &small(), &all()), @"x.zip: expected a zip archive, but it starts like a tar");
    for name in ["x.tar", "x.tgz", "x.txz", "x.tbz2", "x.tar.zst", "x.zip"] {
        assert_eq!(refusal(name, b"", &all()), format!("{name}: the file is empty"));
    }
    assert_snapshot!(refusal("x.tgz", &gzip(b""), &all()), @"x.tgz: it is truncated: it ends after 0 bytes, without an end marker");
}

#[test]
fn old_headers() {
    let v7 = |flag, name: &str| Entry { magic: &[0; 8], ..Entry::new(flag, name) };
    let prefix = Entry { prefix: b"pre/fix".to_vec(), ..Entry::new(b'0', "p") };
    let gnu = Entry { magic: b"ustar  \0", content: b"g".to_vec(), ..Entry::new(b'0', "g") };
    let tar = Tar::new()
        .entry(&v7(0, "dir/"))
        .entry(&Entry { content: b"x".to_vec(), ..v7(0, "dir/f") })
        .entry(&Entry { prefix: b"ignored".to_vec(), ..v7(0, "v") })
        .entry(&prefix)
        .entry(&gnu)
        .entry(&Entry { content: b"7".to_vec(), ..Entry::new(b'7', "contiguous") })
        .entry(&Entry::new(b'V', "label"))
        .entry(&Entry { content: b"Ya\0\0".to_vec(), ..Entry::new(b'D', "dump/") })
        .entry(&Entry { link: b"dir/f".to_vec(), size: Some(1), ..Entry::new(b'1', "hard") });
    let listing = read("x.tar", &tar.end(), &all()).unwrap().0.listing();
    assert_snapshot!(listing, @r#"
    contiguous 644 "7"
    dir/
    dir/f 644 "x"
    dump/
    g 644 "g"
    hard == dir/f
    pre/fix/p 644 ""
    v 644 ""
    "#);
}

#[test]
fn extended_headers() {
    let long = "n".repeat(120);
    let entry = |flag, content: &str| Entry { content: content.into(), ..Entry::new(flag, "././@LongLink") };
    let tar = Tar::new()
        .pax(b'g', &[("path", "ignored"), ("size", "77")])
        .entry(&entry(b'L', &format!("{long}\0")))
        .file("short", "1")
        .entry(&entry(b'K', &format!("{long}\0")))
        .symlink("s", "short")
        .pax(b'x', &[("path", "päx"), ("size", "3"), ("mtime", "1.5"), ("comment", "a\nb")])
        .entry(&Entry { size: Some(0), content: b"123".to_vec(), ..Entry::new(b'0', "q") })
        .pax(b'x', &[("linkpath", "päx")])
        .symlink("t", "short")
        .end();
    let listing = read("x.tar", &tar, &all()).unwrap().0.listing().replace(&long, "LONG");
    assert_snapshot!(listing, @r#"
    LONG 644 "1"
    päx 644 "123"
    s -> LONG
    t -> päx
    "#);
}

#[test]
fn what_follows_the_end_marker_is_read_but_not_taken() {
    let bytes = [small(), Tar::new().file("c", "3").end()].concat();
    assert_eq!(read("x.tar", &bytes, &all()).unwrap().0.listing(), SMALL);
    assert_eq!(read("x.tgz", &gzip(&bytes), &all()).unwrap().0.listing(), SMALL);
    let mut one_block = small();
    one_block.truncate(one_block.len() - 512);
    assert_eq!(read("x.tar", &one_block, &all()).unwrap().0.listing(), SMALL);
}

#[test]
fn a_file_is_itself() {
    let one = |content: &[u8]| read("tool", content, &Selection::default()).unwrap().0.listing();
    assert_eq!(one(b"data"), "tool 644 \"data\"");
    assert_eq!(one(b""), "tool 644 \"\"");
    assert_eq!(one(b"#!/bin/sh\n"), "tool 755 \"#!/bin/sh\\n\"");
    assert_eq!(one(b"\x7fELF...."), "tool 755 \"\\u{7f}ELF....\"");
    let strip = Selection { strip: Strip::Count(1), ..all() };
    assert_snapshot!(refusal("tool", b"x", &strip), @"tool: nothing of it is selected; at its top it holds `tool`");
}
