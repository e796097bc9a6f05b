//! Zips, by their central directory.
//!
//! Local headers are only used to find the data, as the format has it. What is not taken is not
//! decompressed; what is taken is read to its end, and so its CRC and size are checked.

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use ::zip::read::ZipFileEntry;
use ::zip::result::ZipError;
use ::zip::{CompressionMethod, SUPPORTED_COMPRESSION_METHODS, System, ZipArchive};

use super::error::Fault;
use super::input::{Input, Meter};
use super::pass::{Flow, Kind, Member, Pass};
use super::{ArchiveError, Refusal, sniff};

const BUFFER: usize = 64 << 10;
/// `PATH_MAX` with its NUL: no symlink is longer.
const MAX_TARGET: u64 = 4096;

type Archive<'a> = ZipArchive<Near<Meter<'a>>>;

/// Tells `pass` of each member of a zip, in the order of its central directory.
pub(super) fn run(input: &Input<'_>, hash: bool, pass: &mut Pass<'_>) -> Result<(), ArchiveError> {
    let mut archive = open(input)?;
    if archive.has_duplicate_names() {
        let name = repeated_name(&archive, input)?;
        return Err(input.refuse(name.as_deref(), Refusal::TwoEntries));
    }
    for number in 0..archive.len() {
        let entry = entry(&archive, number, input)?;
        let directory = matches!(kind_of(&entry), Kind::Directory);
        if pass.foresee(&separated(&entry), directory) == Flow::Stop {
            return Ok(());
        }
    }
    for number in 0..archive.len() {
        if member(&mut archive, number, input, pass)? == Flow::Stop {
            return Ok(());
        }
    }
    if hash {
        // Reading a zip jumps about, so its digest takes a reading of its own.
        let mut whole = input.open(true)?;
        io::copy(&mut whole, &mut io::sink()).map_err(|error| input.fault(None, error.into()))?;
    }
    Ok(())
}

fn open<'a>(input: &'a Input<'_>) -> Result<Archive<'a>, ArchiveError> {
    let mut start = Vec::new();
    input.open(false)?.take(512).read_to_end(&mut start).map_err(|error| input.fault(None, error.into()))?;
    if start.is_empty() {
        return Err(input.refuse(None, Refusal::Empty));
    }
    ZipArchive::new(Near { inner: BufReader::with_capacity(BUFFER, input.open(false)?), at: 0 }).map_err(
        |error| {
            let expected = "a zip archive";
            let fault = match (sniff::looks_like(&start), zip_fault(error)) {
                (Some("a zip archive" | "an empty zip archive"), Fault::Refused(_)) => {
                    Refusal::Truncated { at: input.size(), within: "without its central directory" }.into()
                }
                (Some(found), Fault::Refused(_)) => Refusal::LooksLike { expected, found }.into(),
                (None, Fault::Refused(_)) => Refusal::NotA { expected }.into(),
                (_, fault @ Fault::Io(_)) => fault,
            };
            input.fault(None, fault)
        },
    )
}

fn entry<'a>(
    archive: &'a Archive<'_>,
    number: usize,
    input: &Input<'_>,
) -> Result<ZipFileEntry<'a>, ArchiveError> {
    archive.by_index_data(number).map_err(|error| input.fault(None, zip_fault(error)))
}

fn member(
    archive: &mut Archive<'_>,
    number: usize,
    input: &Input<'_>,
    pass: &mut Pass<'_>,
) -> Result<Flow, ArchiveError> {
    let entry = entry(archive, number, input)?;
    let mut member = Member {
        name: separated(&entry),
        kind: kind_of(&entry),
        mode: entry.unix_mode().unwrap_or(0o644),
        size: entry.size(),
    };
    if matches!(member.kind, Kind::Refused(_) | Kind::Directory) {
        return pass.member(&member, &mut io::empty());
    }
    let mut file =
        archive.by_index(number).map_err(|error| input.fault(Some(&member.name), zip_fault(error)))?;
    if let Kind::Symlink(target) = &mut member.kind {
        (&mut file)
            .take(MAX_TARGET + 1)
            .read_to_end(target)
            .map_err(|error| input.fault(Some(&member.name), error.into()))?;
        if target.len() as u64 != member.size {
            return Err(input.refuse(Some(&member.name), Refusal::WrongSize { size: member.size }));
        }
    }
    pass.member(&member, &mut file)
}

/// The name, with `/` between its components.
///
/// Windows tools have written `\`. On other systems that is a character like any other.
fn separated(entry: &ZipFileEntry<'_>) -> Vec<u8> {
    let mut name = entry.name_raw().to_vec();
    if entry.system() == System::Dos && !name.contains(&b'/') {
        name.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    }
    name
}

fn kind_of(entry: &ZipFileEntry<'_>) -> Kind {
    const TYPE: u32 = 0o170_000;
    let special = |what| Kind::Refused(Refusal::Special { what });
    let size = entry.size();
    let file_type = entry.unix_mode().unwrap_or(0) & TYPE;
    let directory = file_type == 0o040_000 || separated(entry).ends_with(b"/");
    if directory && size > 0 {
        return Kind::Refused(Refusal::Content { what: "a directory", size });
    }
    if directory {
        return Kind::Directory;
    }
    if entry.encrypted() {
        return Kind::Refused(Refusal::Encrypted);
    }
    if !SUPPORTED_COMPRESSION_METHODS.contains(&entry.compression()) {
        return Kind::Refused(method(entry.compression()));
    }
    match file_type {
        0 | 0o100_000 => Kind::File,
        0o120_000 if size > MAX_TARGET => Kind::Refused(Refusal::LongTarget { limit: MAX_TARGET }),
        0o120_000 => Kind::Symlink(Vec::new()),
        0o020_000 => special("a character device"),
        0o060_000 => special("a block device"),
        0o010_000 => special("a FIFO"),
        0o140_000 => special("a socket"),
        _ => special("of a type that no Unix knows"),
    }
}

fn method(method: CompressionMethod) -> Refusal {
    #[expect(deprecated, reason = "the only way to the number of a method that is not built in")]
    let id = match method {
        CompressionMethod::Unsupported(id) => id,
        other => return Refusal::Unsupported { what: other.to_string() },
    };
    let name = match id {
        1 => "Shrink",
        2..=5 => "Reduce",
        6 => "Implode",
        9 => "Deflate64",
        10 => "PKWARE Implode",
        14 => "LZMA",
        18 => "IBM TERSE",
        19 => "IBM LZ77",
        94 => "MP3",
        95 => "xz",
        96 => "JPEG",
        97 => "WavPack",
        98 => "PPMd",
        99 => "AES",
        _ => "an unknown method",
    };
    Refusal::Method { id, name }
}

fn zip_fault(error: ZipError) -> Fault {
    match error {
        ZipError::Io(error) => Fault::Io(error),
        ZipError::UnsupportedArchive(what) => Refusal::Unsupported { what: what.to_owned() }.into(),
        other => Refusal::Corrupt { what: other.to_string() }.into(),
    }
}

/// The first name that the central directory holds twice; the `zip` crate keeps only its last entry.
fn repeated_name(archive: &Archive<'_>, input: &Input<'_>) -> Result<Option<Vec<u8>>, ArchiveError> {
    let fail = |error: io::Error| input.fault(None, error.into());
    let mut directory = BufReader::with_capacity(BUFFER, input.open(false)?);
    directory.seek(SeekFrom::Start(archive.central_directory_start())).map_err(fail)?;
    let mut names = HashSet::new();
    loop {
        let mut header = [0; 46];
        directory.read_exact(&mut header).map_err(fail)?;
        if !header.starts_with(b"PK\x01\x02") {
            return Ok(None);
        }
        let length = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let mut name = Vec::new();
        directory.by_ref().take(length(28)).read_to_end(&mut name).map_err(fail)?;
        io::copy(&mut directory.by_ref().take(length(30) + length(32)), &mut io::sink()).map_err(fail)?;
        if let Some(repeated) = names.replace(name) {
            return Ok(Some(repeated));
        }
    }
}

/// A buffer that survives a seek to somewhere near.
///
/// The `zip` crate seeks to each member's header, then to its data; `BufReader` alone would throw its buffer
/// away both times.
struct Near<R> {
    inner: BufReader<R>,
    at: u64,
}

impl<R: Read> Read for Near<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for Near<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let absolute = match to {
            SeekFrom::Start(absolute) => Some(absolute),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
            SeekFrom::End(_) => {
                self.at = self.inner.seek(to)?;
                return Ok(self.at);
            }
        };
        let absolute = absolute.ok_or(io::ErrorKind::InvalidInput)?;
        match absolute.checked_signed_diff(self.at) {
            Some(offset) => self.inner.seek_relative(offset)?,
            None => {
                self.inner.seek(SeekFrom::Start(absolute))?;
            }
        }
        self.at = absolute;
        Ok(self.at)
    }
}
