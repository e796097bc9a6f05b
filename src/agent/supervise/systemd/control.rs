//! `systemctl`, run and understood.
//!
//! Its D-Bus interface would need a library; the program comes with systemd, and `show` is made for programs.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;

use crate::agent::accounts;
use crate::agent::supervise::SuperviseError;
use crate::fs::{IoResultExt as _, calls};

/// How long it may take to say how a unit is.
const SHOW: Duration = Duration::from_secs(20);

/// A systemd that manages units for us.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    /// Of that user; `None` is the system's.
    user: Option<User>,
}

#[derive(Clone, Debug)]
struct User {
    name: String,
    home: String,
    runtime: String,
}

/// How a unit is.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    load: String,
    pub active: String,
    pub sub: String,
    pub pid: Option<u32>,
    pub restarts: u64,
    pub result: String,
    /// The main process's exit code.
    pub status: u32,
    /// On the monotonic clock, since when the process runs.
    pub since: Duration,
}

impl Shown {
    pub(super) fn is_loaded(&self) -> bool {
        self.load != "not-found"
    }

    /// Whether anything of it runs.
    pub(super) fn lives(&self) -> bool {
        self.pid.is_some() || matches!(self.active.as_str(), "active" | "deactivating" | "reloading")
    }
}

impl Manager {
    /// The system's manager for root, a user's own for the user.
    pub(super) fn find() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        if uid == 0 {
            return Self { user: None };
        }
        let account = accounts::find(&uid.to_string(), None).ok();
        let name = accounts::name_of(uid);
        let named = accounts::find(&name, None).ok();
        let home = std::env::var("HOME").ok().filter(|home| home.starts_with('/'));
        let home = home.or(named.or(account).map(|account| account.home)).unwrap_or_else(|| "/".to_owned());
        let runtime = std::env::var("XDG_RUNTIME_DIR").ok().filter(|dir| dir.starts_with('/'));
        let runtime = runtime.unwrap_or_else(|| format!("/run/user/{uid}"));
        Self { user: Some(User { name, home, runtime }) }
    }

    pub(super) fn is_system(&self) -> bool {
        self.user.is_none()
    }

    /// Whether it can keep a service up.
    pub(super) fn check(&self) -> Result<(), SuperviseError> {
        if !std::path::Path::new("/run/systemd/system").is_dir() {
            return Err(SuperviseError::supervisor(
                "systemd does not run on this node",
                "choose `pidfile` or `supervisord` for it: supervisor = \"pidfile\" below the node in cluster.toml",
            ));
        }
        let Some(user) = &self.user else { return Ok(()) };
        let name = &user.name;
        let bus = std::path::Path::new(&user.runtime).join("systemd/private");
        // Without it the manager, and everything that it keeps, ends with the user's last session.
        let lingers = std::path::Path::new("/var/lib/systemd/linger").join(name).exists();
        if !bus.exists() || !lingers {
            let what = if lingers {
                format!("systemd runs no manager for {name} (there is no {})", bus.display())
            } else {
                format!("what systemd keeps for {name} would end with the last log-in: lingering is off")
            };
            return Err(SuperviseError::Supervisor {
                what,
                help: vec![
                    format!("as root: `loginctl enable-linger {name}`"),
                    "or run the agent as root (`user = \"root\"`), or choose `supervisord` or `pidfile`"
                        .to_owned(),
                ],
            });
        }
        Ok(())
    }

    /// Where units of the administrator's are.
    pub(super) fn dir(&self) -> Result<Utf8PathBuf, SuperviseError> {
        let Some(user) = &self.user else { return Ok("/etc/systemd/system".into()) };
        let dir = Utf8PathBuf::from(&user.home).join(".config/systemd/user");
        calls::create_dir_all(&dir).at("create", &dir)?;
        let meta = dir.metadata().at("read", &dir)?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            let what = format!("{dir} is not {}'s own", user.name);
            return Err(SuperviseError::supervisor(what, "give it back to its user"));
        }
        Ok(dir)
    }

    /// Does something; what it says where that fails is the error.
    pub(super) fn run(&self, words: &[&str], within: Duration) -> Result<(), SuperviseError> {
        self.output(words, within).map(drop)
    }

    /// How a unit is.
    pub(super) fn show(&self, unit: &str) -> Result<Shown, SuperviseError> {
        const WANTED: &str = "--property=LoadState,ActiveState,SubState,MainPID,NRestarts,Result,ExecMainStatus,\
                              ExecMainStartTimestampMonotonic";
        Ok(parse(&self.output(&["show", WANTED, unit], SHOW)?))
    }

    fn output(&self, words: &[&str], within: Duration) -> Result<String, SuperviseError> {
        let failed = |why: String| {
            let scope = if self.is_system() { "" } else { " --user" };
            SuperviseError::supervisor(
                format!("`systemctl{scope} {}` failed: {why}", words.join(" ")),
                "`systemctl status` and `journalctl -u` on the unit tell more; is the agent root, or has its user a \
                 manager?",
            )
        };
        let mut command = Command::new("systemctl");
        command.args(["--no-pager", "--no-ask-password"]);
        if let Some(user) = &self.user {
            command.arg("--user").env("XDG_RUNTIME_DIR", &user.runtime);
        }
        command.args(words).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").env_remove("SYSTEMD_LOG_LEVEL");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let read = |from: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                if let Some(from) = from {
                    let _ = from.take(1 << 20).read_to_end(&mut text);
                }
                String::from_utf8_lossy(&text).into_owned()
            })
        };
        let out = read(out.map(|out| Box::new(out) as _));
        let err = read(err.map(|err| Box::new(err) as _));
        let until = Instant::now() + within;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|error| failed(error.to_string()))? {
                break status;
            }
            if Instant::now() >= until {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("it does not end within {}", crate::model::Span(within))));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        if status.success() {
            return Ok(out);
        }
        let said = err.trim().lines().next().unwrap_or_default();
        Err(failed(if said.is_empty() { status.to_string() } else { said.to_owned() }))
    }
}

fn parse(text: &str) -> Shown {
    let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |key: &str| values.get(key).copied().unwrap_or_default();
    let number = |key: &str| value(key).parse::<u64>().unwrap_or_default();
    Shown {
        load: value("LoadState").to_owned(),
        active: value("ActiveState").to_owned(),
        sub: value("SubState").to_owned(),
        pid: u32::try_from(number("MainPID")).ok().filter(|pid| *pid != 0),
        restarts: number("NRestarts"),
        result: value("Result").to_owned(),
        status: u32::try_from(number("ExecMainStatus")).unwrap_or_default(),
        since: Duration::from_micros(number("ExecMainStartTimestampMonotonic")),
    }
}
