//! What is wrong with a file that a person wrote: where, why, and what to write instead.
//!
//! Everything that reads such files reports all problems it finds as one [`Diagnostics`]. Its
//! `Display` is plain text for any writer; [`Diagnostics::render`] may colour it for a terminal.

use std::collections::HashSet;
use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::place::Place;
use crate::model::nearest;

/// One problem, and the text it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The text pointed at.
    pub place: Place,
    /// What is wrong, in one line.
    pub message: String,
    /// What stands beside the carets; may be empty.
    pub label: String,
    /// What to write or do instead, a line each.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// With `label` beside the carets.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With one more line of help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// With the names near to `wanted`, then all that are valid; `kind` is a plural, as in `keys`.
    ///
    /// Of a long list the near ones must do.
    #[must_use]
    pub fn names<'a>(mut self, wanted: &str, kind: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        self.help.extend(name_help(wanted, kind, valid));
        self
    }

    /// The text with the file, line and column, and carets under what is wrong.
    pub fn render(&self, colour: bool) -> String {
        let mark = AnnotationKind::Primary.span(self.place.first_line());
        let mark = if self.label.is_empty() { mark } else { mark.label(&*self.label) };
        let snippet = Snippet::source(self.place.source().text()).path(self.place.file()).annotation(mark);
        let report = Level::ERROR
            .primary_title(&*self.message)
            .element(snippet)
            .elements(self.help.iter().map(|line| Level::HELP.message(&**line)));
        let report: [Group<'_>; 1] = [report];
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&report)
    }
}

/// Lines of help for a name that is not one of `valid`.
pub(super) fn name_help<'a>(
    wanted: &str,
    kind: &str,
    valid: impl IntoIterator<Item = &'a str>,
) -> Vec<String> {
    const MANY: usize = 24;
    let all: Vec<&str> = valid.into_iter().collect();
    let near = nearest(wanted, all.iter().copied());
    let mut help = Vec::new();
    if !near.is_empty() {
        help.push(format!("did you mean {}?", alternatives(&near)));
    }
    if all.is_empty() {
        help.push(format!("there are no {kind} yet"));
    } else if all.len() <= MANY || near.is_empty() {
        help.push(format!("valid {kind}: {}", all.join(", ")));
    }
    help
}

/// ``"`a`, `b` or `c`"``.
pub(super) fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostic {}

/// All problems found, at least one: by file in the order they were read, then from top to bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// `list` in order, each problem once; `None` when there is none.
    ///
    /// A shared part that three recipes extend is read three times, and its typo is still one problem.
    pub fn new(mut list: Vec<Diagnostic>) -> Option<Self> {
        let mut seen = HashSet::new();
        list.retain(|one| seen.insert((one.place.file().to_owned(), one.place.span(), one.message.clone())));
        let mut files: Vec<String> = Vec::new();
        for one in &list {
            if !files.iter().any(|file| file == one.place.file()) {
                files.push(one.place.file().to_owned());
            }
        }
        list.sort_by_key(|one| {
            (files.iter().position(|file| file == one.place.file()), one.place.span().start)
        });
        (!list.is_empty()).then_some(Self(list))
    }

    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// All problems as text, an empty line between them.
    pub fn render(&self, colour: bool) -> String {
        let texts: Vec<String> = self.iter().map(|one| one.render(colour)).collect();
        texts.join("\n\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
