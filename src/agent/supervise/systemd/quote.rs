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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What systemd.syntax(7) and systemd.service(5) say of one quoted word, done by the letter.
    fn reads(word: &str) -> String {
        let inner = word.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        let specifiers = once(inner, '%');
        let mut out = String::new();
        let mut rest = specifiers.chars();
        while let Some(c) = rest.next() {
            assert_ne!(c, '"', "the word ends early");
            if c != '\\' {
                out.push(c);
                continue;
            }
            match rest.next().unwrap() {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'x' => {
                    let hex: String = [rest.next().unwrap(), rest.next().unwrap()].iter().collect();
                    out.push(char::from(u8::from_str_radix(&hex, 16).unwrap()));
                }
                c @ ('"' | '\\') => out.push(c),
                other => panic!("systemd knows no escape {other}"),
            }
        }
        once(&out, '$')
    }

    /// Pairs become one; a single one would stand for something.
    fn once(text: &str, sign: char) -> String {
        let (mut out, mut rest) = (String::new(), text.chars());
        while let Some(c) = rest.next() {
            if c == sign {
                assert_eq!(rest.next(), Some(sign), "a single {sign} in {text}");
            }
            out.push(c);
        }
        out
    }

    /// What systemd.exec(5) says of a line of an environment file, done by the letter.
    fn reads_assignment(line: &str) -> (String, String) {
        let (name, rest) = line.split_once('=').unwrap();
        let inner = rest.strip_prefix('"').unwrap().strip_suffix("\"\n").unwrap();
        let (mut out, mut rest) = (String::new(), inner.chars());
        while let Some(c) = rest.next() {
            match c {
                '"' => panic!("the value ends early"),
                '\\' => match rest.next().unwrap() {
                    c @ ('"' | '\\' | '`' | '$') => out.push(c),
                    '\n' => {}
                    c => out.extend(['\\', c]),
                },
                c => out.push(c),
            }
        }
        (name.to_owned(), out)
    }

    proptest! {
        #[test]
        fn words_come_back(text in "([%$\"'\\\\\n\t; #=a-z\u{1}-\u{1f}\u{7f}]|\\PC){0,40}") {
            let written = word(&text);
            prop_assert!(!written.contains('\n'));
            prop_assert_eq!(reads(&written), text);
        }

        #[test]
        fn values_come_back(text in "([%$\"'\\\\\n\t; #=`a-z\u{1}-\u{1f}\u{7f}]|\\PC){0,40}") {
            prop_assert_eq!(reads_assignment(&assignment("A_1", &text).unwrap()), ("A_1".to_owned(), text));
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for name in ["", "1A", "a.b", "a-b", "ä", "A B"] {
            assert!(assignment(name, "x").is_err(), "{name}");
        }
        for bad in ["/a\"b", "/a'b", "/a\\b", "/a\nb"] {
            assert!(program(bad).is_err(), "{bad}");
        }
        assert!(path("/a ").is_err() && path("/a\\").is_err() && path("/a\nb").is_err());
        assert_eq!(program("/a $b 5%").unwrap(), "\"/a $b 5%%\"");
        assert_eq!(pattern("/a [b]*?\\c").unwrap(), "/a \\[b\\]\\*\\?\\\\c");
    }
}
