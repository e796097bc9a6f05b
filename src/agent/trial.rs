//! A release's `[service] test`: run where it was staged, before anything is touched.
//!
//! # Invariants
//!
//! * It is run as the service's user, with the service's environment and limits, and never longer than [`WITHIN`].
//! * What it says stays on the node, in `shared/logs/test.log`. Its last lines leave it only where no secret was
//!   given to this role: what a program makes of a secret cannot be told from the rest.

use std::time::Duration;

use camino::Utf8PathBuf;

use super::error::AgentError;
use super::names::ReleaseName;
use super::stage_error::StageError;
use super::supervise::{self, Unit};
use super::words;
use crate::model::Span;

/// A release did not pass its test.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the test of {release} fails: {program} {how}{words}")]
pub struct TestFailed {
    /// Of which release.
    pub release: ReleaseName,
    /// Which program, relative to the release.
    pub program: String,
    /// How it ended.
    pub how: String,
    /// What it said, if that may leave the node, or where that is.
    pub words: String,
    /// Where all of that is.
    pub log: Utf8PathBuf,
}

/// How long a test may take.
const WITHIN: Duration = Duration::from_mins(1);
const LOG: &str = "test.log";

/// Runs the test of a release that was staged; nothing if it has none.
pub(super) fn test(release: &ReleaseName, unit: &Unit, secrets: bool) -> Result<(), AgentError> {
    let Some(program) = unit.test.first() else { return Ok(()) };
    let log = unit.log.with_file_name(LOG);
    let before = words::said(&log, 0).map_or(0, |(length, _)| length);
    let exit = supervise::test(release, unit, log.clone(), WITHIN)?;
    if exit == Some(0) {
        return Ok(());
    }
    let program =
        program.strip_prefix(unit.cwd.as_str()).unwrap_or(program).trim_start_matches('/').to_owned();
    let words = if secrets { None } else { words::said(&log, before).map(|(_, words)| words) };
    let how = match exit {
        Some(exit) => format!("exits with {exit}"),
        None => format!("does not end within {}", Span(WITHIN)),
    };
    let words = match words.filter(|words| !words.is_empty()) {
        Some(words) => format!(": {words}"),
        None => format!("; what it said is on the node in {log}"),
    };
    let failed = TestFailed { release: release.clone(), program, how, words, log };
    Err(StageError::Test(Box::new(failed)).into())
}
