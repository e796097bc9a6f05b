//! Which names a template uses, and where they stand in it.
//!
//! The engine says which root names a template leaves undefined, but neither where they stand nor
//! which key of `versions["..."]` is meant. This scanner walks the tags once more for that. It runs
//! beside the engine, which judges the syntax, so it may be lenient: it only has to agree on names.

use std::ops::Range;

/// A dotted name in a tag: `versions.jdk` is `["versions", "jdk"]`, as is `versions["jdk"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) path: Vec<String>,
    /// Bytes of the template's text.
    pub(super) span: Range<usize>,
    /// Tested with `is defined` or given a default, so it may be missing.
    pub(super) optional: bool,
    /// Followed by `(`.
    pub(super) called: bool,
    /// The literal it is called with: `x` of `secret("x")`.
    pub(super) argument: Option<String>,
}

/// What a template's tags hold.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) names: Vec<Name>,
    pub(super) filters: Vec<(String, Range<usize>)>,
    pub(super) tests: Vec<(String, Range<usize>)>,
    /// First words of `{% ... %}`.
    pub(super) statements: Vec<(String, Range<usize>)>,
    /// The first tag that is longer than [`LONGEST`], or the `elif` with which there are as many.
    pub(super) too_long: Option<Range<usize>>,
}

/// Words and signs that one tag may hold, and branches that one template may have.
///
/// The engine walks an expression by recursion, and each of `a.b.c...` or `1 + 2 + ...` is one level
/// of it: 20,000 of them overflow a thread's stack, which would abort the process.
pub(super) const LONGEST: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(u8),
}

type Tokens = Vec<(Token, Range<usize>)>;

const WORDS: &[&str] =
    &["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"];

/// Walks the tags of `text`.
pub(super) fn scan(text: &str) -> Scan {
    let mut out = Scan::default();
    let mut at = 0;
    let mut branches = 0;
    while let Some((open, kind)) = next_tag(text, at) {
        if kind == b'#' {
            at = text[open + 2..].find("#}").map_or(text.len(), |end| open + 2 + end + 2);
            continue;
        }
        let (mut tokens, end) = tokens(text, open + 2, kind);
        if tokens.len() > LONGEST && out.too_long.is_none() {
            out.too_long = Some(at_tag(text, open));
        }
        at = end;
        if kind == b'%' && !tokens.is_empty() {
            let (first, span) = tokens.remove(0);
            if let Token::Word(word) = first {
                if word == "raw" {
                    at = end_of_raw(text, end);
                }
                branches += usize::from(word == "elif");
                if branches > LONGEST && out.too_long.is_none() {
                    out.too_long = Some(at_tag(text, open));
                }
                out.statements.push((word, span));
            }
        }
        collect(&tokens, &mut out);
    }
    out
}

/// The opening of the tag at `open`.
fn at_tag(text: &str, open: usize) -> Range<usize> {
    open..text.len().min(open + 2)
}

fn next_tag(text: &str, from: usize) -> Option<(usize, u8)> {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(open) = text.get(at..)?.find('{').map(|found| at + found) {
        match bytes.get(open + 1) {
            Some(kind @ (b'{' | b'%' | b'#')) => return Some((open, *kind)),
            _ => at = open + 1,
        }
    }
    None
}

fn end_of_raw(text: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(inside) = text[at..].find("{%").map(|found| at + found + 2) {
        let rest = text[inside..].trim_start_matches(['-', '+']).trim_start();
        if let Some(rest) = rest.strip_prefix("endraw") {
            let start = text.len() - rest.len();
            return rest.find("%}").map_or(text.len(), |end| start + end + 2);
        }
        at = inside;
    }
    text.len()
}

/// The tokens of the tag whose inside starts at `at`, and where the tag ends.
fn tokens(text: &str, mut at: usize, kind: u8) -> (Tokens, usize) {
    let bytes = text.as_bytes();
    let close = if kind == b'{' { b'}' } else { b'%' };
    let mut depth = 0_usize;
    let mut out = Vec::new();
    while let Some(&byte) = bytes.get(at) {
        if depth == 0 && byte == close && bytes.get(at + 1) == Some(&b'}') {
            return (out, at + 2);
        }
        let start = at;
        at += 1;
        match byte {
            b'"' | b'\'' => {
                while bytes.get(at).is_some_and(|next| *next != byte) {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                let inside = text.get(start + 1..at).unwrap_or_default().to_owned();
                at = (at + 1).min(bytes.len());
                out.push((Token::Text(inside), start..at));
            }
            b'0'..=b'9' => {
                while bytes.get(at).is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_') {
                    at += 1;
                }
                out.push((Token::Sign(b'0'), start..at));
            }
            _ if byte == b'_' || byte.is_ascii_alphabetic() => {
                while bytes.get(at).is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_') {
                    at += 1;
                }
                out.push((Token::Word(text[start..at].to_owned()), start..at));
            }
            _ => {
                match byte {
                    b'(' | b'[' | b'{' => depth += 1,
                    b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                let ignored = byte.is_ascii_whitespace() || (byte == b'-' && is_trim(bytes, start));
                if !ignored {
                    out.push((Token::Sign(byte), start..at));
                }
            }
        }
    }
    (out, bytes.len())
}

/// Whether the `-` or `+` at `at` belongs to the tag, as in `{%-` and `-%}`.
fn is_trim(bytes: &[u8], at: usize) -> bool {
    let before = at >= 2 && bytes[at - 2] == b'{' && matches!(bytes[at - 1], b'{' | b'%');
    before || matches!(bytes.get(at + 1..at + 3), Some(b"}}" | b"%}"))
}

fn collect(tokens: &Tokens, out: &mut Scan) {
    let sign = |at: usize, wanted: u8| matches!(tokens.get(at), Some((Token::Sign(s), _)) if *s == wanted);
    let word = |at: usize| match tokens.get(at) {
        Some((Token::Word(word), _)) => Some(word.as_str()),
        _ => None,
    };
    let mut at = 0;
    while at < tokens.len() {
        let (Some(text), span) = (word(at), tokens[at].1.clone()) else {
            at += 1;
            continue;
        };
        let before = at.checked_sub(1);
        let after_is = before.is_some_and(|b| {
            word(b) == Some("is") || (word(b) == Some("not") && b > 0 && word(b - 1) == Some("is"))
        });
        let after_dot = before.is_some_and(|b| sign(b, b'.'));
        let assigned = sign(at + 1, b'=') && !sign(at + 2, b'=');
        if before.is_some_and(|b| sign(b, b'|')) {
            out.filters.push((text.to_owned(), span));
        } else if after_is && text != "not" {
            out.tests.push((text.to_owned(), span));
        } else if !WORDS.contains(&text) && !after_dot && !assigned {
            let (name, next) = chain(tokens, at);
            out.names.push(name);
            at = next;
            continue;
        }
        at += 1;
    }
}

/// The name that starts at token `at`, and the token after it.
fn chain(tokens: &Tokens, mut at: usize) -> (Name, usize) {
    let get = |at: usize| tokens.get(at).map(|(token, _)| token);
    let mut span = tokens[at].1.clone();
    let mut path = Vec::new();
    if let Some(Token::Word(root)) = get(at) {
        path.push(root.clone());
    }
    at += 1;
    loop {
        let (segment, width) = match (get(at), get(at + 1), get(at + 2)) {
            (Some(Token::Sign(b'.')), Some(Token::Word(word)), _) => (word, 2),
            (Some(Token::Sign(b'[')), Some(Token::Text(text)), Some(Token::Sign(b']'))) => (text, 3),
            _ => break,
        };
        path.push(segment.clone());
        at += width;
        span.end = tokens[at - 1].1.end;
    }
    let argument = match (get(at), get(at + 1), get(at + 2)) {
        (Some(Token::Sign(b'(')), Some(Token::Text(text)), Some(Token::Sign(b')'))) => Some(text.clone()),
        _ => None,
    };
    let is_word =
        |at: usize, words: &[&str]| matches!(get(at), Some(Token::Word(w)) if words.contains(&&**w));
    let tested = |at: usize| is_word(at, &["defined", "undefined"]);
    let optional = (is_word(at, &["is"])
        && (tested(at + 1) || (is_word(at + 1, &["not"]) && tested(at + 2))))
        || (get(at) == Some(&Token::Sign(b'|')) && is_word(at + 1, &["default", "d"]));
    let called = get(at) == Some(&Token::Sign(b'('));
    (Name { path, span, optional, called, argument }, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        scan(text).names.iter().map(|name| name.path.join("/")).collect()
    }

    #[test]
    fn finds_names_where_they_stand() {
        let text = r#"a {{ versions.jdk }} {#- {{ no }} -#} {%- if vars["x-y"] is defined %}{{node.vars.z|upper}}{% endif -%}"#;
        assert_eq!(names(text), ["versions/jdk", "vars/x-y", "node/vars/z"]);
        let found = scan(text);
        assert_eq!(&text[found.names[0].span.clone()], "versions.jdk");
        assert!(found.names[1].optional && !found.names[2].optional);
        assert_eq!(found.filters[0].0, "upper");
        assert_eq!(found.tests[0].0, "defined");
        assert_eq!(found.statements[0].0, "if");
    }

    #[test]
    fn passes_over_what_is_no_name() {
        assert_eq!(names("{% raw %}{{ a }}{% endraw %}{{ b }}"), ["b"]);
        assert_eq!(names(r#"{{ secret("a }} b") }}"#), ["secret"]);
        assert_eq!(scan(r#"{{ secret("pw") }}"#).names[0].argument.as_deref(), Some("pw"));
        assert_eq!(names("{{ {'a': {'b': c}} }}"), ["c"]);
        assert_eq!(names("{{ range(1, stop=n) }} {{ x == y }}"), ["range", "n", "x", "y"]);
        assert_eq!(names("{{ versions[vars.p] }}"), ["versions", "vars/p"]);
        assert_eq!(names("{ {a} }} %} {"), [""; 0]);
        assert_eq!(names("{{ 'unclosed"), [""; 0]);
    }
}
