//! Every archive, cut at many places: never a panic, never taken for whole.

use std::io::Write;

use crate::archive::support::{Entry, Tar, Zip, all, gzip, read};

fn sample() -> Tar {
    let noise: Vec<u8> =
        (0..3000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    Tar::new()
        .dir("d")
        .pax(b'x', &[("path", "d/päx"), ("comment", "x")])
        .entry(&Entry { content: noise, ..Entry::new(b'0', "d/a") })
        .symlink("d/l", "a")
        .file("d/b", &"b".repeat(700))
}

fn cut(name: &str, whole: &[u8], last: usize) {
    read(name, whole, &all()).unwrap();
    for at in 0..last {
        match read(name, &whole[..at], &all()) {
            Ok(_) => panic!("{name} was taken after {at} of {} bytes", whole.len()),
            Err(error) => assert!(error.is_refusal(), "{name} {at}: {error}"),
        }
    }
}

#[test]
fn tar() {
    // With one whole block of the end marker there, nothing is missing.
    cut("x.tar", &sample().end(), sample().bytes().len() + 512);
}

#[test]
fn compressed() {
    let tar = sample().end();
    let gz = gzip(&tar);
    cut("x.tar.gz", &gz, gz.len());
    let two = [gzip(&tar[..2000]), gzip(&tar[2000..])].concat();
    cut("x.tar.gz", &two, two.len());
    let zst = zstd::encode_all(&*tar, 3).unwrap();
    cut("x.tar.zst", &zst, zst.len());
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar).unwrap();
    let xz = xz.finish().unwrap();
    cut("x.tar.xz", &xz, xz.len());
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz.write_all(&tar).unwrap();
    let bz = bz.finish().unwrap();
    cut("x.tar.bz2", &bz, bz.len());
}

#[test]
fn zip() {
    let zip = Zip::archive(&[
        Zip { mode: 0o040_755, ..Zip::new("d/", "") },
        Zip::new("d/a", "a".repeat(300)),
        Zip { mode: 0o120_777, ..Zip::new("d/l", "a") },
    ]);
    cut("x.zip", &zip, zip.len());
}

#[test]
fn what_the_errors_say() {
    let tar = sample().end();
    let text = |at: usize| crate::archive::support::refusal("x.tar", &tar[..at], &all());
    insta::assert_snapshot!(text(100), @"x.tar: it is truncated: it ends after 100 bytes, without an end marker");
    insta::assert_snapshot!(text(512), @"x.tar: it is truncated: it ends after 512 bytes, without an end marker");
    insta::assert_snapshot!(text(3000), @"x.tar: `d/päx`: it is truncated: it ends after 3000 bytes, within this member");
    let gz = gzip(&tar);
    let text = crate::archive::support::refusal("x.tar.gz", &gz[..500], &all());
    insta::assert_snapshot!(text, @"x.tar.gz: `d/päx`: it is truncated: it ends after 500 bytes, within compressed data");
}
