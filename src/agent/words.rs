//! The last words of a program, from its log.
//!
//! # Invariants
//!
//! * They leave the node only where no secret was given to the role: what a program makes of a secret cannot be told
//!   from the rest.

use std::io::{Read as _, Seek as _, SeekFrom};

use camino::Utf8Path;

use super::layout::RoleDir;
use super::names::ReleaseName;
use super::release::ReleaseRecord;
use super::supervise::Unit;
use crate::fs::{open_beneath, open_directory};

/// The most of them that are told, in bytes.
const MOST: u64 = 2048;

/// What a release's service said last, in one line, where that may be told.
pub(super) fn of_service(dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Option<String> {
    let record = ReleaseRecord::read(&dir.release_record(release)).ok()?;
    let (_, words) = said(&unit.log, 0).filter(|_| !record.secrets)?;
    Some(words).filter(|words| !words.is_empty())
}

/// How long the log is, and its last words after `from`, in one line.
pub(super) fn said(log: &Utf8Path, from: u64) -> Option<(u64, String)> {
    let folder = log.parent()?;
    // The service's user owns this folder and may plant links in it.
    let mut file = open_beneath(open_directory(folder).ok()?, folder, log.file_name()?).ok()?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(MOST)))).ok()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let words = lines.collect::<Vec<_>>().join("; ");
    Some((length, words.chars().filter(|c| !c.is_control()).collect()))
}
