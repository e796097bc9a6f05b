//! A stretch of a text that a person wrote: what every diagnostic points at.
//!
//! # Invariants
//!
//! * A span lies inside its text, on character boundaries; [`Place::new`] clamps it.
//! * Lines and columns count from 1. A column counts characters, as editors do; a line ends with LF,
//!   so the CR of a CRLF is the last character of its line and moves no column.
//! * A byte order mark is no part of the text: [`Source::new`] drops it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::Diagnostic;

/// A text and the name of the file it came from, relative to the project's folder.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// The text of the file `name`, without its byte order mark.
    pub fn new(name: &str, text: &str) -> Arc<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Arc::new(Self { name: name.to_owned(), text: text.to_owned() })
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A stretch of one file's text.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    source: Arc<Source>,
    start: usize,
    end: usize,
}

impl Place {
    /// The bytes `span` of `source`, cut to what the text holds.
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let text = source.text();
        let start = text.floor_char_boundary(span.start);
        let end = text.ceil_char_boundary(span.end).max(start);
        Self { source: Arc::clone(source), start, end }
    }

    /// The first character of `source`: for what a file lacks as a whole.
    pub fn start_of(source: &Arc<Source>) -> Self {
        Self::new(source, 0..0)
    }

    /// The file and its text.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The file's name, relative to the project's folder.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// Bytes of the file's text.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// What stands there.
    pub fn text(&self) -> &str {
        &self.source.text()[self.span()]
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        1 + self.source.text()[..self.start].bytes().filter(|byte| *byte == b'\n').count()
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> usize {
        let before = &self.source.text()[..self.start];
        1 + before[before.rfind('\n').map_or(0, |at| at + 1)..].chars().count()
    }

    /// The bytes `span` of this place's own text.
    #[must_use]
    pub fn within(&self, span: Range<usize>) -> Self {
        let end = self.start.saturating_add(span.end).min(self.end);
        Self::new(&self.source, self.start.saturating_add(span.start).min(end)..end)
    }

    /// The part on its first line: a caret line under a whole table helps nobody.
    pub(super) fn first_line(&self) -> Range<usize> {
        let line = self.text().lines().next().unwrap_or_default();
        self.start..self.start + line.len()
    }

    /// A problem here, said in one line without a final stop.
    pub fn problem(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic { place: self.clone(), message: message.into(), label: String::new(), help: Vec::new() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file(), self.line(), self.column())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_columns_as_editors_do() {
        let source = Source::new("x", "\u{feff}a = 1\r\nü = \"ö\"\r\nb");
        let at = |span| Place::new(&source, span).to_string();
        assert_eq!(at(0..1), "x:1:1");
        let second = source.text().find("\"ö").unwrap();
        assert_eq!(at(second..second + 4), "x:2:5");
        assert_eq!(Place::new(&source, second..second + 4).text(), "\"ö\"");
        assert_eq!(at(source.text().len() - 1..99), "x:3:1");
        assert_eq!(at(99..99), "x:3:2");
        let half = source.text().find('ü').unwrap() + 1;
        assert_eq!(Place::new(&source, half..half).text(), "ü");
    }
}
