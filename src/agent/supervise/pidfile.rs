//! The supervisor for plain hosts: a process, a file with its pid, signals, and a keeper that brings it up again.
//!
//! # Invariants
//!
//! * A pid counts only with its start time and boot: a number that was given out again is another process.
//! * A service is a session of its own, so that its whole group can be stopped, and survives the agent.
//! * The file says whether the service shall run, and whose keeper may start it: it is changed under its own
//!   lock, by whoever starts or stops and by the service's process before it becomes the service. So a service
//!   that is stopped is not brought up again, however its keeper and the stop meet.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::exec::Spec;
use super::group::{AFTER_KILL, Leader, signal};
use super::keeper::{self, Keep};
use super::kept::stopping;
use super::spec::spec;
use super::{Process, ProcessState, QUICK, Started, Stopped, SuperviseError, Supervisor, Unit};
use crate::agent::boot;
use crate::agent::layout::RoleDir;
use crate::agent::names::ReleaseName;
use crate::fs::{FileLock, IoError, IoResultExt as _, Look};
use crate::model::millis;

/// The embedded supervisor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pidfile;

/// Bytes of a record in a pid file: JSON, and spaces after it. Less than a page.
const RECORD: usize = 2048;

/// What the pid file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    /// 0 until there is a process.
    pub pid: u32,
    /// With the pid and the boot, it names one process for good.
    pub start: u64,
    pub boot: String,
    pub release: ReleaseName,
    /// Who brings it up again; nobody, in files of before there were keepers.
    #[serde(default)]
    pub keep: Keep,
}

impl Running {
    /// Reads a locked pid file; an empty one says nothing. That it cannot be read is no proof that nothing runs.
    pub(super) fn read(lock: &FileLock, path: &Utf8Path) -> Result<Option<Self>, IoError> {
        let mut bytes = [0; RECORD];
        let length = read_at(lock.file(), &mut bytes).at("read", path)?;
        Ok(serde_json::from_slice(bytes.get(..length).unwrap_or_default()).ok())
    }

    /// Writes it over what the locked file says: in one call and within one page, of which a process that is
    /// killed has written all or nothing, and that needs no space where a record has been before.
    pub(super) fn write(&self, lock: &FileLock, path: &Utf8Path) -> Result<(), IoError> {
        let mut bytes = serde_json::to_vec(self).map_err(std::io::Error::from).at("write", path)?;
        if bytes.len() > RECORD {
            return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge)).at("write", path);
        }
        bytes.resize(RECORD, b' ');
        // No sync: after a reboot the process is gone, whatever the file says.
        lock.file().write_all_at(&bytes, 0).at("write", path)
    }

    /// The process, if it can be one of this boot.
    fn leader(&self) -> Option<Leader> {
        (self.pid != 0 && self.boot == boot::id()).then_some(Leader { pid: self.pid, start: self.start })
    }

    /// Whether that very process still lives.
    pub(super) fn lives(&self) -> bool {
        self.leader().is_some_and(Leader::lives)
    }

    /// Whether it is up again after it had ended by itself, for so short that it may end again.
    fn is_in_doubt(&self) -> bool {
        let up = millis(boot::now()).saturating_sub(self.keep.since_ms);
        self.keep.ends > 0 && u128::from(up) < QUICK.as_millis()
    }
}

fn read_at(file: &File, bytes: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read_at(bytes, 0) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Locks a pid file; whoever else has it has it for moments.
pub(super) fn lock(path: &Utf8Path) -> Result<FileLock, IoError> {
    patiently(path, || FileLock::attempt(path))
}

fn patiently<T>(
    path: &Utf8Path,
    mut attempt: impl FnMut() -> Result<Option<T>, IoError>,
) -> Result<T, IoError> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt()? {
            Some(got) => return Ok(got),
            None if Instant::now() > until => {
                return Err(std::io::Error::from(std::io::ErrorKind::WouldBlock)).at("lock", path);
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// What a pid file says now; nothing if there is none.
pub(super) fn look(path: &Utf8Path) -> Result<Option<Running>, IoError> {
    let lock = patiently(path, || match FileLock::look(path)? {
        Look::Missing => Ok(Some(None)),
        Look::Held => Ok(None),
        Look::Free(lock) => Ok(Some(Some(lock))),
    })?;
    lock.map_or(Ok(None), |lock| Running::read(&lock, path))
}

impl Supervisor for Pidfile {
    fn start(&self, dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Started, SuperviseError> {
        let path = dir.pid();
        let mut spec = spec(release, unit, rustix::process::geteuid().as_raw())?;
        (spec.pid_file, spec.generation) = (Some(path.clone()), keeper::generation());
        let before = lock(&path)?;
        if let Some(other) = Running::read(&before, &path)?.filter(Running::lives) {
            return Err(SuperviseError::Runs { release: other.release.to_string(), pid: other.pid });
        }
        let keep = Keep { generation: spec.generation, wanted: true, ..Keep::default() };
        let running = Running { pid: 0, start: 0, boot: String::new(), release: release.clone(), keep };
        running.write(&before, &path)?;
        drop(before);
        keeper::spawn(&spec)?;
        match running_now(dir)? {
            Some(running) if running.pid != 0 => Ok(Started { pid: running.pid, already: false }),
            _ => Err(SuperviseError::Start("it was stopped meanwhile".to_owned())),
        }
    }

    fn stop(&self, dir: &RoleDir, unit: Option<&Unit>) -> Result<Stopped, SuperviseError> {
        let begun = Instant::now();
        let mut stopped = Stopped { ran: false, killed: false, duration_ms: 0 };
        if running_now(dir)?.is_none() {
            return Ok(stopped);
        }
        let path = dir.pid();
        let held = lock(&path)?;
        let Some(mut running) = Running::read(&held, &path)? else { return Ok(stopped) };
        running.keep.wanted = false;
        running.write(&held, &path)?;
        drop(held);
        stopped.ran = running.lives();
        // Its children may outlive the leader; while they do, its number is not given out again.
        if let Some(leader) = running.leader().filter(|leader| leader.group_lives()) {
            let (name, timeout) = stopping(unit);
            leader.send(signal(name))?;
            if !leader.wait_until(Instant::now() + timeout) {
                stopped.killed = true;
                leader.send(Signal::KILL)?;
                if !leader.wait_until(Instant::now() + AFTER_KILL) && leader.look_at_group()? {
                    return Err(SuperviseError::Unkillable(running.pid));
                }
            }
        }
        forget(dir, running.keep.generation)?;
        stopped.duration_ms = millis(begun.elapsed());
        Ok(stopped)
    }

    fn status(&self, dir: &RoleDir) -> Result<Process, SuperviseError> {
        let Some(running) = running_now(dir)? else {
            return Ok(Process { state: ProcessState::Stopped, pid: None, release: None });
        };
        let lives = running.lives();
        let state = match (lives, running.keep.wanted) {
            (true, _) if running.is_in_doubt() => ProcessState::Failed,
            (true, _) => ProcessState::Running,
            (false, _) if !std::path::Path::new("/proc/self/stat").exists() => ProcessState::Unknown,
            // It was told to end, and whoever told it did not live to write down that it did.
            (false, false) if running.keep.generation != 0 => ProcessState::Stopped,
            (false, _) => ProcessState::Failed,
        };
        let release = (state != ProcessState::Stopped).then_some(running.release);
        Ok(Process { state, pid: lives.then_some(running.pid), release })
    }

    fn adopt(&self, dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<(), SuperviseError> {
        let Some(running) = running_now(dir)? else { return Ok(()) };
        if !running.lives() || running.keep.lives() || !running.keep.wanted {
            return Ok(());
        }
        let mut spec = spec(release, unit, rustix::process::geteuid().as_raw())?;
        (spec.pid_file, spec.generation) = (Some(dir.pid()), running.keep.generation);
        keeper::spawn(&spec)
    }
}

fn running_now(dir: &RoleDir) -> Result<Option<Running>, IoError> {
    look(&dir.pid())
}

/// Notes that what runs serves another release from now on, and has it kept up from there: its keeper knows only
/// the release that it was started for, so that another one takes its place.
pub(super) fn serves(dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<(), SuperviseError> {
    let path = dir.pid();
    let mut spec = spec(release, unit, rustix::process::geteuid().as_raw())?;
    let held = lock(&path)?;
    let Some(mut running) = Running::read(&held, &path)?.filter(Running::lives) else {
        let what = "it does not run".to_owned();
        return Err(SuperviseError::Reload { what, help: vec!["start it".to_owned()] });
    };
    running.release = release.clone();
    running.keep = Keep { generation: keeper::generation(), pid: 0, start: 0, ..running.keep };
    running.write(&held, &path)?;
    drop(held);
    (spec.pid_file, spec.generation) = (Some(path), running.keep.generation);
    keeper::spawn(&spec)
}

/// Empties the pid file, unless it is about another start by now.
fn forget(dir: &RoleDir, generation: u64) -> Result<(), SuperviseError> {
    let path = dir.pid();
    let held = lock(&path)?;
    if Running::read(&held, &path)?.is_some_and(|running| running.keep.generation == generation) {
        held.file().set_len(0).at("empty", &path)?;
    }
    Ok(())
}

/// Writes down that the service of a release could not be started, so that it counts as failed, not as stopped.
pub(super) fn note_failure(dir: &RoleDir, release: &ReleaseName) -> Result<(), IoError> {
    let path = dir.pid();
    let held = lock(&path)?;
    if Running::read(&held, &path)?.is_some_and(|running| running.lives()) {
        // Somebody else was faster, which is why it could not be started.
        return Ok(());
    }
    let (boot, keep) = (boot::id().to_owned(), Keep::default());
    Running { pid: 0, start: 0, boot, release: release.clone(), keep }.write(&held, &path)
}

/// Runs a command of a release as its service would be run; its exit code, or `None` if it took too long.
pub fn probe(
    release: &ReleaseName,
    unit: &Unit,
    words: &[String],
    within: Duration,
) -> Result<Option<i32>, SuperviseError> {
    let mut words = words.to_vec();
    if let Some(program) = words.first_mut() {
        *program = unit.cwd.join(&*program).into_string();
    }
    run(release, unit, words, "/dev/null".into(), within)
}

/// Runs a release's test as its service would be run; its exit code, or `None` if it took too long.
pub fn test(
    release: &ReleaseName,
    unit: &Unit,
    log: camino::Utf8PathBuf,
    within: Duration,
) -> Result<Option<i32>, SuperviseError> {
    run(release, unit, unit.test.clone(), log, within)
}

fn run(
    release: &ReleaseName,
    unit: &Unit,
    words: Vec<String>,
    log: camino::Utf8PathBuf,
    within: Duration,
) -> Result<Option<i32>, SuperviseError> {
    let mut spec = spec(release, unit, rustix::process::geteuid().as_raw())?;
    (spec.command, spec.log) = (words, log);
    let mut child = execute(&spec)?;
    let failed = |error: std::io::Error| SuperviseError::Start(error.to_string());
    let until = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            // One that a signal ended has no code of its own; the shell's is 128 and the signal.
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            return Ok(status.code().or(signal.map(|signal| 128 + signal)));
        }
        if Instant::now() >= until {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It leads its own session; what it started goes with it.
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts the process and waits until it is what was asked for, or has said why not.
pub(super) fn execute(spec: &Spec) -> Result<Child, SuperviseError> {
    ask(spec, "exec")
}

/// Starts `windlass node <op>`, gives it the spec, and waits until it closes its output or has said what failed.
pub(super) fn ask(spec: &Spec, op: &str) -> Result<Child, SuperviseError> {
    let failed = |error: std::io::Error| SuperviseError::Start(error.to_string());
    // The very binary that runs now, whatever has its name meanwhile.
    let mut child = Command::new("/proc/self/exe")
        .arg0("windlass")
        .args(["node", op])
        .env_clear()
        .envs(boot::test_environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let request = serde_json::to_vec(spec).map_err(|error| SuperviseError::Start(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that is gone already has said why on its stdout.
        let _ = stdin.write_all(&request);
    }
    let mut why = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(64 << 10).read_to_string(&mut why).map_err(failed)?;
    }
    if why.is_empty() {
        return Ok(child);
    }
    let _ = child.wait();
    Err(SuperviseError::Start(why))
}
