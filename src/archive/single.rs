//! An artifact that is no archive: one file, at its own name.

use std::io::Read;

use super::input::Input;
use super::pass::{Kind, Member, Pass};
use super::{ArchiveError, sniff};

/// Gives the artifact as one file.
///
/// Its mode must not depend on this machine's file system, so it comes from the content: executable
/// if it starts as an ELF file or a `#!` script does.
pub(super) fn run(input: &Input<'_>, hash: bool, pass: &mut Pass<'_>) -> Result<(), ArchiveError> {
    let mut file = input.open(hash)?;
    let name = input.name().rsplit('/').next().unwrap_or_default().as_bytes().to_vec();
    let mut start = Vec::with_capacity(4);
    (&mut file).take(4).read_to_end(&mut start).map_err(|error| input.fault(Some(&name), error.into()))?;
    let mode = if sniff::is_executable(&start) { 0o755 } else { 0o644 };
    let member = Member { name, kind: Kind::File, mode, size: input.size() };
    let mut data = start.as_slice().chain(&mut file);
    pass.member(&member, &mut data)?;
    // Left out, it still has to be hashed.
    let name = &member.name;
    std::io::copy(&mut file, &mut std::io::sink()).map_err(|error| input.fault(Some(name), error.into()))?;
    Ok(())
}
