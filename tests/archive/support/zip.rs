//! Zips of stored members, record by record.

use flate2::Crc;

/// What a test may want to lie about.
#[derive(Clone)]
pub(crate) struct Zip {
    pub(crate) name: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) host: u8,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    pub(crate) crc: Option<u32>,
    pub(crate) size: Option<u32>,
}

impl Zip {
    pub(crate) fn new(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            content: content.as_ref().to_vec(),
            mode: 0o100_644,
            host: 3,
            method: 0,
            flags: 0,
            crc: None,
            size: None,
        }
    }

    /// What local and central headers share.
    fn shared(&self) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(&self.content);
        let stored = u32::try_from(self.content.len()).unwrap();
        let mut out = Vec::new();
        for field in [20, self.flags, self.method, 0, 0x21] {
            out.extend(field.to_le_bytes());
        }
        for field in [self.crc.unwrap_or(crc.sum()), stored, self.size.unwrap_or(stored)] {
            out.extend(field.to_le_bytes());
        }
        out.extend(u16::try_from(self.name.len()).unwrap().to_le_bytes());
        out.extend([0, 0]);
        out
    }

    /// A zip of these members.
    pub(crate) fn archive(members: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut directory = Vec::new();
        for member in members {
            let at = u32::try_from(out.len()).unwrap();
            out.extend(b"PK\x03\x04");
            out.extend(member.shared());
            out.extend(&member.name);
            out.extend(&member.content);
            directory.extend(b"PK\x01\x02");
            directory.extend([20, member.host]);
            directory.extend(member.shared());
            directory.extend([0; 6]);
            directory.extend((member.mode << 16).to_le_bytes());
            directory.extend(at.to_le_bytes());
            directory.extend(&member.name);
        }
        let count = u16::try_from(members.len()).unwrap().to_le_bytes();
        let at = u32::try_from(out.len()).unwrap().to_le_bytes();
        let length = u32::try_from(directory.len()).unwrap().to_le_bytes();
        out.extend(directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend([count, count].concat());
        out.extend([length, at].concat());
        out.extend([0, 0]);
        out
    }
}
