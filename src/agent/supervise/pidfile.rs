//! The supervisor for plain hosts: a process, a file with its pid, signals.
//!
//! # Invariants
//!
//! * A pid counts only with its start time and boot: a number that was given out again is another process.
//! * A service is a session of its own, so that its whole group can be stopped, and survives the agent.
//! * It is started from the release's own path, never through `current`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::exec::{Running, Spec};
use super::{Process, ProcessState, Started, Stopped, SuperviseError, Supervisor, Unit};
use crate::agent::accounts;
use crate::agent::layout::RoleDir;
use crate::agent::names::ReleaseName;
use crate::fs::{FileLock, IoError, IoResultExt as _};
use crate::model::millis;

/// How long KILL may take.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// What a service finds its programs with, unless its recipe says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The embedded supervisor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pidfile;

impl Supervisor for Pidfile {
    fn start(&self, dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Started, SuperviseError> {
        if let Some(running) = running(dir).filter(Running::lives) {
            if running.release == *release {
                return Ok(Started { pid: running.pid, already: true });
            }
            return Err(SuperviseError::Runs { release: running.release.to_string(), pid: running.pid });
        }
        let spec = spec(dir, release, unit)?;
        let pid = spawn(&spec)?;
        Ok(Started { pid, already: false })
    }

    fn stop(&self, dir: &RoleDir, unit: Option<&Unit>) -> Result<Stopped, SuperviseError> {
        let begun = Instant::now();
        let mut stopped = Stopped { ran: false, killed: false, duration_ms: 0 };
        let Some(running) = running(dir) else { return Ok(stopped) };
        stopped.ran = running.lives();
        // Its children may outlive the leader; while they do, its number is not given out again.
        if running.group_lives() {
            let (signal, timeout) = unit.map_or((Signal::TERM, Duration::from_mins(1)), |unit| {
                (signal_of(&unit.signal), unit.timeout())
            });
            send(&running, signal)?;
            if !wait(&running, timeout) {
                stopped.killed = true;
                send(&running, Signal::KILL)?;
                if !wait(&running, AFTER_KILL) {
                    return Err(SuperviseError::Unkillable(running.pid));
                }
            }
        }
        // Whoever starts it now waits for this lock and then finds nothing on record.
        let path = dir.pid();
        if let Some(lock) = FileLock::attempt(&path)?
            && Running::read(lock.file()).as_ref() == Some(&running)
        {
            lock.file().set_len(0).at("empty", &path)?;
        }
        stopped.duration_ms = millis(begun.elapsed());
        Ok(stopped)
    }

    fn reload(&self, dir: &RoleDir, release: &ReleaseName, signal: &str) -> Result<Started, SuperviseError> {
        let path = dir.pid();
        // Nobody else is at the role, so that whoever holds this lock is one that is just being started.
        let Some(lock) = FileLock::attempt(&path)? else { return Err(SuperviseError::Stopped) };
        let running = Running::read(lock.file()).filter(Running::lives).ok_or(SuperviseError::Stopped)?;
        let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw).ok_or(SuperviseError::Stopped)?;
        // The one process, not its group: a master tells its workers itself.
        rustix::process::kill_process(pid, signal_of(signal)).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => SuperviseError::Stopped,
            errno => {
                IoError::new("signal", &camino::Utf8PathBuf::from(format!("process {pid:?}")), errno).into()
            }
        })?;
        let running = Running { release: release.clone(), ..running };
        let bytes = serde_json::to_vec(&running).map_err(std::io::Error::from).at("write", &path)?;
        let mut file = lock.file();
        file.set_len(0)
            .and_then(|()| std::io::Seek::rewind(&mut file))
            .and_then(|()| file.write_all(&bytes))
            .at("write", &path)?;
        Ok(Started { pid: running.pid, already: true })
    }

    fn status(&self, dir: &RoleDir) -> Result<Process, SuperviseError> {
        let Some(running) = running(dir) else {
            return Ok(Process { state: ProcessState::Stopped, pid: None, release: None });
        };
        let state = if running.lives() {
            ProcessState::Running
        } else if std::path::Path::new("/proc/self/stat").exists() {
            ProcessState::Failed
        } else {
            ProcessState::Unknown
        };
        let pid = (state == ProcessState::Running).then_some(running.pid);
        Ok(Process { state, pid, release: Some(running.release) })
    }
}

fn running(dir: &RoleDir) -> Option<Running> {
    Running::read(&File::open(dir.pid()).ok()?)
}

fn spec(dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Spec, SuperviseError> {
    let not = |error: accounts::NoAccount| SuperviseError::Start(error.to_string());
    let us = rustix::process::geteuid().as_raw();
    let user = unit.user.clone().unwrap_or_else(|| us.to_string());
    let account = accounts::find(&user, unit.group.as_deref()).map_err(not)?;
    if account.uid != us && us != 0 {
        let us = accounts::name_of(us);
        return Err(SuperviseError::Start(format!(
            "it runs as {user}, and the agent, which runs as {us}, cannot"
        )));
    }
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), account.home.clone()),
        ("USER".to_owned(), account.name.clone()),
        ("LOGNAME".to_owned(), account.name.clone()),
    ]);
    env.extend(unit.env.clone());
    // Who is not root cannot set groups, and stays who it is.
    let change = us == 0 && (unit.user.is_some() || unit.group.is_some());
    Ok(Spec {
        pid_file: Some(dir.pid()),
        release: release.clone(),
        account: change.then_some((account.uid, account.gid, account.groups)),
        capabilities: unit.capabilities.clone(),
        limits: unit.limits.clone(),
        command: unit.command.clone(),
        env,
        cwd: unit.cwd.clone(),
        log: unit.log.clone(),
    })
}

/// Runs a command of a release as its service would be run; its exit code, or `None` if it took too long.
pub fn probe(
    dir: &RoleDir,
    release: &ReleaseName,
    unit: &Unit,
    words: &[String],
    within: Duration,
) -> Result<Option<i32>, SuperviseError> {
    let mut words = words.to_vec();
    if let Some(program) = words.first_mut() {
        *program = unit.cwd.join(&*program).into_string();
    }
    run(dir, release, unit, words, "/dev/null".into(), within)
}

/// Runs a release's test as its service would be run, its output going to `log`; its exit code, or `None` if it
/// took too long.
pub fn test(
    dir: &RoleDir,
    release: &ReleaseName,
    unit: &Unit,
    log: camino::Utf8PathBuf,
    within: Duration,
) -> Result<Option<i32>, SuperviseError> {
    run(dir, release, unit, unit.test.clone(), log, within)
}

fn run(
    dir: &RoleDir,
    release: &ReleaseName,
    unit: &Unit,
    command: Vec<String>,
    log: camino::Utf8PathBuf,
    within: Duration,
) -> Result<Option<i32>, SuperviseError> {
    let mut spec = spec(dir, release, unit)?;
    (spec.command, spec.pid_file, spec.log) = (command, None, log);
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

/// Starts the process and waits until it is the service, or has said why not.
fn spawn(spec: &Spec) -> Result<u32, SuperviseError> {
    Ok(execute(spec)?.id())
}

fn execute(spec: &Spec) -> Result<Child, SuperviseError> {
    let failed = |error: std::io::Error| SuperviseError::Start(error.to_string());
    // The very binary that runs now, whatever has its name meanwhile.
    let mut child = Command::new("/proc/self/exe")
        .arg0("windlass")
        .args(["node", "exec"])
        .env_clear()
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

fn signal_of(name: &str) -> Signal {
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

fn send(running: &Running, signal: Signal) -> Result<(), SuperviseError> {
    let Some(group) = i32::try_from(running.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match rustix::process::kill_process_group(group, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(IoError::new(
            "signal the service of",
            &camino::Utf8PathBuf::from(&format!("process {}", running.pid)),
            errno,
        )
        .into()),
    }
}

/// Whether all of the group ended in time.
fn wait(running: &Running, timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    let mut pause = Duration::from_millis(2);
    loop {
        // The leader first: asking for one is cheaper than for all.
        if !running.lives() && !running.group_lives() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
