//! Tars as streams of members: v7, ustar, GNU and PAX, with sparse files of all four kinds.
//!
//! Headers' fields are decoded by the `tar` crate; members are found here. That crate's raw iterator knows
//! no PAX sizes and so loses its place, and its cooked one reads long names and PAX records of any length
//! into memory, takes a file that ends without an end marker for whole, and knows no PAX sparse files.
//!
//! # Invariants
//!
//! * Where readers disagree about what an archive means (content on a directory, a lone zero block with
//!   more behind it, two long names for one member), it is refused.
//! * Nothing here holds more than 1 MiB of headers and 16 MiB of a sparse map in memory.

mod blocks;
mod body;
mod holes;

use std::io::{BufReader, Read};

use ::tar::Header;

use self::body::Body;
pub(super) use self::body::TruncatedMember;
use super::error::Fault;
use super::input::Input;
use super::pass::{Flow, Kind, Member, Pass};
use super::pax::Pax;
use super::sparse::Sparse;
use super::{ArchiveError, Compression, Refusal, codec, sniff};

const BLOCK: usize = 512;
/// Small enough for the cache, large enough that header reads are cheap; larger reads bypass it.
const BUFFER: usize = 256 << 10;

/// Compressed bytes read at a time: they stay in a core's own cache until they are hashed and inflated.
const COMPRESSED: usize = 64 << 10;

/// Tells `pass` of each member of a tar, then reads on to the end of the artifact.
pub(super) fn run(
    input: &Input<'_>,
    compression: Compression,
    hash: bool,
    pass: &mut Pass<'_>,
) -> Result<(), ArchiveError> {
    let meter = BufReader::with_capacity(COMPRESSED, input.open(hash)?);
    let decoder = codec::open(compression, meter)
        .map_err(|error| input.fault(None, error.into()))?
        .map_err(|why| input.refuse(None, why))?;
    let mut tar = Reader::new(decoder);
    loop {
        match tar.next_member() {
            Ok(Some(member)) => {
                if pass.member(&member, &mut Body(&mut tar))? == Flow::Stop {
                    return Ok(());
                }
            }
            Ok(None) => break,
            Err(fault) => return Err(input.fault(tar.current.as_deref(), fault)),
        }
    }
    tar.drain().map_err(|fault| input.fault(None, fault))
}

/// A tar, read member by member.
struct Reader<R> {
    input: BufReader<R>,
    /// Bytes of the tar consumed.
    position: u64,
    /// Of these, bytes of members' content.
    content: u64,
    members: u64,
    /// The member whose content comes next; errors name it.
    current: Option<Vec<u8>>,
    /// Bytes of that content not yet consumed, and of the padding after it.
    stored: u64,
    padding: u64,
    sparse: Option<Sparse>,
}

/// What came before a member's own header.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl<R: Read> Reader<R> {
    fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            position: 0,
            content: 0,
            members: 0,
            current: None,
            stored: 0,
            padding: 0,
            sparse: None,
        }
    }

    /// The next member; `None` at the end marker.
    fn next_member(&mut self) -> Result<Option<Member>, Fault> {
        self.skip(self.stored)?;
        self.content += self.stored;
        self.stored = 0;
        self.skip(self.padding)?;
        self.padding = 0;
        self.current = None;
        self.sparse = None;
        let mut extensions = Extensions::default();
        loop {
            let at = self.position;
            let Some(block) = self.header(at)? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(corrupt(at, "an extended header describes a member that does not follow"))
                };
            };
            let header = Header::from_byte_slice(&block);
            let size = header.entry_size().map_err(|_| corrupt(at, "the size is not a number"))?;
            match block[156] {
                b'L' => once(&mut extensions.name, trimmed(self.extension(size)?), at)?,
                b'K' => once(&mut extensions.link, trimmed(self.extension(size)?), at)?,
                b'x' | b'X' => {
                    let records = self.extension(size)?;
                    let pax = Pax::parse(&records).map_err(|what| corrupt(at, what))?;
                    once(&mut extensions.pax, pax, at)?;
                }
                // Global headers and volume labels say nothing about files.
                b'g' | b'V' => {
                    self.extension(size)?;
                }
                _ => return self.entry(header, extensions, size, at).map(Some),
            }
        }
    }

    /// The next header block; `None` at the end marker.
    fn header(&mut self, at: u64) -> Result<Option<[u8; BLOCK]>, Fault> {
        self.check_overhead()?;
        let mut block = [0; BLOCK];
        let count = self.block(&mut block)?;
        if count < BLOCK {
            if let Some(found) = sniff::looks_like(&block[..count]).filter(|_| at == 0) {
                return Err(Refusal::LooksLike { expected: "a tar", found }.into());
            }
            // Without a single block of the end marker, nobody can tell that nothing is missing.
            return Err(Refusal::Truncated { at: self.position, within: "without an end marker" }.into());
        }
        if block.iter().all(|byte| *byte == 0) {
            let mut second = [0; BLOCK];
            let count = self.block(&mut second)?;
            if second[..count].iter().any(|byte| *byte != 0) {
                return Err(corrupt(at, "a lone block of zeros is followed by more"));
            }
            return Ok(None);
        }
        if !checksum_fits(&block) {
            return Err(match sniff::looks_like(&block) {
                Some(found) if at == 0 && found != "a tar" => {
                    Refusal::LooksLike { expected: "a tar", found }.into()
                }
                _ if at == 0 && &block[257..262] != b"ustar" => Refusal::NotA { expected: "a tar" }.into(),
                _ => corrupt(at, "a header's checksum is wrong"),
            });
        }
        Ok(Some(block))
    }

    /// The member that `header` describes, given what came before it.
    fn entry(
        &mut self,
        header: &Header,
        extensions: Extensions,
        size: u64,
        at: u64,
    ) -> Result<Member, Fault> {
        let pax = extensions.pax.unwrap_or_default();
        let name = pax.sparse.name.clone().or(pax.path).or(extensions.name);
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        self.current = Some(name.clone());
        let link = pax.linkpath.or(extensions.link);
        let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let size = pax.size.unwrap_or(size);
        let mode = header.mode().map_err(|_| corrupt(at, "the mode is not a number"))?;
        let kind = kind_of(header.as_bytes()[156], &name, size, link.unwrap_or_default());
        // A hard link's size is that of its file, as GNU tar has it; no content follows.
        let stored = if matches!(kind, Kind::HardLink(_)) { 0 } else { size };
        self.members += 1;
        self.stored = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        let mut logical = stored;
        if matches!(kind, Kind::File) {
            self.sparse = self.sparse_map(header, pax.sparse, at)?;
            if let Some(sparse) = &self.sparse {
                logical = sparse.real_size();
            }
        }
        Ok(Member { name, kind, mode, size: logical })
    }
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.pax.is_none()
    }
}

fn once<T>(slot: &mut Option<T>, value: T, at: u64) -> Result<(), Fault> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(corrupt(at, "two extended headers of one type describe the same member")),
    }
}

fn corrupt(at: u64, what: &'static str) -> Fault {
    Refusal::CorruptTar { at, what }.into()
}

/// A long name without the NUL that GNU tar ends it with.
fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn checksum_fits(block: &[u8; BLOCK]) -> bool {
    let Ok(declared) = Header::from_byte_slice(block).cksum() else { return false };
    // The field itself counts as spaces. Some old tars summed signed bytes.
    let others = || block[..148].iter().chain(&block[156..]);
    let unsigned: u32 = others().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    let signed: i32 = others().map(|byte| i32::from(byte.cast_signed())).sum::<i32>() + 8 * 32;
    declared == unsigned || i64::from(declared) == i64::from(signed)
}

fn kind_of(type_flag: u8, name: &[u8], size: u64, link: Vec<u8>) -> Kind {
    let empty = |kind, what| if size == 0 { kind } else { Kind::Refused(Refusal::Content { what, size }) };
    let special = |what| Kind::Refused(Refusal::Special { what });
    match type_flag {
        // Before ustar, a trailing slash was all that made a directory.
        b'0' | 0 | b'7' if name.ends_with(b"/") => empty(Kind::Directory, "a directory"),
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink(link),
        b'2' => empty(Kind::Symlink(link), "a symlink"),
        b'3' => special("a character device"),
        b'4' => special("a block device"),
        b'5' => empty(Kind::Directory, "a directory"),
        b'6' => special("a FIFO"),
        b'M' => special("the rest of a file that another volume starts"),
        // What an incremental backup adds to a directory is of no use here.
        b'D' => Kind::Directory,
        other => Kind::Refused(Refusal::UnknownType(other.escape_ascii().to_string())),
    }
}
