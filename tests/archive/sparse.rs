//! Sparse files of all four kinds, whole and broken.

use crate::archive::support::{Entry, Tar, all, read, refusal};

/// A GNU sparse header: pieces of (offset, length), and the size with holes.
fn gnu(pieces: &[(u64, u64)], real: u64, content: &[u8]) -> Tar {
    let entry = Entry { magic: b"ustar  \0", content: content.to_vec(), ..Entry::new(b'S', "s") };
    let mut block = entry.header();
    let octal = |value: u64| format!("{value:011o}\0").into_bytes();
    for (n, (offset, length)) in pieces.iter().take(4).enumerate() {
        let at = 386 + n * 24;
        block[at..at + 12].copy_from_slice(&octal(*offset));
        block[at + 12..at + 24].copy_from_slice(&octal(*length));
    }
    block[482] = u8::from(pieces.len() > 4);
    block[483..495].copy_from_slice(&octal(real));
    crate::archive::support::sum(&mut block);
    let mut tar = Tar::new().blocks(&block);
    let mut rest = pieces.get(4..).unwrap_or_default();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(21));
        let mut block = [0; 512];
        for (n, (offset, length)) in now.iter().enumerate() {
            block[n * 24..n * 24 + 12].copy_from_slice(&octal(*offset));
            block[n * 24 + 12..n * 24 + 24].copy_from_slice(&octal(*length));
        }
        block[504] = u8::from(!later.is_empty());
        tar = tar.blocks(&block);
        rest = later;
    }
    tar.blocks(content).file("after", "!")
}

fn pax(version: &str, pieces: &[(u64, u64)], real: u64, content: &[u8]) -> Tar {
    let real = real.to_string();
    let mut records = vec![("GNU.sparse.name", "s")];
    let texts: Vec<_> = pieces.iter().map(|(o, l)| (o.to_string(), l.to_string())).collect();
    let count = pieces.len().to_string();
    let map = texts.iter().map(|(o, l)| format!("{o},{l}")).collect::<Vec<_>>().join(",");
    let mut stored = Vec::new();
    match version {
        "0.0" => {
            records.extend([("GNU.sparse.size", &*real), ("GNU.sparse.numblocks", &*count)]);
            for (offset, length) in &texts {
                records.extend([("GNU.sparse.offset", &**offset), ("GNU.sparse.numbytes", &**length)]);
            }
        }
        "0.1" => {
            records.extend([("GNU.sparse.size", &*real), ("GNU.sparse.numblocks", &*count)]);
            records.push(("GNU.sparse.map", &map));
        }
        _ => {
            records.extend([("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")]);
            records.push(("GNU.sparse.realsize", &real));
            stored = format!("{count}\n").into_bytes();
            stored.extend(texts.iter().flat_map(|(o, l)| format!("{o}\n{l}\n").into_bytes()));
            stored.resize(stored.len().next_multiple_of(512), 0);
        }
    }
    stored.extend(content);
    let entry = Entry { content: stored, ..Entry::new(b'0', "GNUSparseFile.1/s") };
    Tar::new().pax(b'x', &records).entry(&entry).file("after", "!")
}

type Make = fn(&[(u64, u64)], u64, &[u8]) -> Tar;
const KINDS: [(&str, Make); 4] = [
    ("gnu", gnu),
    ("0.0", |pieces, real, content| pax("0.0", pieces, real, content)),
    ("0.1", |pieces, real, content| pax("0.1", pieces, real, content)),
    ("1.0", |pieces, real, content| pax("1.0", pieces, real, content)),
];

#[test]
fn holes_are_zeros() {
    let content: Vec<u8> = (1..=200u8).cycle().take(512 + 512 + 100).collect();
    let pieces = [(1024, 512), (4096, 512), (9000, 100), (12_345, 0)];
    let mut expected = vec![0; 12_345];
    expected[1024..1536].copy_from_slice(&content[..512]);
    expected[4096..4608].copy_from_slice(&content[512..1024]);
    expected[9000..9100].copy_from_slice(&content[1024..]);
    for (kind, make) in KINDS {
        let (seen, summary) = read("x.tar", &make(&pieces, 12_345, &content).end(), &all()).unwrap();
        assert_eq!(seen.content("s"), expected, "{kind}");
        assert_eq!(seen.content("after"), b"!", "{kind}");
        assert_eq!(summary.unpacked, 12_346, "{kind}");
    }
}

#[test]
fn only_a_hole_and_no_hole() {
    for (kind, make) in KINDS {
        let (seen, _) = read("x.tar", &make(&[(5000, 0)], 5000, b"").end(), &all()).unwrap();
        assert_eq!(seen.content("s"), [0; 5000], "{kind}");
        let (seen, _) = read("x.tar", &make(&[(0, 3)], 3, b"abc").end(), &all()).unwrap();
        assert_eq!(seen.content("s"), b"abc", "{kind}");
    }
}

#[test]
fn many_pieces() {
    let pieces: Vec<_> = (0..60).map(|n| (n * 1024, 512)).collect();
    for (kind, make) in KINDS {
        let (seen, _) = read("x.tar", &make(&pieces, 60 * 1024, &vec![7; 60 * 512]).end(), &all()).unwrap();
        let content = seen.content("s");
        assert!((0..60).all(|n| content[n * 1024] == 7 && content[n * 1024 + 512] == 0), "{kind}");
    }
}

#[test]
fn broken_maps_are_refused() {
    for (pieces, real, stored, what) in [
        (&[(0, 512), (100, 512)][..], 2000, 1024, "a sparse map is out of order"),
        (&[(1000, 512), (0, 512)], 2000, 1024, "a sparse map is out of order"),
        (
            &[(0, 100), (1000, 512)],
            2000,
            612,
            "a sparse map has a piece that is no multiple of 512 bytes long",
        ),
        (&[(0, 512)], 100, 512, "a sparse map goes past the end of its file"),
        (&[(0, 512)], 2000, 1024, "a sparse map does not fit what is stored"),
        (&[(0, 1024)], 2000, 512, "a sparse map does not fit what is stored"),
    ] {
        for (kind, make) in KINDS {
            let error = refusal("x.tar", &make(pieces, real, &vec![1; stored]).end(), &all());
            assert!(error.ends_with(what), "{kind}: {error}");
        }
    }
    for (kind, make) in KINDS {
        let huge = [((1 << 33) - 1, 0)];
        let error = refusal("x.tar", &make(&huge, (1 << 33) - 1, b"").end(), &all());
        assert_eq!(error, "x.tar: `s`: it unpacks to more than max_unpacked, which is 1.0 GiB", "{kind}");
    }
    let error = refusal("x.tar", &pax("1.0", &[(u64::MAX, 2)], 5, b"xx").end(), &all());
    assert!(error.ends_with("a sparse map is out of range"), "{error}");
}

#[test]
fn broken_records_are_refused() {
    let tar = |records: &[(&str, &str)], content: &str| {
        refusal("x.tar", &Tar::new().pax(b'x', records).file("s", content).end(), &all())
    };
    let v1 = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")];
    for (records, content, what) in [
        (&v1[..], "", "a sparse map is longer than its file"),
        (&v1, "1\n0\nx\n", "the map of a sparse file is malformed"),
        (&v1, "99999999999999999999999\n", "the map of a sparse file is malformed"),
        (&v1, "9999999\n", "the map of a sparse file is malformed"),
        (&v1[..2], "0\n", "a sparse file does not tell its size"),
        (&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")], "", "sparse files of PAX format 2.0"),
        (
            &[("GNU.sparse.numblocks", "2"), ("GNU.sparse.size", "9")],
            "",
            "more or fewer pieces than it declares",
        ),
        (&[("GNU.sparse.map", "1,2,3")], "", "a PAX sparse map is malformed"),
    ] {
        let mut padded = content.to_owned();
        if !content.is_empty() {
            padded.extend(std::iter::repeat_n('\0', 512 - content.len()));
        }
        let error = tar(records, &padded);
        assert!(error.contains(what), "{error}");
    }
}
