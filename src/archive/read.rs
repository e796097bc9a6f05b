//! Reading an artifact, as often as it takes.

use camino::Utf8Path;

use super::input::Input;
use super::pass::{Outcome, Pass, Plan};
use super::{ArchiveError, Format, Limits, Refusal, Selection, Visitor, single, tar, zip};
use crate::model::{Cancel, Digest};

/// Each reading settles one thing for good, of two: what to strip, and which files to retain.
const MOST_READINGS: u32 = 3;

/// An artifact.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its file name, as in `install/`; errors name it so.
    pub name: &'a str,
    /// Where it is.
    pub path: &'a Utf8Path,
    /// How to understand it.
    pub format: Format,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The artifact's own size.
    pub size: u64,
    /// The artifact's digest, if it was asked for.
    pub digest: Option<Digest>,
    /// Entries in the archive, taken or not.
    pub members: u64,
    /// Bytes of all its files together, taken or not.
    pub unpacked: u64,
    /// Globs of `include` and `exclude` that matched nothing, as written.
    pub unmatched: Vec<String>,
}

/// Tells `visitor` of what `selection` takes from an artifact.
///
/// `progress` hears how many of the artifact's bytes were consumed since it was last called; together they
/// are its size. Nothing the visitor was told counts unless this returns `Ok`.
pub fn read(
    source: &Source<'_>,
    selection: &Selection,
    limits: &Limits,
    hash: bool,
    cancel: &Cancel,
    progress: &dyn Fn(u64),
    visitor: &mut dyn Visitor,
) -> Result<Summary, ArchiveError> {
    let input = Input::new(source, cancel, progress)?;
    let mut plan = Plan::first(selection.strip, source.format);
    for _ in 0..MOST_READINGS {
        let mut pass = Pass::new(&input, selection, limits, plan, visitor);
        match source.format {
            Format::Tar(compression) => tar::run(&input, compression, hash, &mut pass)?,
            Format::Zip => zip::run(&input, hash, &mut pass)?,
            Format::File => single::run(&input, hash, &mut pass)?,
        }
        match pass.finish()? {
            Outcome::Done(summary) => {
                input.report_done();
                return Ok(summary);
            }
            Outcome::Again(next) => plan = next,
        }
        visitor.restart().map_err(ArchiveError::Visitor)?;
    }
    Err(input.refuse(None, Refusal::Corrupt { what: "it changes while it is read".to_owned() }))
}
