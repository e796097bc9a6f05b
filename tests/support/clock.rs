//! The boot clock of a test's nodes: tests move it instead of waiting for deadlines.
//!
//! Debug builds of windlass add the milliseconds in the file that `WINDLASS_TEST_CLOCK` names; see `src/agent/boot.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A clock that runs ahead of the machine's by what [`Clock::advance`] added.
pub(crate) struct Clock(PathBuf);

impl Clock {
    /// The clock of everything below a folder.
    pub(crate) fn of(dir: &Path) -> Self {
        Self(dir.join("clock"))
    }

    /// Shows this clock to a command and to all that it starts.
    pub(crate) fn show<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("WINDLASS_TEST_CLOCK", &self.0)
    }

    /// Moves the clock forward.
    pub(crate) fn advance(&self, by: Duration) {
        let ahead = std::fs::read_to_string(&self.0).map_or(0, |text| text.parse().unwrap());
        // By renaming: readers see the old time or the new one.
        let new = self.0.with_extension("new");
        std::fs::write(&new, (Duration::from_millis(ahead) + by).as_millis().to_string()).unwrap();
        std::fs::rename(&new, &self.0).unwrap();
    }
}
