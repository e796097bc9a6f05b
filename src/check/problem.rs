//! What was found, and what it is worth here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codes::{self, Code};
use crate::inventory::{LintLevel, LintSetting};
use crate::recipe::Diagnostics;

/// What a problem is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It refuses a promotion.
    Error,
    /// It is said.
    Warn,
}

/// Something that is wrong, or will be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// What it is worth.
    pub level: Level,
    /// Which kind it is of, as `E101`.
    pub code: &'static str,
    /// On which node; `None` is about the cluster.
    pub node: Option<String>,
    /// `file:line`, or what else says where.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do, in a line.
    pub help: String,
}

impl Problem {
    /// One of that kind.
    pub(super) fn new(
        code: Code,
        node: Option<&str>,
        place: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            level: code.level,
            code: code.name,
            node: node.map(str::to_owned),
            place: place.into(),
            message: message.into(),
            help: help.into(),
        }
    }

    /// Worth no more than a warning.
    #[must_use]
    pub(super) fn at_most(mut self, level: Level) -> Self {
        self.level = self.level.max(level);
        self
    }

    /// Where something could not be looked at.
    pub fn unseen(node: Option<&str>, place: impl Into<String>, message: impl Into<String>) -> Self {
        let help = "what could not be looked at may still be wrong; see `windlass check --explain W100`";
        Self::new(codes::W100, node, place, message, help)
    }

    /// Conf that cannot be read.
    pub fn unreadable(node: Option<&str>, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(codes::E100, node, place, message, "correct the template, or what it is rendered from")
    }
}

/// What cluster.toml's `[lints]` makes of each code.
#[derive(Clone, Debug, Default)]
pub struct Levels(BTreeMap<&'static str, LintLevel>);

impl Levels {
    /// Reads `[lints]`; a code that there is not is pointed at, with the ones near to it.
    pub fn read(lints: &BTreeMap<String, LintSetting>) -> Result<Self, Diagnostics> {
        let mut levels = BTreeMap::new();
        let mut unknown = Vec::new();
        for (name, setting) in lints {
            if let Some(code) = codes::find(name) {
                levels.insert(code.name, setting.level);
                continue;
            }
            let problem = setting.place.problem(format!("there is no lint `{name}`"));
            let near = codes::near(name);
            let problem = if near.is_empty() {
                problem
            } else {
                problem.help(format!("did you mean {}?", near.join(" or ")))
            };
            unknown
                .push(problem.help("docs/check.md lists them; `windlass check --explain CODE` explains one"));
        }
        match Diagnostics::new(unknown) {
            Some(unknown) => Err(unknown),
            None => Ok(Self(levels)),
        }
    }

    /// Problems with the levels that were set, errors first, each once.
    pub fn apply(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let mut kept: Vec<Problem> = problems
            .into_iter()
            .filter_map(|mut problem| {
                match self.0.get(problem.code) {
                    None => {}
                    Some(LintLevel::Allow) => return None,
                    Some(LintLevel::Warn) => problem.level = Level::Warn,
                    Some(LintLevel::Error) => problem.level = Level::Error,
                }
                Some(problem)
            })
            .collect();
        kept.sort();
        kept.dedup();
        kept
    }
}
