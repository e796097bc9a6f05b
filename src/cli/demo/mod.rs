//! `windlass demo`: the tool's own commands, run on a small project and three nodes in a temporary folder.
//!
//! Every command is run as an operator would type it, by this same binary, and shown with its output and
//! exit code. What is expected of each is checked: a demo that goes wrong says so and fails.

mod client;
mod ledger;
mod nodes;
mod project;
mod service;

use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use camino::{Utf8Path, Utf8PathBuf};

use self::client::{Client, Seen};
use self::ledger::Ledger;
use self::nodes::Nodes;
use super::args::Demo;
use super::context::{Context, print};
use super::error::{Failure, exit};
use crate::fs::{IoError, IoResultExt as _};

pub(super) use self::service::run as serve;

/// Runs the demo.
pub(super) fn run(context: &Context, args: &Demo) -> Result<u8, Failure> {
    let temporary = tempfile::Builder::new()
        .prefix("windlass-demo-")
        .tempdir()
        .at("create a folder in", Utf8Path::new("the temporary folder"))?;
    let folder = Utf8PathBuf::from_path_buf(temporary.path().to_owned())
        .map_err(|path| Failure::new(exit::FAILED, "io", format!("{} is not UTF-8", path.display())))?;
    let program = std::env::current_exe().at("find", Utf8Path::new("the running binary"))?;
    let program = Utf8PathBuf::from_path_buf(program)
        .map_err(|path| Failure::new(exit::FAILED, "io", format!("{} is not UTF-8", path.display())))?;
    project::write_project(&folder, &program)?;
    let nodes = Nodes::set_up(&folder, args.ssh)?;
    let ledger = Ledger::new(&folder);
    let mut stage =
        Stage { context, folder: &folder, program: &program, nodes: &nodes, ledger, running: true };
    let played = stage.play();
    let ledger = std::mem::replace(&mut stage.ledger, Ledger::new(&folder));
    if played.is_ok() && args.keep {
        stage.running = false;
        drop(stage);
        let kept = temporary.keep();
        keep(context, &kept.display().to_string(), nodes)?;
    } else {
        drop(stage);
    }
    played?;
    context.result(|| ledger.json(), || format!("\n{}", ledger.text()))?;
    Ok(exit::DONE)
}

/// Says where the folder is, and how to end what runs in it.
fn keep(context: &Context, folder: &str, nodes: Nodes) -> Result<(), Failure> {
    let mut text = format!(
        "\nThe folder is kept and its services run: cd {folder}\n\
         To end them: windlass service stop; then remove the folder.\n"
    );
    if let Some(pid) = nodes.keep() {
        text.extend(["The nodes' sshd runs too; to end it: kill ", &pid.to_string(), "\n"]);
    }
    if context.is_json() || context.common.quiet {
        context.remark(text.trim());
        Ok(())
    } else {
        print(&text)
    }
}

struct Stage<'a> {
    context: &'a Context,
    folder: &'a Utf8Path,
    program: &'a Utf8Path,
    nodes: &'a Nodes,
    ledger: Ledger,
    /// Services may run that are to be stopped at the end.
    running: bool,
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if self.running {
            let mut stop = self.command(&["service", "stop"]);
            // What cannot be stopped here cannot be helped; a failure of the play is told already.
            let _stopped = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

impl Stage<'_> {
    fn play(&mut self) -> Result<(), Failure> {
        self.say("# A small HTTP service, 1.0.0. Its artifacts are recorded, then built into a bundle.")?;
        self.run(&["lock"], 0)?;
        self.run(&["build"], 0)?;

        self.say("# Three nodes that run nothing yet. What would be done, and then it is done.")?;
        self.run(&["plan"], 0)?;
        self.run(&["promote"], 0)?;

        self.say("# Version 2.0.0. From now on a client asks all the time.")?;
        self.run(&["set", "hello", "2.0.0"], 0)?;
        self.run(&["build"], 0)?;
        self.run(&["diff", "hello:1.0.0-1", "hello", "--stat"], 0)?;
        self.asked(|stage| stage.run(&["promote"], 0))?;
        self.run(&["status"], 0)?;

        self.say("# Version 3.0.0 wants a line in its conf that nobody wrote. The canary finds out, and goes back.")?;
        self.run(&["set", "hello", "3.0.0"], 0)?;
        self.run(&["build"], 0)?;
        self.asked(|stage| stage.run(&["promote"], 3))?;
        self.run(&["status"], 0)?;

        self.say("# And all of them back to 1.0.0, node by node, behind the same gates.")?;
        self.asked(|stage| stage.run(&["rollback"], 0))?;
        self.run(&["drift"], 0)?;
        self.run(&["history"], 0)
    }

    /// Does something while a client asks, and says what the client saw.
    fn asked(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Failure>) -> Result<(), Failure> {
        let client = Client::start(&self.nodes.ports);
        let done = work(self);
        let seen = client.finish();
        let Seen { requests, failed, retried } = seen;
        self.ledger.client(seen);
        self.show(&format!(
            "the client asked {requests} times: {failed} failed, {retried} were answered by the next node\n"
        ))?;
        done
    }

    /// Shows a sentence of the play.
    fn say(&self, text: &str) -> Result<(), Failure> {
        let colour = self.context.colour_stdout();
        self.show(&if colour { format!("\n\x1b[1m{text}\x1b[0m\n") } else { format!("\n{text}\n") })
    }

    fn show(&self, text: &str) -> Result<(), Failure> {
        if self.context.is_json() || self.context.common.quiet { Ok(()) } else { print(text) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(arguments).current_dir(self.folder).stdin(Stdio::null());
        // What the person who runs the demo has set for other projects has no place here.
        for variable in ["WINDLASS_BUILD", "WINDLASS_ROOT", "WINDLASS_AGENT"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&mut self, arguments: &[&str], expected: i32) -> Result<(), Failure> {
        let shown = format!("windlass {}", arguments.join(" "));
        self.show(&format!("$ {shown}\n"))?;
        let started = Instant::now();
        let silent = self.context.is_json() || self.context.common.quiet;
        let mut command = self.command(arguments);
        if silent {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        } else if !std::io::stdout().is_terminal() {
            // In a log, what a command says on stderr stands where it was said.
            command.stderr(Stdio::from(duplicate_stdout()?));
        }
        std::io::stdout().flush().at("write to", Utf8Path::new("stdout"))?;
        let status = command.status().at("run", self.program)?;
        let code = status.code().unwrap_or(-1);
        self.ledger.command(shown.clone(), code, started.elapsed());
        if self.context.cancel.is_set() || code == i32::from(exit::INTERRUPTED) {
            return Err(crate::model::Cancelled.into());
        }
        if code == expected {
            return Ok(());
        }
        let message = format!("`{shown}` ended with exit code {code}; expected {expected}");
        Err(Failure::new(exit::FAILED, "demo", message))
    }
}

fn duplicate_stdout() -> Result<std::os::fd::OwnedFd, IoError> {
    use std::os::fd::AsFd as _;
    std::io::stdout().as_fd().try_clone_to_owned().at("write to", Utf8Path::new("stdout"))
}
