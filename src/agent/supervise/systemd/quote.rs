//! systemd's quoting, which differs from place to place.
//!
//! | where | rules | here |
//! |---|---|---|
//! | words of `ExecStart=` | quotes, C escapes, `%` specifiers, `$` variables (not in the program itself) | [`word`] |
//! | whole values that are paths | `%` specifiers; neither quotes nor escapes | [`path`] |
//! | `EnvironmentFile=` | as above, and it is a pattern for files | [`pattern`] |
//! | lists of paths | quotes, `%` specifiers | [`listed`] |
//! | the file of the environment | the shell's double quotes, without substitution | [`assignment`] |

use std::fmt::Write as _;

use crate::agent::supervise::SuperviseError;

/// A word of a command that stays what it is.
pub(super) fn word(text: &str) -> String {
    quoted(text, true)
}

/// The program of a command: no variable is put in there.
pub(super) fn program(text: &str) -> Result<String, SuperviseError> {
    // systemd refuses these in a program's path, however they are written.
    if text.contains(['"', '\'', '\\']) || text.contains(char::is_control) {
        return Err(cannot(text));
    }
    Ok(quoted(text, false))
}

fn quoted(text: &str, variables: bool) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            '$' if variables => out.push_str("$$"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A path that is a whole value.
pub(super) fn path(text: &str) -> Result<String, SuperviseError> {
    // A backslash at the end would join the next line; blanks at the ends are taken off.
    if text.contains(char::is_control) || text.trim() != text || text.ends_with('\\') {
        return Err(cannot(text));
    }
    Ok(text.replace('%', "%%"))
}

/// A path that is a pattern: it stands for itself alone.
pub(super) fn pattern(text: &str) -> Result<String, SuperviseError> {
    let mut out = String::new();
    for c in path(text)?.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    Ok(out)
}

/// A path in a list.
pub(super) fn listed(text: &str) -> Result<String, SuperviseError> {
    if text.contains(['"', '\\']) {
        return Err(cannot(text));
    }
    Ok(format!("\"{}\"", path(text)?))
}

/// A line of the file of the environment.
pub(super) fn assignment(name: &str, value: &str) -> Result<String, SuperviseError> {
    let fits = |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
    if name.is_empty() || !name.chars().enumerate().all(fits) {
        return Err(SuperviseError::supervisor(
            format!("systemd takes no environment variable `{}`", name.escape_debug()),
            "its names are letters, digits and `_`, and begin with no digit; rename it in [service] env, or choose \
             another supervisor",
        ));
    }
    let mut line = format!("{name}=\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            line.push('\\');
        }
        line.push(c);
    }
    line.push_str("\"\n");
    Ok(line)
}

fn cannot(text: &str) -> SuperviseError {
    SuperviseError::supervisor(
        format!("a unit of systemd cannot hold the path `{}`", text.escape_debug()),
        "choose a root without quotes, backslashes, control characters, and blanks at its end",
    )
}
