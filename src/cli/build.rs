//! `windlass build [ROLE...]`

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};

use super::args::Build;
use super::context::Context;
use super::error::{Failure, exit};
use super::rows;
use crate::build::{Options, Outcome, Stage, build};
use crate::model::millis;
use crate::recipe::Project;
use crate::report::BuildProgress;

/// Threads for a setting in which 0 is one a core.
pub(super) fn jobs(setting: usize) -> usize {
    match setting {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    }
}

/// Builds bundles into out/.
pub(super) fn run(context: &Context, args: &Build) -> Result<u8, Failure> {
    let started = Instant::now();
    let folder = context.folder()?;
    let project = context.project(&folder)?;
    let lock = context.lock(&folder)?;
    let known: BTreeSet<_> = project.recipes.keys().cloned().collect();
    let roles = context.roles(args.roles.iter().chain(&args.more_roles), &known)?;
    let options = options(args, &project);
    let progress = BuildProgress::new(context.bars(), context.common.quiet);
    let outcome = build(&project, &folder, &roles, &lock, &options, &context.cancel, &progress)?;
    for warning in &outcome.warnings {
        context.remark(&format!("warning: {warning}"));
    }
    for name in &outcome.locked {
        context.remark(&format!("windlass.lock: added {name}"));
    }
    let seconds = started.elapsed().as_secs_f64();
    context.result(|| json(&outcome, started), || rows::built_table(&outcome.bundles))?;
    context.remark(&summary(&outcome, seconds));
    if context.common.verbose > 0 {
        context.remark(&stages(&outcome));
    }
    Ok(exit::DONE)
}

fn options(args: &Build, project: &Project) -> Options {
    let defaults = &project.defaults;
    Options {
        jobs: jobs(args.jobs.unwrap_or(defaults.jobs)),
        level: args.level.unwrap_or(defaults.level),
        memory: args.memory.unwrap_or(defaults.memory).0,
        max_unpacked: args.max_unpacked.unwrap_or(defaults.max_unpacked).0,
        locked: args.locked,
        build: args.number,
    }
}

fn json(outcome: &Outcome, started: Instant) -> Value {
    json!({
        "bundles": outcome.bundles.iter().map(rows::built).collect::<Vec<_>>(),
        "artifacts_read": outcome.artifacts_read,
        "locked": outcome.locked,
        "warnings": outcome.warnings,
        "duration_ms": millis(started.elapsed()),
    })
}

/// Each stage's share of the CPU time.
fn stages(outcome: &Outcome) -> String {
    let total: f64 = outcome.stages.iter().map(std::time::Duration::as_secs_f64).sum();
    let share = |((_, name), spent): (&(Stage, &str), &std::time::Duration)| {
        let percent = 100.0 * spent.as_secs_f64() / total.max(f64::MIN_POSITIVE);
        format!("  {name:15} {:6.2} s {percent:3.0} %", spent.as_secs_f64())
    };
    let lines: Vec<String> = Stage::ALL.iter().zip(&outcome.stages).map(share).collect();
    format!("CPU time {total:.2} s\n{}", lines.join("\n"))
}

fn summary(outcome: &Outcome, seconds: f64) -> String {
    let unchanged = outcome.bundles.iter().filter(|bundle| bundle.unchanged).count();
    let new = outcome.bundles.len() - unchanged;
    let read = match outcome.artifacts_read {
        0 => "no artifact was read".to_owned(),
        1 => "1 artifact was read".to_owned(),
        count => format!("{count} artifacts were read"),
    };
    let made = match new {
        0 => "nothing changed".to_owned(),
        1 => format!("1 new bundle, {unchanged} unchanged"),
        new => format!("{new} new bundles, {unchanged} unchanged"),
    };
    format!("{made}; {read}; {seconds:.2} s")
}
