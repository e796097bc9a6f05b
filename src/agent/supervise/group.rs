//! A service's processes: the leader and its group, signalled and waited for.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal};

use super::process;
use crate::fs::{IoError, IoResultExt as _};

/// How long KILL may take.
pub(super) const AFTER_KILL: Duration = Duration::from_secs(10);

/// A process that leads a group of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    pub pid: u32,
    /// With the pid it names one process of this boot.
    pub start: u64,
}

impl Leader {
    /// The process that has this number now; `None` too where it cannot be looked at.
    pub(super) fn of(pid: u32) -> Option<Self> {
        process::stat(pid).ok()?.map(|stat| Self { pid, start: stat.start })
    }

    /// Whether that very process still lives. That it cannot be looked at is no proof that it is gone: nothing is
    /// started beside it then.
    pub(super) fn lives(self) -> bool {
        match process::stat(self.pid) {
            Ok(found) => found.is_some_and(|stat| self.is(stat)),
            Err(_) => true,
        }
    }

    /// Whether it or one of its group still lives. While one does, its number is not given out again.
    pub(super) fn group_lives(self) -> bool {
        self.look_at_group().unwrap_or(true)
    }

    /// The same, where that it cannot be looked at is an answer of its own.
    pub(super) fn look_at_group(self) -> Result<bool, IoError> {
        // The leader first: asking for one is cheaper than for all.
        if self.pid == 0 {
            return Ok(self.lives());
        }
        let members = || process::members(self.pid).at("look for processes in", Utf8Path::new("/proc"));
        Ok(process::stat(self.pid).is_ok_and(|stat| stat.is_some_and(|stat| self.is(stat)))
            || !members()?.is_empty())
    }

    fn is(self, stat: process::Stat) -> bool {
        stat.start == self.start && !stat.zombie
    }

    /// Signals the whole group.
    pub(super) fn send(self, signal: Signal) -> Result<(), IoError> {
        let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        match rustix::process::kill_process_group(group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => {
                let whose = Utf8PathBuf::from(format!("process {}", self.pid));
                Err(IoError::new("signal the service of", &whose, errno))
            }
        }
    }

    /// Whether all of the group ended by then.
    pub(super) fn wait_until(self, until: Instant) -> bool {
        let mut pause = Duration::from_millis(2);
        loop {
            if !self.group_lives() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// A signal by its name, with or without `SIG`.
pub(super) fn signal(name: &str) -> Signal {
    match name.strip_prefix("SIG").unwrap_or(name) {
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        // A rendered name that is none of a signal ends the service all the same.
        _ => Signal::TERM,
    }
}

/// The name of [`signal`], as supervisors know it.
pub(super) fn signal_name(name: &str) -> &str {
    match name.strip_prefix("SIG").unwrap_or(name) {
        known @ ("INT" | "QUIT" | "HUP" | "KILL" | "USR1" | "USR2" | "WINCH") => known,
        _ => "TERM",
    }
}
