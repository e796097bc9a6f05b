//! A command's failure: what to say, what to do next, and the exit code.

use std::error::Error as StdError;
use std::fmt;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::build::BuildError;
use crate::fs::IoError;
use crate::inventory;
use crate::model::{Cancelled, NameError, ReferenceError};
use crate::nodes::TargetError;
use crate::push::{PushError, WantsError};
use crate::recipe::{Diagnostics, LoadError, SetError};
use crate::remote::RemoteError;
use crate::rollout::JournalError;
use crate::store::StoreError;

/// Exit codes, as the README lists them.
pub(super) mod exit {
    /// Done.
    pub(in crate::cli) const DONE: u8 = 0;
    /// Failed; or, for `verify`, problems were found.
    pub(in crate::cli) const FAILED: u8 = 1;
    /// Usage, or an invalid recipe, conf, artifact or reference.
    pub(in crate::cli) const INVALID: u8 = 2;
    /// The rollout failed, and what failed is back on its prior release.
    pub(in crate::cli) const ROLLED_BACK: u8 = 3;
    /// The rollout failed, and a node needs a person.
    pub(in crate::cli) const NEEDS_PERSON: u8 = 4;
    /// Another rollout holds a node's lock.
    pub(in crate::cli) const LOCKED: u8 = 5;
    /// What systemd started could not become the service; systemd's own code for that.
    pub(in crate::cli) const NOT_RUN: u8 = 203;
    /// Interrupted.
    pub(in crate::cli) const INTERRUPTED: u8 = 130;
}

/// A failure on its way to the person who typed the command.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: u8,
    /// One word for programs.
    pub(super) kind: Box<str>,
    message: String,
    /// Already a whole report with places and help; shown as it is.
    report: Option<Diagnostics>,
    causes: Vec<String>,
    help: Vec<String>,
}

impl Failure {
    /// A failure to be told in one line.
    pub(super) fn new(exit: u8, kind: &'static str, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { exit, kind: kind.into(), message, report: None, causes: Vec::new(), help: Vec::new() }
    }

    fn of(exit: u8, kind: &'static str, error: &dyn StdError, help: Vec<String>) -> Self {
        let mut failure = Self::new(exit, kind, error);
        failure.help = help;
        let mut source = error.source();
        while let Some(cause) = source {
            failure.causes.push(cause.to_string());
            source = cause.source();
        }
        failure
    }

    /// With one more cause.
    pub(super) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// With one more line of help.
    pub(super) fn help(mut self, line: impl Into<String>) -> Self {
        self.help.push(line.into());
        self
    }

    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        let help = match &self.report {
            Some(report) => report.iter().flat_map(|one| one.help.clone()).collect(),
            None => self.help.clone(),
        };
        let mut error = json!({
            "kind": &*self.kind,
            "message": self.message,
            "causes": self.causes,
            "help": help,
        });
        if let Some(report) = &self.report {
            let problem = |one: &crate::recipe::Diagnostic| {
                json!({
                    "file": one.place.file(),
                    "line": one.place.line(),
                    "column": one.place.column(),
                    "text": one.place.text(),
                    "message": one.message,
                    "help": one.help,
                })
            };
            error["problems"] = report.iter().map(problem).collect();
        }
        json!({ "error": error })
    }

    /// Tells it to a person, on stderr.
    pub(super) fn tell(&self, colour: bool) {
        // Where stderr cannot be written to, the exit code is all that is left.
        let _ = writeln!(std::io::stderr(), "{}", self.text(colour));
    }

    /// As a person reads it.
    pub(super) fn text(&self, colour: bool) -> String {
        if let Some(report) = &self.report {
            return report.render(colour);
        }
        let (red, cyan, plain) = if colour { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error{plain}: {}", self.message);
        for cause in &self.causes {
            text.extend(["\n  because: ", cause]);
        }
        for line in &self.help {
            text.extend(["\n", cyan, "help", plain, ": ", line]);
        }
        text
    }
}

impl From<Diagnostics> for Failure {
    fn from(report: Diagnostics) -> Self {
        let message = report.iter().map(|one| format!("{}: {}", one.place, one.message)).collect::<Vec<_>>();
        let mut failure = Self::new(exit::INVALID, "invalid", message.join("\n"));
        failure.report = Some(report);
        failure
    }
}

impl From<Cancelled> for Failure {
    fn from(error: Cancelled) -> Self {
        Self::new(exit::INTERRUPTED, "interrupted", error).help("nothing was changed")
    }
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Self {
        if error.source.kind() == std::io::ErrorKind::Interrupted {
            return Cancelled.into();
        }
        Self::of(exit::FAILED, "io", &error, error.help())
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::new(exit::INVALID, "usage", error)
    }
}

impl From<ReferenceError> for Failure {
    fn from(error: ReferenceError) -> Self {
        Self::new(exit::INVALID, "usage", error)
            .help("a bundle is named `role:version`, `role` (its newest) or `sha256:...`")
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Invalid(report) => report.into(),
            LoadError::Read { .. } => Self::of(exit::FAILED, "io", &error, error.help()),
            other => Self::of(exit::INVALID, "invalid", &other, other.help()),
        }
    }
}

impl From<inventory::LoadError> for Failure {
    fn from(error: inventory::LoadError) -> Self {
        match error {
            inventory::LoadError::Invalid(report) => report.into(),
            inventory::LoadError::Read { .. } => Self::of(exit::FAILED, "io", &error, error.help()),
            other => Self::of(exit::INVALID, "invalid", &other, other.help()),
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let mut failure = Self::new(error.exit(), "remote", &error);
        failure.kind = error.kind().into();
        failure.causes = error.causes();
        failure.help = error.help();
        failure
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Store(error) | TargetError::Wants(WantsError::Store(error)) => error.into(),
            other => Self::of(exit::FAILED, "bundle", &other, Vec::new()),
        }
    }
}

impl From<&PushError> for Failure {
    fn from(error: &PushError) -> Self {
        let mut failure = Self::new(error.exit(), "push", error);
        failure.kind = error.kind().into();
        failure.causes = error.causes();
        failure.help = error.help();
        failure
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Store(error) => error.into(),
            PushError::Io(error) => error.into(),
            other => Self::from(&other),
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Io(error) => error.into(),
            JournalError::Absent { .. } => Self::of(exit::INVALID, "rollout", &error, error.help()),
            other => Self::of(exit::FAILED, "rollout", &other, other.help()),
        }
    }
}

impl From<WantsError> for Failure {
    fn from(error: WantsError) -> Self {
        match error {
            WantsError::Store(error) => error.into(),
            other => Self::of(exit::FAILED, "bundle", &other, vec!["build the bundle again".to_owned()]),
        }
    }
}

impl From<SetError> for Failure {
    fn from(error: SetError) -> Self {
        match error {
            SetError::Invalid(report) => report.into(),
            other => Self::of(exit::INVALID, "usage", &other, other.help()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Cancelled(cancelled) => return cancelled.into(),
            StoreError::Io(error) => return error.into(),
            _ => {}
        }
        let (exit, kind) =
            if error.is_refusal() { (exit::INVALID, "store") } else { (exit::FAILED, "store") };
        Self::of(exit, kind, &error, error.help())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        if error.is_cancelled() {
            return Cancelled.into();
        }
        match error {
            BuildError::Invalid(report) => report.into(),
            BuildError::Store(error) => error.into(),
            BuildError::Io(error) => error.into(),
            other => {
                let exit = if other.is_refusal() { exit::INVALID } else { exit::FAILED };
                Self::of(exit, kind(&other), &other, other.help())
            }
        }
    }
}

fn kind(error: &BuildError) -> &'static str {
    match error {
        BuildError::Archive(_) => "archive",
        BuildError::Lock(_) => "lock",
        BuildError::Tree { .. } => "layers",
        _ => "build",
    }
}
