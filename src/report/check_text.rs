//! The problems of a check for a person: by code, errors first.

use std::fmt::Write as _;

use crate::check::{Level, Problem, find_code};

/// The text of what a check found, which is sorted.
pub fn check_text(problems: &[Problem]) -> String {
    // Writing to a String cannot fail.
    let mut out = String::new();
    let mut last = None;
    for problem in problems {
        let word = match problem.level {
            Level::Error => "error",
            Level::Warn => "warning",
        };
        if last != Some((problem.level, problem.code)) {
            let title = find_code(problem.code).map_or("", |code| code.title);
            let _ = writeln!(out, "{word} {}: {title}", problem.code);
            last = Some((problem.level, problem.code));
        }
        let node = problem.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
        let _ =
            writeln!(out, "  {node}{}\n    {}\n    help: {}", problem.place, problem.message, problem.help);
    }
    let count = |level| problems.iter().filter(|problem| problem.level == level).count();
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    if problems.is_empty() {
        out.push_str("no problems\n");
    } else {
        let (errors, warnings) = (count(Level::Error), count(Level::Warn));
        let _ = writeln!(
            out,
            "{}, {}; `windlass check --explain CODE` explains one",
            plural(errors, "error"),
            plural(warnings, "warning")
        );
    }
    out
}
