//! What brings a service of the embedded supervisor up again: `windlass node keep`, a process for each service.
//!
//! It starts the service, waits for its end, and starts it again after a pause that grows; after [`ATTEMPTS`]
//! quick ends in a row it leaves it alone. It knows only what it was started with and what the pid file says.
//!
//! # Invariants
//!
//! * Killed, it leaves the service running, and the pid file true: whoever starts the service again, though it
//!   runs, gives it a new keeper.
//! * It starts nothing that the pid file does not want from this very keeper's generation.

use std::os::fd::AsFd as _;
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT};

use super::exec::Spec;
use super::group::{AFTER_KILL, Leader};
use super::pidfile::{self, Running};
use super::{ATTEMPTS, QUICK, SuperviseError};
use crate::agent::boot;
use crate::fs::IoError;

/// How soon it notices that the service is not wanted any more, where it waits for nothing else.
const GLANCE: Duration = Duration::from_millis(100);

/// What the pid file says about keeping the service up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keep {
    /// Of which start; 0 for none.
    pub generation: u64,
    /// Whether the service shall run.
    pub wanted: bool,
    /// Quick ends in a row; one that was not quick counts as the first.
    pub ends: u32,
    /// On the boot's clock, since when the service runs.
    pub since_ms: u64,
    /// The keeper.
    pub pid: u32,
    /// When it was started; see [`Leader`].
    pub start: u64,
}

impl Keep {
    /// Whether the keeper lives; asked only of what this boot wrote.
    pub(super) fn lives(self) -> bool {
        self.pid != 0 && Leader { pid: self.pid, start: self.start }.lives()
    }
}

/// A number that no other start of this role has.
pub(super) fn generation() -> u64 {
    let now = u64::try_from(boot::now().as_nanos()).unwrap_or(u64::MAX);
    now ^ (u64::from(std::process::id()) << 48) | 1
}

/// Keepers that this process started: they may end before it does.
static STARTED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Starts a keeper, and waits until the service is there or it has said why not.
pub(super) fn spawn(spec: &Spec) -> Result<(), SuperviseError> {
    let child = pidfile::ask(spec, "keep")?;
    let mut started = STARTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    started.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    started.push(child);
    Ok(())
}

/// Keeps the service that stdin describes; tells on stdout why it could not be started at all.
pub fn run() -> Result<(), SuperviseError> {
    // The session of whoever started it may end. It fails only for one who leads a session already.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    for signal in [SIGHUP, SIGINT] {
        // Where it cannot be caught, a session of its own has to do.
        let _ = signal_hook::flag::register(signal, std::sync::Arc::new(AtomicBool::new(false)));
    }
    let begun = (|| {
        let spec: Spec = serde_json::from_reader(std::io::stdin().lock())
            .map_err(|error| SuperviseError::Start(error.to_string()))?;
        let path = spec.pid_file.clone().unwrap_or_default();
        change(&path, spec.generation, |running| {
            let own = Leader::of(std::process::id());
            (running.keep.pid, running.keep.start) = own.map_or((0, 0), |own| (own.pid, own.start));
        })?;
        let runs = current(&path, spec.generation).filter(Running::lives);
        let run = match runs {
            Some(running) => Run { child: None, leader: Leader { pid: running.pid, start: running.start } },
            None => Run::start(&spec)?,
        };
        Ok((spec, run))
    })();
    match begun {
        Ok((spec, run)) => {
            // Whoever waits for it sees the end of its output.
            let null = std::fs::File::options().write(true).open("/dev/null");
            if let Ok(null) = null {
                let _ = rustix::stdio::dup2_stdout(null.as_fd());
            }
            keep(&spec, run)
        }
        Err(error) => {
            let text = match &error {
                SuperviseError::Start(why) => why.clone(),
                other => other.to_string(),
            };
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            Err(error)
        }
    }
}

/// One life of the service.
struct Run {
    /// `None` if somebody else started it.
    child: Option<Child>,
    leader: Leader,
}

impl Run {
    fn start(spec: &Spec) -> Result<Self, SuperviseError> {
        let child = pidfile::execute(spec)?;
        // A child that nobody waited for keeps its number.
        let leader = Leader::of(child.id()).unwrap_or(Leader { pid: child.id(), start: 0 });
        Ok(Self { child: Some(child), leader })
    }

    /// Waits for its end.
    fn wait(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.wait();
            return;
        }
        let pid = i32::try_from(self.leader.pid).ok().and_then(Pid::from_raw);
        let fd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        while self.leader.lives() {
            match &fd {
                Some(fd) => drop(poll(&mut [PollFd::new(fd, PollFlags::IN)], None)),
                None => std::thread::sleep(Duration::from_secs(1)),
            }
        }
    }
}

fn keep(spec: &Spec, mut run: Run) -> Result<(), SuperviseError> {
    let path = spec.pid_file.clone().unwrap_or_default();
    let generation = spec.generation;
    loop {
        run.wait();
        let mut ends = 0;
        let wanted = change(&path, generation, |running| {
            let up = crate::model::millis(boot::now()).saturating_sub(running.keep.since_ms);
            let quick = u128::from(up) < QUICK.as_millis();
            running.keep.ends = if quick { running.keep.ends + 1 } else { 1 };
            ends = running.keep.ends;
        })?;
        if !wanted {
            return Ok(());
        }
        // What it started and left behind would hold its ports; nobody asked for a gentle end.
        if run.leader.group_lives() && run.leader.send(Signal::KILL).is_ok() {
            run.leader.wait_until(Instant::now() + AFTER_KILL);
        }
        run = loop {
            if ends >= ATTEMPTS || !pause(&path, generation, Duration::from_secs(ends.into())) {
                return Ok(());
            }
            match Run::start(spec) {
                Ok(run) => break run,
                Err(_) => {
                    if !change(&path, generation, |running| {
                        running.keep.ends += 1;
                        ends = running.keep.ends;
                    })? {
                        return Ok(());
                    }
                }
            }
        };
    }
}

/// What the pid file says, if it is this keeper's and the service is wanted.
fn current(path: &Utf8Path, generation: u64) -> Option<Running> {
    let running = pidfile::look(path).ok()??;
    (running.keep.generation == generation && running.keep.wanted).then_some(running)
}

/// Changes the pid file, if it is this keeper's and the service is wanted; whether it was.
fn change(path: &Utf8Path, generation: u64, with: impl FnOnce(&mut Running)) -> Result<bool, IoError> {
    // Its folder may be gone, with everything else.
    if !path.exists() {
        return Ok(false);
    }
    let lock = pidfile::lock(path)?;
    let Some(mut running) = Running::read(&lock, path)? else { return Ok(false) };
    if running.keep.generation != generation || !running.keep.wanted {
        return Ok(false);
    }
    with(&mut running);
    running.write(&lock, path)?;
    Ok(true)
}

/// Waits; whether the service is still wanted then.
fn pause(path: &Utf8Path, generation: u64, pause: Duration) -> bool {
    let until = Instant::now() + pause;
    loop {
        if current(path, generation).is_none() {
            return false;
        }
        if Instant::now() >= until {
            return true;
        }
        std::thread::sleep(GLANCE);
    }
}
