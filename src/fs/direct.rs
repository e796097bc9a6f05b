//! Writing past the system's page cache (`O_DIRECT`), where the file system allows it.

use std::fs::File;
use std::ops::{Deref, DerefMut};

use rustix::fs::OFlags;

use super::calls;

/// What addresses, offsets and sizes of direct writes must be multiples of, on every disk that is common: a page, which
/// is enough for sectors of 512 and of 4096 bytes.
pub const ALIGNMENT: usize = 4096;

/// Lets writes to an open file go past the page cache, or no longer; whether that is how it is now. Some file systems
/// refuse it here, some refuse the writes then (`EINVAL`).
pub fn set_direct(file: &File, direct: bool) -> bool {
    let Ok(flags) = calls::fcntl_getfl(file) else { return false };
    let wanted = if direct { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    wanted == flags || calls::fcntl_setfl(file, wanted).is_ok()
}

/// Whether writes to an open file go past the page cache.
pub fn is_direct(file: &File) -> bool {
    calls::fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
}

/// Bytes at an address that direct writes take, zero at first. Meant to be used again and again.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl AlignedBuffer {
    /// One of `size` bytes.
    pub fn new(size: usize) -> Self {
        let bytes = vec![0; size + ALIGNMENT];
        // Where no offset is known, writes are not aligned and the file system's answer decides.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, start, size }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.size]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.size]
    }
}
