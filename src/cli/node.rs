//! `windlass node ...`: what runs on a node, by a controller or by hand.

use std::io::{BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::context::{Context, print};
use super::error::{Failure, exit};
use crate::agent::{
    self, Agent, AgentError, Answer, Call, Claim, GcRequest, Line, ReleaseName, Request, Root,
};
use crate::model::{Role, Span};

/// How long the holder of a lock may be silent, in seconds: several of its beats.
const SILENCE: i64 = 20;

/// The longest request: a `have` that names every file of a large bundle.
const MAX_REQUEST: u64 = 64 << 20;

/// `windlass node`
#[derive(Debug, Args)]
pub struct Node {
    /// windlass's folder on this node [default: the one that this program stands in]
    #[arg(long, env = "WINDLASS_ROOT", global = true, value_name = "DIR")]
    root: Option<Utf8PathBuf>,
    /// What to do on this node.
    #[command(subcommand)]
    op: Op,
}

/// What to do on a node.
#[derive(Debug, Subcommand)]
enum Op {
    /// Show what runs here, what is staged, and what can be gone back to
    Status {
        /// Only this role
        role: Option<Role>,
    },
    /// Make a release ready; reads what to stage from stdin, as JSON
    Stage,
    /// Say what `stage` would make, without making it; reads a request from stdin, as JSON
    Preview,
    /// Say which bundles are here, and which of the contents that stdin names, as JSON, are not
    Have,
    /// Make a staged release current
    Activate {
        /// Which role
        role: Role,
        /// The release to make current
        #[arg(long)]
        to: ReleaseName,
        /// The release that must be current now [default: the one that is]
        #[arg(long)]
        from: Option<ReleaseName>,
        /// Go back by itself unless `windlass node confirm` is run within that time
        #[arg(long, value_name = "TIME")]
        confirm_within: Option<Span>,
        /// Take a release that was marked bad
        #[arg(long)]
        allow_bad: bool,
    },
    /// Say that the current release works, so that nothing goes back by itself
    Confirm {
        /// Which role
        role: Role,
        /// The release that works [default: the current one]
        release: Option<ReleaseName>,
    },
    /// Go back to the prior release and restart the service
    Rollback {
        /// Which role
        role: Role,
        /// Where to [default: the last release that was confirmed before the current one]
        #[arg(long)]
        to: Option<ReleaseName>,
        /// Why, for the journal
        #[arg(long, default_value = "asked to, by hand")]
        why: String,
        /// Mark the release that is left as bad
        #[arg(long)]
        bad: bool,
        /// Leave the service as it is
        #[arg(long)]
        no_restart: bool,
        /// Go back even where a newer version has opened the data: it was put back from a snapshot
        #[arg(long)]
        force: bool,
    },
    /// Mark a release as bad
    MarkBad {
        /// Which role
        role: Role,
        /// Which release
        release: ReleaseName,
        /// How it failed
        #[arg(long, default_value = "said to be, by hand")]
        why: String,
    },
    /// Keep a release, whatever gc would do
    Pin {
        /// Which role
        role: Role,
        /// Which release
        release: ReleaseName,
        /// No longer keep it
        #[arg(long)]
        undo: bool,
    },
    /// Hash a release again and name what differs
    Drift {
        /// Which role
        role: Role,
        /// Which release [default: the current one]
        release: Option<ReleaseName>,
        /// Put back what differs, from what is on this node; extra files are left
        #[arg(long)]
        heal: bool,
    },
    /// Remove old releases, bundles and objects
    Gc {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        /// Good releases of each role that stay; bad ones are counted apart
        #[arg(long, value_name = "N", default_value_t = 3)]
        keep: usize,
    },
    /// Start, stop or look at a role's service
    #[command(subcommand)]
    Service(ServiceOp),
    /// Show a role's journal
    Journal {
        /// Which role
        role: Role,
    },
    /// Say what this node is like for a role's service: limits, ports, directories, memory, clock
    Preflight {
        /// Which role
        role: Role,
    },
    /// Read requests from stdin, one JSON object a line, and answer each with a line
    Call,
    /// Receive a bundle from stdin
    Receive,
    /// Hold this node's lock for as long as stdin is open
    Lock {
        /// For which rollout
        #[arg(long)]
        rollout: Option<String>,
        /// Who holds it
        #[arg(long)]
        who: Option<String>,
        /// From which machine
        #[arg(long)]
        host: Option<String>,
        /// Let go of it too when nothing comes from stdin for 20 seconds
        #[arg(long)]
        beat: bool,
    },
    /// Wait for an activation to be confirmed, or go back
    #[command(hide = true)]
    Guard { role: Role },
    /// Become a service
    #[command(hide = true)]
    Exec {
        /// The file that says what to become [default: stdin]
        #[arg(long)]
        spec: Option<Utf8PathBuf>,
        /// Only open this file for output, and become the command
        #[arg(long, conflicts_with = "spec", requires = "command")]
        log: Option<Utf8PathBuf>,
        /// The command
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Keep a service up
    #[command(hide = true)]
    Keep,
}

/// What to do with a service.
#[derive(Debug, Subcommand)]
enum ServiceOp {
    /// Start it from the current release
    Start {
        /// Which role
        role: Role,
    },
    /// Stop it
    Stop {
        /// Which role
        role: Role,
    },
    /// Tell it to read its conf again, as its recipe's [service] reload says
    Reload {
        /// Which role
        role: Role,
    },
    /// Say whether it runs
    Status {
        /// Which role
        role: Role,
    },
}

impl Node {
    /// Whether signals are its own business: a guard outlives hang-ups, a service is not ours.
    pub(super) fn is_detached(&self) -> bool {
        matches!(self.op, Op::Guard { .. } | Op::Exec { .. } | Op::Keep)
    }

    /// Whether HUP, INT and TERM shall end it at once, as nothing it does needs to be undone by itself.
    pub(super) fn answers_lines(&self) -> bool {
        matches!(self.op, Op::Call | Op::Receive | Op::Lock { .. })
    }
}

/// Runs an operation.
pub(super) fn run(context: &Context, args: &Node) -> Result<u8, Failure> {
    // Modes are those that this program says, whatever the login shell set.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    match &args.op {
        Op::Exec { log: Some(log), command, .. } => {
            let error = agent::supervise::exec_with_log(log, command);
            return Err(Failure::new(exit::NOT_RUN, "service", error));
        }
        Op::Exec { spec, .. } => {
            let error = agent::supervise::exec(spec.as_deref());
            return Err(Failure::new(exit::FAILED, "service", error));
        }
        Op::Keep => {
            agent::supervise::keep().map_err(AgentError::from)?;
            return Ok(exit::DONE);
        }
        _ => {}
    }
    let root = root(args)?;
    match &args.op {
        Op::Call => calls(&root),
        Op::Receive => receive(&root),
        Op::Lock { rollout, who, host, beat } => {
            let claim = Claim {
                rollout: rollout.clone(),
                who: who.clone().unwrap_or_else(me),
                host: host.clone().unwrap_or_else(|| by_hand().host),
            };
            hold_lock(&root, &claim, *beat)
        }
        Op::Guard { role } => {
            let root = open(&root)?;
            let lock = std::io::stdin().as_fd().try_clone_to_owned();
            let lock = lock.map_err(|error| Failure::new(exit::FAILED, "io", error))?;
            agent::guard(&root, role, lock.into())?;
            Ok(exit::DONE)
        }
        op => by_person(context, &root, op),
    }
}

/// `--root`, `$WINDLASS_ROOT`, or where the program stands: `<root>/agent/windlass-...`.
fn root(args: &Node) -> Result<Utf8PathBuf, Failure> {
    if let Some(root) = &args.root {
        return Ok(root.clone());
    }
    let own = std::env::current_exe().ok().and_then(|path| Utf8PathBuf::from_path_buf(path).ok());
    let agent = own.as_deref().and_then(Utf8Path::parent).filter(|dir| dir.file_name() == Some("agent"));
    let none = || {
        Failure::new(exit::INVALID, "usage", "which root?")
            .help("--root or $WINDLASS_ROOT names windlass's folder on this node")
    };
    agent.and_then(Utf8Path::parent).map(Utf8Path::to_owned).ok_or_else(none)
}

fn open(path: &Utf8Path) -> Result<Root, AgentError> {
    Root::open(path)?.ok_or_else(|| AgentError::NoRoot(path.to_owned()))
}

fn me() -> String {
    ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
}

pub(super) fn by_hand() -> Claim {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Claim { rollout: None, who: me(), host: host.trim().to_owned() }
}

/// Writes one line and flushes it; who no longer listens is no failure.
fn say(line: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(line).map_err(|error| Failure::new(exit::FAILED, "internal", error))?;
    print(&format!("{text}\n"))
}

/// How much of a push waits to be read.
const PIPE: usize = 1 << 20;

/// Requests, one a line, until stdin ends; the exit code is that of the last failure.
fn calls(root: &Utf8Path) -> Result<u8, Failure> {
    let mut from = BufReader::new(std::io::stdin());
    let mut code = exit::DONE;
    let agent = Agent::new(root);
    loop {
        let line = agent::read_line(&mut from, MAX_REQUEST)?;
        if line.is_empty() {
            return Ok(code);
        }
        let call = serde_json::from_slice::<Call>(&line);
        let call = call.map_err(|error| AgentError::Request(error.to_string()));
        match call.and_then(|call| agent.perform(call)) {
            Ok(answer) => say(&Line::Done(answer))?,
            Err(error) => {
                code = error.exit();
                say(&Line::<()>::Error(error.line()))?;
            }
        }
    }
}

fn receive(path: &Utf8Path) -> Result<u8, Failure> {
    // Fewer turns between sshd and this; a pipe that stays as small as it is, or no pipe, works as well.
    let _ = rustix::pipe::fcntl_setpipe_size(std::io::stdin(), PIPE);
    let mut from = BufReader::with_capacity(PIPE, std::io::stdin());
    let received = (|| {
        let line = agent::read_line(&mut from, 1 << 20)?;
        let header: agent::wire::ReceiveHeader =
            serde_json::from_slice(&line).map_err(|error| AgentError::Request(error.to_string()))?;
        let root = Root::create(path, agent::ROOT_MODE)?;
        let _authority = agent::Authority::new(&root, header.token, &by_hand())?;
        agent::receive(&root, &header, &mut from, &mut std::io::stdout())
    })();
    match received {
        Ok(received) => say(&agent::wire::PushLine::Done(received))?,
        Err(error) => {
            say(&Line::<()>::Error(error.line()))?;
            return Ok(error.exit());
        }
    }
    Ok(exit::DONE)
}

/// Whether something comes from stdin, or it ends, while the holder of a lock may be silent.
fn is_heard() -> bool {
    let stdin = std::io::stdin();
    let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
    let until = Timespec { tv_sec: SILENCE, tv_nsec: 0 };
    // An interrupted wait counts as heard: the next one waits again.
    !matches!(poll(&mut waiting, Some(&until)), Ok(0))
}

/// Says that it holds the lock, or who does; ends with stdin, or when that falls silent.
fn hold_lock(path: &Utf8Path, claim: &Claim, beat: bool) -> Result<u8, Failure> {
    let taken = Root::create(path, agent::ROOT_MODE)
        .map_err(AgentError::from)
        .and_then(|root| Ok(agent::acquire_lock(&root, claim)?));
    match taken {
        Ok(held) => {
            say(&Line::Done(&held.owner))?;
            let mut ignored = [0; 4096];
            while (!beat || is_heard()) && matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
            drop(held);
            Ok(exit::DONE)
        }
        Err(error) => {
            say(&Line::<()>::Error(error.line()))?;
            Ok(error.exit())
        }
    }
}

fn by_person(context: &Context, root: &Utf8Path, op: &Op) -> Result<u8, Failure> {
    let request = request(root, op)?;
    let answer = agent::perform(root, Call { token: None, claim: by_hand(), request })?;
    let differs = match &answer {
        Answer::Drift(drift) => !drift.drift.is_empty(),
        Answer::Healed(done) => !done.left.is_empty() || !done.extra.is_empty(),
        _ => false,
    };
    let json = |answer: &Answer| serde_json::to_value(answer).unwrap_or_default();
    context.result(|| json(&answer), || text(&answer))?;
    let _ = std::io::stdout().flush();
    Ok(match &answer {
        Answer::RolledBack(done) if done.service_error.is_some() => exit::NEEDS_PERSON,
        _ if differs => exit::FAILED,
        _ => exit::DONE,
    })
}

fn request(root: &Utf8Path, op: &Op) -> Result<Request, Failure> {
    let current = |role: &Role| -> Result<Option<ReleaseName>, AgentError> {
        Ok(agent::Desk::open(&open(root)?, role)?.state().current.clone())
    };
    Ok(match op {
        Op::Stage => Request::Stage(Box::new(read_body("a stage request")?)),
        Op::Preview => Request::Preview(Box::new(read_body("a preview request")?)),
        Op::Have => {
            let body: Vec<agent::WantedObject> = read_body("a list of contents")?;
            Request::Have { objects: body }
        }
        Op::Activate { role, to, from, confirm_within, allow_bad } => Request::Activate {
            role: role.clone(),
            from: if from.is_some() { from.clone() } else { current(role)? },
            to: Some(to.clone()),
            rollout: None,
            confirm_within: *confirm_within,
            allow_bad: *allow_bad,
        },
        Op::Confirm { role, release } => {
            let release = if release.is_some() { release.clone() } else { current(role)? };
            let release = release.ok_or_else(|| AgentError::NoCurrent { role: role.clone() })?;
            Request::Confirm { role: role.clone(), release }
        }
        Op::Rollback { role, to, why, bad, no_restart, force } => Request::Rollback {
            role: role.clone(),
            from: None,
            to: to.clone(),
            why: why.clone(),
            bad: *bad,
            restart: !no_restart,
            force: *force,
        },
        Op::MarkBad { role, release, why } => {
            Request::MarkBad { role: role.clone(), release: release.clone(), why: why.clone() }
        }
        Op::Pin { role, release, undo } => {
            Request::Pin { role: role.clone(), release: release.clone(), pinned: !undo }
        }
        Op::Drift { role, release, heal: false } => {
            Request::Drift { role: role.clone(), release: release.clone() }
        }
        Op::Drift { role, release, heal: true } => {
            Request::Heal { role: role.clone(), release: release.clone(), with: None }
        }
        Op::Gc { dry_run, keep } => Request::Gc(GcRequest { keep: *keep, dry_run: *dry_run }),
        Op::Service(ServiceOp::Start { role }) => Request::ServiceStart { role: role.clone(), release: None },
        Op::Service(ServiceOp::Stop { role }) => Request::ServiceStop {
            role: role.clone(),
            why: "asked to, by hand".to_owned(),
            start_within: None,
        },
        Op::Service(ServiceOp::Reload { role }) => {
            Request::ServiceReload { role: role.clone(), release: None }
        }
        Op::Service(ServiceOp::Status { role }) => Request::ServiceStatus { role: role.clone() },
        Op::Journal { role } => Request::Journal { role: role.clone() },
        Op::Preflight { role } => {
            let ask = agent::PreflightAsk::default();
            Request::Preflight { roles: [(role.clone(), ask)].into() }
        }
        Op::Status { role } => Request::Status { role: role.clone() },
        // Dealt with before; where the node is harms nobody.
        Op::Call | Op::Receive | Op::Lock { .. } | Op::Guard { .. } | Op::Exec { .. } | Op::Keep => {
            Request::Status { role: None }
        }
    })
}

fn read_body<T: serde::de::DeserializeOwned>(what: &str) -> Result<T, Failure> {
    let body = agent::read_line(&mut BufReader::new(std::io::stdin()), MAX_REQUEST)?;
    serde_json::from_slice(&body)
        .map_err(|error| AgentError::Request(format!("stdin is not {what}: {error}")).into())
}

/// As a person reads it.
fn text(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => super::node_text::status(status),
        Answer::Drift(drift) if drift.drift.is_empty() => format!("{} is as it was staged\n", drift.release),
        Answer::Drift(drift) => super::node_text::drift(drift),
        Answer::Healed(done) => super::node_text::healed(done),
        Answer::History(history) => super::node_text::history(history),
        Answer::RolledBack(done) => super::node_text::rolled_back(done),
        other => serde_json::to_string_pretty(other).map_or_else(|_| String::new(), |text| text + "\n"),
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let line = error.line();
        let mut failure = Self::new(error.exit(), error.kind(), line.message);
        for cause in line.causes {
            failure = failure.cause(cause);
        }
        for help in line.help {
            failure = failure.help(help);
        }
        failure
    }
}
