//! Services as programs of a supervisord that runs on the node.
//!
//! Spoken to over its own XML-RPC: `supervisorctl` says the same in words for people, takes a fifth of a second
//! to start, and its exit codes differ between versions. What supervisord cannot set itself (limits, groups,
//! capabilities) is set by `windlass node exec`, which its program section names.
//!
//! # Invariants
//!
//! * No secret is in what supervisord reads, keeps or shows: the environment is in `run.json`, 0600.
//! * The section is there exactly as long as the service shall run.

mod config;
mod rpc;
mod section;
mod xml;

pub use section::section_text;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use self::config::Config;
use self::rpc::{Fault, RpcError, Server};
use super::group::{AFTER_KILL, Leader, signal};
use super::kept::{Kept, remove, stopping};
use super::{
    Process, ProcessState, Started, Stopped, SuperviseError, Supervisor, Unit, process, runner, spec,
};
use crate::agent::layout::RoleDir;
use crate::agent::names::ReleaseName;
use crate::fs::{IoResultExt as _, replace_with_mode};
use crate::model::{Supervision, SupervisorKind, millis};

/// How long supervisord may take to start a process, and the process to become the service.
const BEGINS: Duration = Duration::from_secs(15);

/// Programs of supervisord.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Supervisord;

/// What supervisord says about a program.
struct Program {
    state: String,
    leader: Option<Leader>,
    /// It was stopped or ended before, since supervisord knows it.
    again: bool,
    spawn_error: String,
}

impl Program {
    fn lives(&self) -> bool {
        self.leader.is_some_and(Leader::lives)
    }
}

impl Supervisor for Supervisord {
    fn start(&self, dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<Started, SuperviseError> {
        let config = Config::find(unit.supervisor.config.as_deref())?;
        let server = Server::new(&config)?;
        let server_pid = server.check()?;
        let by = process::owner(server_pid);
        spec::check_limits(unit, "supervisord", server_pid, |name, wanted| raise(name, wanted, &config))?;
        let file = config.program_file(&super::kept::name(dir))?;
        let supervisor =
            Supervision { kind: SupervisorKind::Supervisord, config: Some(config.path().to_owned()) };
        let kept = Kept::new(dir, supervisor, file, release);
        let spec = spec::spec(release, unit, by)?;
        let runner = runner::place(dir)?;
        let text = section_text(&kept.name, dir, release, unit)?;
        kept.write(dir)?;
        let request = serde_json::to_vec(&spec).map_err(std::io::Error::from).at("write", &dir.run_spec())?;
        replace_with_mode(&dir.run_spec(), &request, 0o600)?;
        // What was said at the last start is no word about this one.
        remove(&dir.run_log())?;
        replace_with_mode(&kept.file, text.as_bytes(), 0o644)?;
        forget(&server, &kept.name)?;
        server.reread()?;
        server
            .call("addProcessGroup", &[json!(kept.name)])
            .map_err(|error| refused(&error, "add", &kept.name))?;
        begun(&server, &kept, dir, &|pid| {
            !runner::is_runner(pid, &runner) && process::words(pid) != process::words(server_pid)
        })
    }

    fn stop(&self, dir: &RoleDir, unit: Option<&Unit>) -> Result<Stopped, SuperviseError> {
        let begun = Instant::now();
        let mut stopped = Stopped { ran: false, killed: false, duration_ms: 0 };
        let Some(kept) = Kept::read(dir)? else { return Ok(stopped) };
        let server = Server::new(&Config::read(kept.supervisor.config.as_deref())?)?;
        if let Some(program) = program(&server, &kept.name)? {
            stopped.ran = program.lives();
            let (name, timeout) = stopping(unit);
            // Not waited for there: it looks once a second, and says nothing of the rest of the group.
            match server.call("stopProcess", &[json!(kept.name), json!(false)]) {
                Ok(_) | Err(RpcError::Fault(Fault { code: rpc::NOT_RUNNING, .. })) => {}
                Err(error) => return Err(refused(&error, "stop", &kept.name)),
            }
            if let Some(leader) = program.leader.filter(|leader| leader.group_lives()) {
                // supervisord has sent it to those it started; a release of another signal may be gone by now.
                if program.state != "RUNNING" && program.state != "STARTING" {
                    leader.send(signal(name))?;
                }
                if !leader.wait_until(begun + timeout) {
                    stopped.killed = true;
                    leader.send(Signal::KILL)?;
                    if !leader.wait_until(Instant::now() + AFTER_KILL) && leader.look_at_group()? {
                        return Err(SuperviseError::Unkillable(leader.pid));
                    }
                }
            }
            forget(&server, &kept.name)?;
        }
        stopped.duration_ms = millis(begun.elapsed());
        remove(&kept.file)?;
        // It need not know now: the next one to read again finds what is there.
        let _ = server.reread();
        remove(&dir.run_spec())?;
        Kept::remove(dir)?;
        Ok(stopped)
    }

    fn status(&self, dir: &RoleDir) -> Result<Process, SuperviseError> {
        let Some(kept) = Kept::read(dir)? else {
            return Ok(Process { state: ProcessState::Stopped, pid: None, release: None });
        };
        let server = Server::new(&Config::read(kept.supervisor.config.as_deref())?)?;
        let program = program(&server, &kept.name)?;
        let (state, pid) = match &program {
            // It was to be started, and whoever was at it did not live to do it.
            None => (ProcessState::Stopped, None),
            Some(program) => (state(program), program.leader.filter(|leader| leader.lives())),
        };
        Ok(Process { state, pid: pid.map(|leader| leader.pid), release: Some(kept.release) })
    }
}

/// Whether a unit can be a supervisord's here.
pub(super) fn check(dir: &RoleDir, release: &ReleaseName, unit: &Unit) -> Result<(), SuperviseError> {
    let config = Config::find(unit.supervisor.config.as_deref())?;
    let server_pid = Server::new(&config)?.check()?;
    spec::check_limits(unit, "supervisord", server_pid, |name, wanted| raise(name, wanted, &config))?;
    config.program_file("windlass")?;
    section_text("windlass", dir, release, unit)?;
    spec::account(unit).map(drop)
}

/// What its state means. supervisord calls a program `STARTING` until it has lived for `startsecs`.
fn state(program: &Program) -> ProcessState {
    match program.state.as_str() {
        "STARTING" if program.again => ProcessState::Failed,
        "STARTING" | "RUNNING" | "STOPPING" => ProcessState::Running,
        "STOPPED" => ProcessState::Stopped,
        "BACKOFF" | "EXITED" | "FATAL" => ProcessState::Failed,
        _ => ProcessState::Unknown,
    }
}

/// What supervisord says about a program; `None` if it knows none of that name.
fn program(server: &Server, name: &str) -> Result<Option<Program>, SuperviseError> {
    let info = match server.call("getProcessInfo", &[json!(name)]) {
        Ok(info) => info,
        Err(RpcError::Fault(Fault { code: rpc::BAD_NAME, .. })) => return Ok(None),
        Err(error) => return Err(refused(&error, "ask after", name)),
    };
    let text = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| info[key].as_u64().unwrap_or_default();
    let pid = u32::try_from(number("pid")).ok().filter(|pid| *pid != 0);
    Ok(Some(Program {
        state: text("statename"),
        leader: pid.and_then(Leader::of),
        again: number("stop") != 0,
        spawn_error: text("spawnerr"),
    }))
}

/// Stops a program and makes supervisord forget it, if it knows it.
fn forget(server: &Server, name: &str) -> Result<(), SuperviseError> {
    let until = Instant::now() + BEGINS;
    loop {
        match server.call("removeProcessGroup", &[json!(name)]) {
            Ok(_) | Err(RpcError::Fault(Fault { code: rpc::BAD_NAME, .. })) => return Ok(()),
            // It notices the end of a process within a second.
            Err(RpcError::Fault(Fault { code: rpc::STILL_RUNNING, .. })) if Instant::now() < until => {
                if let Err(error) = server.call("stopProcess", &[json!(name), json!(false)])
                    && !matches!(error, RpcError::Fault(_))
                {
                    return Err(refused(&error, "stop", name));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(refused(&error, "remove", name)),
        }
    }
}

/// Waits until the process is the service, or has said why not. At first it is a copy of supervisord itself, then
/// the runner.
fn begun(
    server: &Server,
    kept: &Kept,
    dir: &RoleDir,
    is_service: &dyn Fn(u32) -> bool,
) -> Result<Started, SuperviseError> {
    let until = Instant::now() + BEGINS;
    loop {
        let Some(program) = program(server, &kept.name)? else {
            return Err(SuperviseError::Start("supervisord forgot it: somebody removed it".to_owned()));
        };
        if let Some(leader) = program.leader.filter(|leader| leader.lives()) {
            if is_service(leader.pid) {
                return Ok(Started { pid: leader.pid, already: false });
            }
        } else if matches!(program.state.as_str(), "BACKOFF" | "EXITED" | "FATAL") {
            let said = said(dir);
            if said.is_empty() && program.spawn_error.starts_with("Exited too quickly") {
                // The service itself ended: that it does is for its gates to see, as under any supervisor.
                return Ok(Started { pid: 0, already: false });
            }
            let why = if said.is_empty() { program.spawn_error } else { said };
            self_stop(dir)?;
            return Err(SuperviseError::Start(why));
        }
        if Instant::now() >= until {
            let state = &program.state;
            return Err(SuperviseError::Start(format!(
                "supervisord did not start it in time; it is {state}"
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A service that cannot be started is not tried again and again.
fn self_stop(dir: &RoleDir) -> Result<(), SuperviseError> {
    Supervisord.stop(dir, None).map(drop)
}

/// What the runner said.
fn said(dir: &RoleDir) -> String {
    let text = std::fs::read_to_string(dir.run_log()).unwrap_or_default();
    text.trim().chars().take(500).collect()
}

/// What to do about a limit that supervisord cannot give.
fn raise(name: &str, wanted: &str, config: &Config) -> String {
    let (option, key) = match name {
        "nofile" => ("n", "minfds"),
        "nproc" => ("u", "minprocs"),
        _ => return "start supervisord with more, or lower the limit in the recipe".to_owned(),
    };
    format!(
        "start supervisord with more: `ulimit -H{option} {wanted}` before it, and {key}={wanted} in [supervisord] of {}",
        config.path()
    )
}

fn refused(error: &RpcError, what: &str, name: &str) -> SuperviseError {
    match error {
        RpcError::Fault(fault) => SuperviseError::supervisor(
            format!("supervisord refused to {what} {name}: {}", fault.text),
            "`supervisorctl status` and supervisord's own log tell more",
        ),
        RpcError::Unreachable { what, help } => SuperviseError::supervisor(what.clone(), help.clone()),
    }
}

/// Makes supervisord read its configuration, without any program being touched.
impl Server {
    fn reread(&self) -> Result<Value, SuperviseError> {
        self.call("reloadConfig", &[]).map_err(|error| match error {
            RpcError::Fault(fault) => SuperviseError::supervisor(
                format!("supervisord cannot read its configuration: {}", fault.text),
                "`supervisorctl reread` says the same; put that file right",
            ),
            other @ RpcError::Unreachable { .. } => refused(&other, "read its configuration for", "windlass"),
        })
    }

    /// Whether it is there and works; its process.
    fn check(&self) -> Result<u32, SuperviseError> {
        let ask =
            |method: &str| self.call(method, &[]).map_err(|error| refused(&error, "answer for", "windlass"));
        let state = ask("getState")?;
        if state["statename"] != "RUNNING" {
            let what =
                format!("supervisord is {}", state["statename"].as_str().unwrap_or("in no known state"));
            return Err(SuperviseError::supervisor(what, "wait until it runs, or start it"));
        }
        let pid = ask("getPID")?.as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| {
            SuperviseError::supervisor("supervisord does not say its pid", "upgrade it: 3.0 or later")
        })
    }
}
