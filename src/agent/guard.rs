//! The dead-man switch: a process on the node that goes back unless somebody confirms.
//!
//! It is a process of its own session, started before the link is touched, and reads the journal: a
//! confirmation, a rollback or another activation ends it. Its time is kept on the boot's own clock, so
//! that jumps of the wall clock neither delay nor hasten it.
//!
//! # Invariants
//!
//! * It acts under the role's lock, and only if the journal still says that its own activation waits.
//! * While it lives it holds `roles/<role>/guard`.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT};

use super::boot;
use super::desk::Desk;
use super::error::AgentError;
use super::journal;
use super::layout::{RoleDir, Root};
use super::recover;
use crate::fs::{FileLock, IoError};
use crate::model::Role;

/// How soon it notices that it is not needed any more.
const GLANCE: Duration = Duration::from_millis(500);

/// Whether a guard of this role lives.
pub(super) fn lives(dir: &RoleDir) -> Result<bool, IoError> {
    FileLock::is_held(&dir.guard())
}

/// Starts the guard of the activation that the `seq`th record announced.
pub(super) fn spawn(root: &Root, role: &Role, seq: u64) -> std::io::Result<()> {
    // The very binary that runs now, whatever has its name meanwhile.
    Command::new("/proc/self/exe")
        .arg0("windlass")
        .args(["node", "guard", role.as_str(), "--seq", &seq.to_string(), "--root", root.path().as_str()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

/// Waits for the activation's confirmation or its deadline: `windlass node guard`.
pub fn run(root: &Root, role: &Role, seq: u64) -> Result<(), AgentError> {
    // The session of whoever started it may end. It fails only for one who leads a session already.
    let _ = rustix::process::setsid();
    for signal in [SIGHUP, SIGINT] {
        // Where it cannot be caught, a session of its own has to do.
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    let dir = root.role(role);
    let mut held = None;
    loop {
        let (state, _) = journal::read(&dir.journal())?;
        let Some(waiting) = state.waiting(seq) else { return Ok(()) };
        let Some(until) = &waiting.deadline else { return Ok(()) };
        // The guard of the activation before may still have to notice that it is not needed.
        if held.is_none() {
            held = FileLock::attempt(&dir.guard())?;
        }
        let at = Duration::from_millis(until.at_ms);
        let left = at.saturating_sub(boot::now());
        if until.boot != boot::id() {
            // Not this boot's: whoever opens the role next counts its time anew.
            return Ok(());
        }
        if left.is_zero() {
            let Some(mut desk) = Desk::open_within(root, dir.clone(), Duration::from_secs(1))? else {
                continue;
            };
            // Opening may have gone back already.
            if desk.state().waiting(seq).is_some_and(|waiting| waiting.deadline.is_some()) {
                recover::go_back(&mut desk)?;
            }
            return Ok(());
        }
        std::thread::sleep(left.min(if held.is_some() { GLANCE } else { Duration::from_millis(20) }));
    }
}
