//! Zips, hostile and odd.

use insta::assert_snapshot;
use windlass::archive::Selection;

use crate::archive::support::{Zip, all, read, refusal, without};

fn zip(members: &[Zip]) -> String {
    refusal("x.zip", &Zip::archive(members), &all())
}

fn listing(members: &[Zip]) -> String {
    read("x.zip", &Zip::archive(members), &all()).unwrap().0.listing()
}

#[test]
fn members() {
    let listing = listing(&[
        Zip { mode: 0o040_755, ..Zip::new("d/", "") },
        Zip { mode: 0o100_755, ..Zip::new("d/x", "1") },
        Zip { mode: 0o120_777, ..Zip::new("d/l", "x") },
        Zip { mode: 0, ..Zip::new("plain", "2") },
        Zip { mode: 0, host: 0, ..Zip::new("dos", "3") },
        Zip { mode: 0, host: 0, ..Zip::new("win\\dows", "4") },
        Zip { mode: 0, host: 0, ..Zip::new("win\\dir\\", "") },
        Zip { mode: 0, host: 0, ..Zip::new("mix/e\\d", "5") },
        Zip::new("un\\ix", "6"),
    ]);
    assert_snapshot!(listing, @r#"
    d/
    d/l -> x
    d/x 755 "1"
    dos 644 "3"
    mix/e\d 644 "5"
    plain 644 "2"
    un\ix 644 "6"
    win/dir/
    win/dows 644 "4"
    "#);
}

#[test]
fn names() {
    assert_snapshot!(zip(&[Zip::new("/a", "")]), @"x.zip: `/a`: the path is absolute");
    assert_snapshot!(zip(&[Zip::new("../a", "")]), @"x.zip: `../a`: the path has a `..` component");
    let windows = Zip { host: 0, mode: 0, ..Zip::new("..\\a", "") };
    assert_snapshot!(zip(&[windows]), @"x.zip: `../a`: the path has a `..` component");
    assert_snapshot!(zip(&[Zip::new(b"a\xff", "")]), @"x.zip: `a�`: the name is not UTF-8");
    assert_snapshot!(zip(&[Zip::new("a\0b", "")]), @r"x.zip: `a\u{0}b`: the path holds a NUL byte");
    assert_snapshot!(
        zip(&[Zip::new(".wh.a", "")]),
        @"x.zip: `.wh.a`: a name that starts with `.wh.` means a deletion in an OCI layer"
    );
}

#[test]
fn conflicts() {
    let twice = [Zip::new("a", "1"), Zip::new("b", ""), Zip::new("a", "2")];
    assert_snapshot!(zip(&twice), @"x.zip: `a`: two entries for one path");
    assert_snapshot!(zip(&[Zip::new("a", "1"), Zip::new("./a", "2")]), @"x.zip: `./a`: two entries for one path");
    let link = Zip { mode: 0o120_777, ..Zip::new("a", "b") };
    assert_snapshot!(
        zip(&[link, Zip::new("a/b", "2")]),
        @"x.zip: `a/b`: it lies below `a`, which is a symlink in this archive"
    );
}

#[test]
fn kinds() {
    let kind = |mode: u32| zip(&[Zip::new("b", ""), Zip { mode, ..Zip::new("a", "") }]);
    assert_snapshot!(kind(0o020_644), @"x.zip: `a`: it is a character device; only files, directories and links are taken");
    assert_snapshot!(kind(0o010_644), @"x.zip: `a`: it is a FIFO; only files, directories and links are taken");
    assert_snapshot!(kind(0o140_644), @"x.zip: `a`: it is a socket; only files, directories and links are taken");
    assert_snapshot!(kind(0o120_644), @"x.zip: `a`: the symlink has no target");
    assert_snapshot!(zip(&[Zip::new("a/", "x")]), @"x.zip: `a/`: it is a directory that declares 1 bytes of content");
    let link = |target: &str| zip(&[Zip { mode: 0o120_777, ..Zip::new("a", target) }]);
    assert_snapshot!(link("/x"), @"x.zip: `a`: the symlink leads to the absolute path `/x`");
    assert_snapshot!(link("../x"), @"x.zip: `a`: the symlink leads out of the bundle: `../x`");
    assert_snapshot!(link(&"x".repeat(5000)), @"x.zip: `a`: the symlink's target is longer than 4096 bytes");
}

#[test]
fn encryption_and_methods() {
    let odd = |method, flags| zip(&[Zip { method, flags, ..Zip::new("a", "x") }]);
    assert_snapshot!(odd(0, 1), @"x.zip: `a`: it is encrypted");
    assert_snapshot!(odd(9, 0), @"x.zip: `a`: it is compressed with Deflate64 (method 9), which is not supported");
    assert_snapshot!(odd(14, 0), @"x.zip: `a`: it is compressed with LZMA (method 14), which is not supported");
    assert_snapshot!(odd(777, 0), @"x.zip: `a`: it is compressed with an unknown method (method 777), which is not supported");
    let members = [Zip { method: 9, ..Zip::new("a", "x") }, Zip::new("b", "")];
    read("x.zip", &Zip::archive(&members), &without(&["a"])).unwrap();
}

#[test]
fn lies_about_content() {
    let crc = Zip { crc: Some(7), ..Zip::new("a", "x") };
    assert_snapshot!(zip(std::slice::from_ref(&crc)), @"x.zip: `a`: it is corrupt: Invalid checksum");
    let crc = Zip { content: Vec::new(), ..crc };
    assert_snapshot!(zip(&[crc]), @"x.zip: `a`: it is corrupt: Invalid checksum");
    let short = Zip { size: Some(9), ..Zip::new("a", "x") };
    assert_snapshot!(zip(&[short]), @"x.zip: `a`: it holds more or fewer bytes than the 9 that it declares");
    let link = Zip { size: Some(9), mode: 0o120_777, ..Zip::new("a", "x") };
    assert_snapshot!(zip(&[link]), @"x.zip: `a`: it holds more or fewer bytes than the 9 that it declares");
    let long = Zip { size: Some(1), ..Zip::new("a", "xyz") };
    assert_snapshot!(zip(&[long]), @"x.zip: `a`: it is corrupt: File is larger than its declared uncompressed size");
    let huge = Zip { size: Some(u32::MAX - 1), ..Zip::new("a", "x") };
    assert_snapshot!(zip(&[huge]), @"x.zip: `a`: it unpacks to more than max_unpacked, which is 1.0 GiB");
}

#[test]
fn broken_archives() {
    let good = Zip::archive(&[Zip::new("a", "x")]);
    assert_snapshot!(
        refusal("x.zip", &good[..40], &all()),
        @"x.zip: it is truncated: it ends after 40 bytes, without its central directory"
    );
    let empty = Zip::archive(&[]);
    assert_snapshot!(refusal("x.zip", &empty, &all()), @"x.zip: nothing of it is selected; it holds nothing");
}

#[test]
fn auto_strip() {
    let members = [Zip::new("top/a", "1"), Zip::new("top/b", "2")];
    let (seen, _) = read("x.zip", &Zip::archive(&members), &Selection::default()).unwrap();
    assert_eq!(seen.listing(), "a 644 \"1\"\nb 644 \"2\"");
    let members = [Zip::new("top/a", "1"), Zip::new("b", "2")];
    let (seen, _) = read("x.zip", &Zip::archive(&members), &Selection::default()).unwrap();
    assert_eq!(seen.listing(), "b 644 \"2\"\ntop/a 644 \"1\"");
}

#[test]
fn bytes_before_the_zip_are_fine() {
    // As self-extracting zips have them; offsets then count from the zip's own start.
    let zip = [b"#!/bin/sh\n".to_vec(), Zip::archive(&[Zip::new("a", "1")])].concat();
    assert_eq!(read("x.zip", &zip, &all()).unwrap().0.listing(), "a 644 \"1\"");
}
