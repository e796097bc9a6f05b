//! What a service's process does before it becomes the service: `windlass node exec`.
//!
//! The agent starts its own binary, which makes a session, writes down its pid, sets limits, capabilities,
//! groups and user, opens the log, and executes the service's program. So nothing has to be done between
//! fork and exec, where hardly anything may be, and the pid is on record before the service exists.
//!
//! # Invariants
//!
//! * Who finds another live process on record gives up: two agents cannot start a service twice.
//! * The log is opened as the service's user: whoever owns `shared/` gains nothing by planting links in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::process;
use crate::agent::boot;
use crate::agent::names::ReleaseName;
use crate::fs::{FileLock, IoError, IoResultExt as _, calls};
use crate::recipe::Limit;

/// What to execute, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// Where the pid is written; `None` if nobody asks after it.
    pub pid_file: Option<Utf8PathBuf>,
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

/// What the pid file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    pub pid: u32,
    /// With the pid and the boot, it names one process for good.
    pub start: u64,
    pub boot: String,
    pub release: ReleaseName,
}

impl Running {
    /// Reads a pid file; an empty or torn one says nothing.
    pub(super) fn look(mut file: &File) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Whether that very process still lives.
    pub(super) fn lives(&self) -> std::io::Result<bool> {
        let found = process::stat(self.pid)?;
        Ok(self.boot == boot::id() && found.is_some_and(|stat| stat.start == self.start && !stat.zombie))
    }

    /// Whether that very process or one of its group still lives.
    pub(super) fn group_lives(&self) -> std::io::Result<bool> {
        Ok(self.boot == boot::id() && !process::members(self.pid)?.is_empty())
    }
}

/// Why a process did not become the service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// It runs already.
    #[error("process {0} runs it already")]
    Runs(u32),
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

/// Reads a request from stdin and becomes the service; returns only if that failed, having said so on stdout.
pub fn run() -> ExecError {
    // Kept over the exec's change of stdout, so that its failure can be told; closed by its success.
    let answer = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3);
    let error = match become_service() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    if let Ok(answer) = answer {
        // The agent that waits for it sees the process end as well.
        let _ = write!(File::from(answer), "{error}");
    }
    error
}

fn become_service() -> Result<std::convert::Infallible, ExecError> {
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request).or_refused(|| "read the request".to_owned())?;
    let spec: Spec = serde_json::from_slice(&request)?;
    // It fails for one who leads a group already, which a child of the agent does not.
    rustix::process::setsid().or_refused(|| "start a session".to_owned())?;
    let recorded = spec.pid_file.as_ref().map(|path| record_pid(path, &spec.release)).transpose()?;
    for (name, limit) in &spec.limits {
        set_limit(name, *limit)?;
    }
    become_user(&spec)?;
    let log = open_log(&spec)?;
    std::env::set_current_dir(&spec.cwd).or_refused(|| format!("enter {}", spec.cwd))?;
    let errors = log.try_clone().or_refused(|| format!("open {}", spec.log))?;
    let program = spec.command.first().map_or("", String::as_str);
    let error = Command::new(program)
        .args(spec.command.iter().skip(1))
        .env_clear()
        .envs(&spec.env)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .exec();
    drop(recorded);
    Err(ExecError::Refused { what: format!("run {program}"), source: error })
}

/// Writes this process down as the one that runs; the lock goes with the exec.
fn record_pid(path: &Utf8PathBuf, release: &ReleaseName) -> Result<FileLock, ExecError> {
    let until = Instant::now() + Duration::from_secs(10);
    let lock = loop {
        match FileLock::attempt(path)? {
            Some(lock) => break lock,
            None if Instant::now() > until => {
                let source = std::io::Error::from(std::io::ErrorKind::WouldBlock);
                return Err(ExecError::Refused { what: format!("lock {path}"), source });
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let found = Running::look(lock.file()).or_refused(|| format!("read {path}"))?;
    if let Some(other) = found
        && other.lives().or_refused(|| "look at /proc".to_owned())?
    {
        return Err(ExecError::Runs(other.pid));
    }
    let pid = std::process::id();
    let own = process::stat(pid).or_refused(|| "look at /proc".to_owned())?;
    let start = own.map_or(0, |stat| stat.start);
    let running = Running { pid, start, boot: boot::id().to_owned(), release: release.clone() };
    let bytes = serde_json::to_vec(&running)?;
    let mut file = lock.file();
    // No sync: after a reboot the process is gone, whatever the file says.
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&bytes)).at("write", path)?;
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

fn open_log(spec: &Spec) -> Result<File, ExecError> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o640);
    let opened = calls::open(spec.log.as_std_path(), flags, mode);
    Ok(File::from(opened.or_refused(|| format!("open {}", spec.log))?))
}
