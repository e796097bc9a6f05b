//! The canonical tar: headers that depend on nothing but path, type, mode and size.
//!
//! ustar (POSIX.1-1988) with uid = gid = 0, mtime = 1, no user or group name. A path or link target that
//! does not fit ustar's fields, or a size of 8 GiB and more, gets one PAX header (POSIX.1-2001) with just
//! the records that are needed. Nothing else ever stands in a layer's tar.
//!
//! # Not here
//!
//! Order and data: [`super::layout`] says what follows what.

use super::{Entry, Node};

/// Everything in a tar is padded to this.
pub const BLOCK: u64 = 512;

/// Two zero blocks end a tar.
pub const END: u64 = 2 * BLOCK;

/// The largest size that ustar's 11 octal digits hold.
const MAX_OCTAL_SIZE: u64 = 0o777_7777_7777;

/// Zero bytes between `size` bytes of data and the next header.
pub fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// Appends the header blocks of `entry` to `out`.
///
/// `linked_mode` is the mode of the file that a hard link names, and unused for what is no hard link:
/// container tools give a file the mode of the last header that names it, where GNU tar keeps the first.
pub fn write_header(entry: &Entry, linked_mode: u16, out: &mut Vec<u8>) {
    let mut path = entry.path.as_str().to_owned();
    if matches!(entry.node, Node::Directory) {
        path.push('/');
    }
    let (kind, mode, size, link) = match &entry.node {
        Node::Directory => (b'5', 0o755, 0, ""),
        Node::File { mode, size, .. } => (b'0', *mode, *size, ""),
        Node::Symlink { target } => (b'2', 0o777, 0, target.as_str()),
        Node::HardLink { target } => (b'1', linked_mode, 0, target.as_str()),
    };
    let split = split_path(&path);
    let mut records = Vec::new();
    if split.is_none() {
        record(&mut records, "path", &path);
    }
    if link.len() > 100 {
        record(&mut records, "linkpath", link);
    }
    if size > MAX_OCTAL_SIZE {
        record(&mut records, "size", &size.to_string());
    }
    if !records.is_empty() {
        let length = records.len() as u64;
        out.extend_from_slice(&block("", "PaxHeaders/entry", b'x', 0o644, length, ""));
        out.extend_from_slice(&records);
        out.resize(out.len() + usize::try_from(padding(length)).unwrap_or(0), 0);
    }
    // The truncated fields below stand for readers that do not know PAX.
    let (prefix, name) = split.unwrap_or(("", truncated(&path)));
    let small = if size > MAX_OCTAL_SIZE { 0 } else { size };
    out.extend_from_slice(&block(prefix, name, kind, mode, small, truncated(link)));
}

/// Bytes that [`write_header`] appends for `entry`.
pub fn header_len(entry: &Entry) -> u64 {
    let link = match &entry.node {
        Node::Symlink { target } => target.len(),
        Node::HardLink { target } => target.as_str().len(),
        Node::Directory | Node::File { .. } => 0,
    };
    let path = entry.path.as_str();
    let fits = path.len() < 100 || (matches!(entry.node, Node::File { .. }) && split_path(path).is_some());
    // Nearly all of them; the rest is asked of the writer itself.
    if fits && link <= 100 && entry.size() <= MAX_OCTAL_SIZE {
        return BLOCK;
    }
    let mut out = Vec::with_capacity(2048);
    write_header(entry, 0, &mut out);
    out.len() as u64
}

/// At most 100 bytes of `text`, cut between characters.
fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}

/// Splits a path into ustar's prefix (155 bytes) and name (100 bytes), at the first slash that fits.
fn split_path(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    // The leftmost slash that leaves a name of at most 100 bytes behind it; a directory's own last
    // slash cannot serve, the name would be empty.
    let from = path.len() - 101;
    let at = from + path.as_bytes()[from..].iter().position(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (prefix.len() <= 155 && !name.is_empty()).then_some((prefix, name))
}

/// Appends one PAX record: its own length in decimal, a space, `key=value`, a newline.
fn record(out: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

/// One ustar header block.
fn block(prefix: &str, name: &str, kind: u8, mode: u16, size: u64, link: &str) -> [u8; 512] {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000001");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000000");
    put(337, b"0000000");
    put(345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BundlePath, Digest};

    fn headers(path: &str, node: Node) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(&Entry { path: BundlePath::new(path).unwrap(), node }, 0o755, &mut out);
        assert_eq!(out.len() % 512, 0);
        out
    }

    fn read_back(bytes: &[u8]) -> (String, String, u64) {
        let mut archive = tar::Archive::new(bytes);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        let link = entry.link_name().unwrap().map_or(String::new(), |l| l.to_str().unwrap().to_owned());
        (entry.path().unwrap().to_str().unwrap().to_owned(), link, entry.size())
    }

    #[test]
    fn short_long_and_very_long_paths_read_back() {
        let file = |size| Node::File { mode: 0o644, size, digest: Digest::of(b"") };
        let component = "d".repeat(60);
        let split = format!("{component}/{component}/name");
        let unsplit = format!("{}/{}", "e".repeat(120), "f".repeat(120));
        let multibyte = format!("{}/x{}", "é".repeat(60), "ü".repeat(49));
        for path in ["a", &split, &unsplit, &multibyte, &"é".repeat(127)] {
            let bytes = headers(path, file(0));
            assert_eq!(read_back(&bytes).0, path);
            let directory = headers(path, Node::Directory);
            assert_eq!(read_back(&directory).0, format!("{path}/"));
        }
        assert_eq!(headers(&split, file(0)).len(), 512);
        assert_eq!(headers(&unsplit, file(0)).len(), 3 * 512);
        let link = "t/".repeat(80) + "x";
        assert_eq!(read_back(&headers("l", Node::Symlink { target: link.clone() })).1, link);
        assert_eq!(read_back(&headers("big", file(9 << 30))).2, 9 << 30);
        let linked = Node::HardLink { target: BundlePath::new("a").unwrap() };
        assert_eq!(headers("b", linked)[100..108], *b"0000755\0");
    }
}
