//! Parse, run, report, exit.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::json;

use super::args::{Arguments, Command, Format};
use super::context::Context;
use super::error::{Failure, exit};
use super::node;
use super::{
    build, check, completions, demo, diff, drift, gc, history, init, inspect, leave, lock, ls, plan, promote,
    push,
};
use super::{
    report as rollout_report, restart, resume, rollback, service, set, signals, status, unpack, verify,
};
use crate::model::Cancel;

/// Runs the command line and returns its exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&arguments, &error),
    };
    let cancel = Cancel::new();
    if !has_own_signals(&parsed.command) {
        signals::watch(&cancel);
    }
    let context = Context::new(parsed.common.clone(), cancel);
    let outcome = match &parsed.command {
        Command::Init(args) => init::run(&context, args),
        Command::Set(args) => set::run(&context, args),
        Command::Lock(args) => lock::run(&context, args),
        Command::Build(args) => build::run(&context, args),
        Command::Ls(args) => ls::run(&context, args),
        Command::Inspect(args) => inspect::run(&context, args),
        Command::Diff(args) => diff::run(&context, args),
        Command::Unpack(args) => unpack::run(&context, args),
        Command::Verify(args) => verify::run(&context, args),
        Command::Check(args) => check::run(&context, args),
        Command::Plan(args) => plan::run(&context, args),
        Command::Promote(args) => promote::run(&context, args),
        Command::Rollback(args) => rollback::run(&context, args),
        Command::Resume(args) => resume::run(&context, args),
        Command::Restart(args) => restart::run(&context, args),
        Command::Status(args) => status::run(&context, args),
        Command::History(args) => history::run(&context, args),
        Command::Report(args) => rollout_report::run(&context, args),
        Command::Leave(args) => leave::run(&context, args),
        Command::Service(args) => service::run(&context, args),
        Command::Drift(args) => drift::run(&context, args),
        Command::Gc(args) => gc::run(&context, args),
        Command::Push(args) => push::run(&context, args),
        Command::Demo(args) => demo::run(&context, args),
        Command::DemoService(args) => demo::serve(args),
        Command::Node(args) => node::run(&context, args),
        Command::Completions(args) => completions::run(args),
        Command::Man => completions::man(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            report(&context, &failure);
            ExitCode::from(failure.exit)
        }
    }
}

/// Whether a command minds signals itself.
fn has_own_signals(command: &Command) -> bool {
    match command {
        Command::Node(args) => args.is_detached() || args.answers_lines(),
        Command::Plan(_)
        | Command::Promote(_)
        | Command::Rollback(_)
        | Command::Resume(_)
        | Command::Restart(_)
        | Command::Leave(_)
        | Command::DemoService(_) => true,
        _ => false,
    }
}

fn report(context: &Context, failure: &Failure) {
    // Where neither stream can be written to, the exit code is all that is left.
    if context.common.format == Format::Json {
        let _ = writeln!(std::io::stdout(), "{}", failure.json());
    }
    failure.tell(context.colour_stderr());
}

/// Help and version go to stdout with 0, wrong usage to stderr with 2.
fn usage(arguments: &[OsString], error: &clap::Error) -> ExitCode {
    if error.use_stderr() && Arguments::wants_json(arguments) {
        let message = error.to_string();
        let error = json!({ "kind": "usage", "message": message.trim(), "causes": [], "help": [] });
        let _ = writeln!(std::io::stdout(), "{}", json!({ "error": error }));
    }
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { exit::INVALID } else { exit::DONE })
}
