//! The dead-man switch: a process on the node that goes back unless somebody confirms.
//!
//! It is a process of its own session, there before the link is touched, and reads the journal. It stands in
//! for whatever activation of its role waits for a confirmation, one after another, and goes when none does.
//! What a killed process left half done it finishes: `status` starts it for that. Its time is kept on the boot's own clock, so that jumps of the wall clock neither delay nor hasten it.
//!
//! # Invariants
//!
//! * While it lives it holds `roles/<role>/guard`: from the moment it is started, because it is started with
//!   that lock. A role has one guard.
//! * It goes only under the role's lock, having read there that nothing waits. So whoever holds the role's
//!   lock and sees a guard may rely on it.
//! * It does not give up: what stops it from going back (a full disk, another process at work) may pass.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT};

use super::boot;
use super::desk::Desk;
use super::error::AgentError;
use super::layout::{RoleDir, Root};
use super::state::{Phase, State};
use crate::fs::{DirLock, FileLock, IoError, IoResultExt as _, LockKind};
use crate::model::Role;

/// How soon it notices that it is not needed any more, or needed earlier.
const GLANCE: Duration = Duration::from_millis(500);

/// How long it waits before it tries again what failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Guards that this process started: they may end before it does.
static STARTED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Whether a guard of this role lives.
pub(super) fn lives(dir: &RoleDir) -> Result<bool, IoError> {
    FileLock::is_held(&dir.guard())
}

/// Sees to it that a guard of this role lives. The caller holds the role's lock.
pub(super) fn ensure(root: &Root, dir: &RoleDir) -> Result<(), IoError> {
    loop {
        if let Some(lock) = FileLock::attempt(&dir.guard())? {
            return spawn(root, dir.role(), lock).at("start a guard for", dir.path());
        }
        // Who only looks whether one lives holds the lock for a moment as well, but not alone.
        if lives(dir)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Starts a guard, which holds `lock` from then on.
fn spawn(root: &Root, role: &Role, lock: FileLock) -> std::io::Result<()> {
    // The very binary that runs now, whatever has its name meanwhile. Nothing here keeps std from vfork.
    let child = Command::new("/proc/self/exe")
        .arg0("windlass")
        .args(["node", "guard", role.as_str(), "--root", root.path().as_str()])
        .stdin(Stdio::from(lock.into_file()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    started.push(child);
    Ok(())
}

/// Waits for activations to be confirmed or for their deadlines: `windlass node guard`. `lock` is what it was
/// started with; started by hand it takes the lock itself, unless there is a guard.
pub fn run(root: &Root, role: &Role, lock: File) -> Result<(), AgentError> {
    // The session of whoever started it may end. It fails only for one who leads a session already.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    for signal in [SIGHUP, SIGINT] {
        // Where it cannot be caught, a session of its own has to do.
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    let dir = root.role(role);
    let adopted = FileLock::adopt(lock, &dir.guard());
    let Some(held) = adopted.map_or_else(|| FileLock::attempt(&dir.guard()), |lock| Ok(Some(lock)))? else {
        return Ok(());
    };
    // Until the role itself is gone, whatever fails may work the next time.
    while dir.path().exists() {
        match look(root, &dir) {
            Ok(Some(pause)) => boot::sleep(pause),
            Ok(None) => {
                let alone = DirLock::attempt(dir.path(), LockKind::Exclusive)?;
                if alone.is_some() && root.state_of(&dir).is_ok_and(|state| at_rest(&state)) {
                    // Standard input is the same open file; closing one of the two would not do.
                    return Ok(held.release(&dir.guard())?);
                }
                drop(alone);
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => boot::sleep(AGAIN),
        }
    }
    Ok(())
}

/// Does what there is to be done; how long to wait before the next look, `None` if the role is at rest.
fn look(root: &Root, dir: &RoleDir) -> Result<Option<Duration>, AgentError> {
    let state = root.state_of(dir)?;
    if at_rest(&state) {
        return Ok(None);
    }
    let until = state.guarded().filter(|until| until.boot == boot::id());
    let left = until.map(|until| Duration::from_millis(until.at_ms).saturating_sub(boot::now()));
    match left {
        Some(left) if state.phase == Phase::Idle && !left.is_zero() => return Ok(Some(left.min(GLANCE))),
        // Its time is over, or is of an earlier boot, or something is half done; or somebody is at it.
        _ => {}
    }
    // Opening finishes, counts anew or goes back, as whoever opens the role next does.
    let opened = Desk::open_within(root, dir.clone(), Duration::ZERO)?;
    Ok(Some(Duration::from_millis(if opened.is_some() { 1 } else { 20 })))
}

/// Nothing is half done, and nothing waits.
fn at_rest(state: &State) -> bool {
    state.phase == Phase::Idle && state.guarded().is_none()
}
