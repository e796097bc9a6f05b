//! Tars, header by header; nothing here stops one from being nonsense.

use std::io::Write;

/// A header and its content.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) link: Vec<u8>,
    pub(crate) content: Vec<u8>,
    /// As the header declares it; the content's length if `None`.
    pub(crate) size: Option<u64>,
    pub(crate) magic: &'static [u8; 8],
    pub(crate) prefix: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Entry {
    pub(crate) fn new(flag: u8, name: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            flag,
            mode: 0o644,
            link: Vec::new(),
            content: Vec::new(),
            size: None,
            magic: b"ustar\x0000",
            prefix: Vec::new(),
        }
    }

    pub(crate) fn header(&self) -> [u8; 512] {
        let mut block = [0; 512];
        put(&mut block, 0, &self.name[..self.name.len().min(100)]);
        put(&mut block, 100, format!("{:07o}\0", self.mode).as_bytes());
        put(&mut block, 108, b"0000000\x000000000\0");
        let size = self.size.unwrap_or(self.content.len() as u64);
        if size < 1 << 33 {
            put(&mut block, 124, format!("{size:011o}\0").as_bytes());
        } else {
            block[124] = 0x80;
            put(&mut block, 128, &size.to_be_bytes());
        }
        put(&mut block, 136, b"00000000000\0");
        block[156] = self.flag;
        put(&mut block, 157, &self.link[..self.link.len().min(100)]);
        put(&mut block, 257, self.magic);
        put(&mut block, 345, &self.prefix);
        sum(&mut block);
        block
    }
}

/// Sets a header's checksum.
pub(crate) fn sum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(block, 148, format!("{sum:06o}\0 ").as_bytes());
}

fn put(block: &mut [u8; 512], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(mut self, entry: &Entry) -> Self {
        self.0.extend(entry.header());
        self.blocks(&entry.content)
    }

    pub(crate) fn blocks(mut self, content: &[u8]) -> Self {
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(&Entry { mode: 0o755, ..Entry::new(b'5', name) })
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, content: &str) -> Self {
        self.entry(&Entry { content: content.into(), ..Entry::new(b'0', name) })
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(&Entry { link: target.into(), ..Entry::new(b'2', name) })
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(&Entry { link: target.into(), ..Entry::new(b'1', name) })
    }

    /// A PAX header with these records.
    pub(crate) fn pax(self, flag: u8, records: &[(&str, &str)]) -> Self {
        let content = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.entry(&Entry { content, ..Entry::new(flag, "pax") })
    }

    /// With the end marker.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    /// Without it.
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let length = |digits: usize| digits + rest.len();
    let digits = (1..9).find(|digits| length(*digits).to_string().len() == *digits).unwrap();
    format!("{}{rest}", length(digits)).into_bytes()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
