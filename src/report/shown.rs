//! How progress is shown on stderr.

use std::io::Write as _;

use indicatif::MultiProgress;

/// How progress is shown.
#[derive(Debug)]
pub(super) enum Shown {
    /// Bars that move, on a terminal.
    Bars(MultiProgress),
    /// Plain lines.
    Lines,
    /// Not at all.
    Nothing,
}

impl Shown {
    /// Bars, lines, or nothing.
    pub(super) fn new(bars: bool, quiet: bool) -> Self {
        match (quiet, bars) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Bars(MultiProgress::new()),
            (false, false) => Self::Lines,
        }
    }

    /// A line, above the bars where there are some.
    pub(super) fn line(&self, text: &str) {
        match self {
            Self::Bars(bars) => drop(bars.println(text)),
            // Progress that cannot be written is not worth failing for.
            Self::Lines => drop(writeln!(std::io::stderr(), "{text}")),
            Self::Nothing => {}
        }
    }
}
