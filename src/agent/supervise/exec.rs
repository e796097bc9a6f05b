//! What a service's process does before it becomes the service: `windlass node exec`.
//!
//! The agent, its keeper or supervisord starts windlass's own binary, which makes a session, writes down its pid,
//! sets limits, capabilities, groups and user, opens the log, and executes the service's program. So nothing has
//! to be done between fork and exec, where hardly anything may be, and the pid is on record before the service
//! exists. systemd does all that itself but for the log, which it would open as root ([`with_log`]).
//!
//! # Invariants
//!
//! * Who finds another live process on record gives up: two agents cannot start a service twice.
//! * The log is opened as the service's user: whoever owns `shared/` gains nothing by planting links in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::pidfile::{self, Running};
use super::process;
use crate::agent::boot;
use crate::agent::names::ReleaseName;
use crate::fs::{FileLock, IoError, calls};
use crate::recipe::Limit;

/// Where one that a supervisor starts says why it did not become the service.
pub(super) const RUN_LOG: &str = "run.log";

/// What to execute, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// Where the pid is written; `None` if nobody asks after it.
    pub pid_file: Option<Utf8PathBuf>,
    /// Whose keeper starts it: if the pid file says another one, or that it shall not run, it does not.
    #[serde(default)]
    pub generation: u64,
    pub release: ReleaseName,
    /// uid, gid, groups; `None` stays who it is.
    pub account: Option<(u32, u32, Vec<u32>)>,
    pub capabilities: Vec<String>,
    pub limits: BTreeMap<String, Limit>,
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: Utf8PathBuf,
    pub log: Utf8PathBuf,
}

/// Why a process did not become the service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// It runs already.
    #[error("process {0} runs it already")]
    Runs(u32),
    /// It was stopped, or started by somebody else, meanwhile.
    #[error("it was stopped meanwhile")]
    Unwanted,
    /// The system refused something.
    #[error("could not {what}: {source}")]
    Refused {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// What to do could not be read.
    #[error("the request is not valid: {0}")]
    Request(#[from] serde_json::Error),
    /// The system refused.
    #[error("{0}: {source}", source = .0.source)]
    Io(#[from] IoError),
}

trait OrRefused<T> {
    fn or_refused(self, what: impl FnOnce() -> String) -> Result<T, ExecError>;
}

impl<T, E: Into<std::io::Error>> OrRefused<T> for Result<T, E> {
    fn or_refused(self, what: impl FnOnce() -> String) -> Result<T, ExecError> {
        self.map_err(|error| ExecError::Refused { what: what(), source: error.into() })
    }
}

/// Becomes the service that stdin or `spec` describes; returns only if that failed, having said so on stdout, or in
/// `run.log` beside the spec.
pub fn run(spec: Option<&Utf8Path>) -> ExecError {
    // Kept over the exec's change of stdout and of user, so that its failure can be told; closed by its success.
    let answer = match spec {
        None => rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3),
        Some(path) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let path = path.with_file_name(RUN_LOG);
            rustix::fs::open(path.as_std_path(), flags, Mode::from_raw_mode(0o600))
        }
    };
    let error = match read(spec).and_then(|spec| become_service(&spec)) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    if let Ok(answer) = answer {
        // The agent that waits for it sees the process end as well.
        let _ = write!(File::from(answer), "{error}");
    }
    error
}

/// Becomes `command` with its output in `log`, as whoever it is already; returns only if that failed.
pub fn with_log(log: &Utf8Path, command: &[String]) -> ExecError {
    let words = || -> Result<std::convert::Infallible, ExecError> {
        let log = open_log(log)?;
        let told = log.try_clone();
        let error = execute(Command::new(program(command)).args(command.iter().skip(1)), log, command);
        if let (Err(error), Ok(mut told)) = (&error, told) {
            // Whoever looks for the service's last words finds why there were none.
            let _ = writeln!(told, "windlass: {error}");
        }
        error
    };
    match words() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn read(spec: Option<&Utf8Path>) -> Result<Spec, ExecError> {
    let mut request = Vec::new();
    match spec {
        Some(path) => {
            request = std::fs::read(path).or_refused(|| format!("read {path}"))?;
        }
        None => {
            std::io::stdin().read_to_end(&mut request).or_refused(|| "read the request".to_owned())?;
        }
    }
    Ok(serde_json::from_slice(&request)?)
}

fn become_service(spec: &Spec) -> Result<std::convert::Infallible, ExecError> {
    // It fails for one who leads a group already: a child of the agent does not, one of a supervisor may.
    if let Err(errno) = rustix::process::setsid()
        && rustix::process::getpgrp() != rustix::process::getpid()
    {
        return Err(errno).or_refused(|| "start a session".to_owned());
    }
    let recorded = spec.pid_file.as_ref().map(|path| record_pid(path, spec)).transpose()?;
    for (name, limit) in &spec.limits {
        set_limit(name, *limit)?;
    }
    become_user(spec)?;
    let log = open_log(&spec.log)?;
    std::env::set_current_dir(&spec.cwd).or_refused(|| format!("enter {}", spec.cwd))?;
    let mut command = Command::new(program(&spec.command));
    command.args(spec.command.iter().skip(1)).env_clear().envs(&spec.env);
    let failed = execute(&mut command, log, &spec.command);
    drop(recorded);
    failed
}

fn program(command: &[String]) -> &str {
    command.first().map_or("", String::as_str)
}

fn execute(
    command: &mut Command,
    log: File,
    words: &[String],
) -> Result<std::convert::Infallible, ExecError> {
    let errors = log.try_clone().or_refused(|| "use the log twice".to_owned())?;
    let source = command.stdin(Stdio::null()).stdout(log).stderr(errors).exec();
    Err(ExecError::Refused { what: format!("run {}", program(words)), source })
}

/// Writes this process down as the one that runs; the lock goes with the exec.
fn record_pid(path: &Utf8Path, spec: &Spec) -> Result<FileLock, ExecError> {
    let lock = pidfile::lock(path)?;
    let found = Running::read(&lock, path)?;
    let Some(mut running) = found else { return Err(ExecError::Unwanted) };
    if running.lives() {
        return Err(ExecError::Runs(running.pid));
    }
    if running.keep.generation != spec.generation || !running.keep.wanted {
        return Err(ExecError::Unwanted);
    }
    running.pid = std::process::id();
    let own = process::stat(running.pid).or_refused(|| "look at /proc".to_owned())?;
    running.start = own.map_or(0, |stat| stat.start);
    boot::id().clone_into(&mut running.boot);
    running.keep.since_ms = crate::model::millis(boot::now());
    running.write(&lock, path)?;
    Ok(lock)
}

fn set_limit(name: &str, limit: Limit) -> Result<(), ExecError> {
    let resource = match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => {
            let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
            return Err(ExecError::Refused { what: format!("set the limit `{name}`"), source });
        }
    };
    let value = match limit {
        Limit::Unlimited => None,
        Limit::Number(number) => Some(number),
    };
    let shown = || match value {
        None => format!("set the limit `{name}` to unlimited"),
        Some(number) => format!("set the limit `{name}` to {number}"),
    };
    rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value }).or_refused(shown)
}

/// Groups, group, user, then the capabilities that survive it.
fn become_user(spec: &Spec) -> Result<(), ExecError> {
    use rustix::process::{Gid, Uid};
    use rustix::thread;
    let capabilities = spec.capabilities.iter().try_fold(CapabilitySet::empty(), |all, name| {
        let one = CapabilitySet::from_name(name.trim_start_matches("CAP_"));
        one.map(|one| all | one).ok_or_else(|| {
            let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
            ExecError::Refused { what: format!("use the capability `{name}`"), source }
        })
    })?;
    if let Some((uid, gid, groups)) = &spec.account {
        let groups: Vec<Gid> = groups.iter().chain([gid]).map(|gid| Gid::from_raw(*gid)).collect();
        let user = || format!("become user {uid}");
        if !capabilities.is_empty() {
            thread::set_keep_capabilities(true).or_refused(user)?;
        }
        thread::set_thread_groups(&groups).or_refused(|| "set the groups".to_owned())?;
        thread::set_thread_gid(Gid::from_raw(*gid)).or_refused(|| format!("become group {gid}"))?;
        thread::set_thread_uid(Uid::from_raw(*uid)).or_refused(user)?;
    }
    if !capabilities.is_empty() {
        let keep = || format!("keep {}", spec.capabilities.join(", "));
        let sets = thread::CapabilitySets {
            effective: capabilities,
            permitted: capabilities,
            inheritable: capabilities,
        };
        thread::set_capabilities(None, sets).or_refused(keep)?;
        for one in capabilities.iter() {
            thread::configure_capability_in_ambient_set(one, true).or_refused(keep)?;
        }
    }
    Ok(())
}

fn open_log(path: &Utf8Path) -> Result<File, ExecError> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o640);
    let opened = calls::open(path.as_std_path(), flags, mode);
    Ok(File::from(opened.or_refused(|| format!("open {path}"))?))
}
