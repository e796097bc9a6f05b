//! Secrets in conf: private keys and tokens of known shapes, which must not enter a bundle.
//!
//! A shape is a fixed start and a length of a given alphabet, so that prose and templates such as
//! `{{ secret("x") }}` do not match. This finds mistakes; it does not prove their absence.
//!
//! # Invariants
//!
//! * No part of a secret beyond its well-known start reaches a diagnostic: the text that a
//!   diagnostic carries is masked, byte for byte, so that lines and columns stay right.

use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::place::{Place, Source};

/// A token that starts with `start`, goes on with `min` to `max` bytes of `alphabet`, and ends there.
struct Shape {
    what: &'static str,
    start: &'static str,
    alphabet: fn(u8) -> bool,
    min: usize,
    max: usize,
}

const ANY: usize = usize::MAX;

const SHAPES: &[Shape] = &[
    shape("an AWS access key", "AKIA", upper, 16, 16),
    shape("an AWS access key", "ASIA", upper, 16, 16),
    shape("a GitHub token", "ghp_", alnum, 36, 255),
    shape("a GitHub token", "gho_", alnum, 36, 255),
    shape("a GitHub token", "ghu_", alnum, 36, 255),
    shape("a GitHub token", "ghs_", alnum, 36, 255),
    shape("a GitHub token", "ghr_", alnum, 36, 255),
    shape("a GitHub token", "github_pat_", word, 22, 255),
    shape("a GitLab token", "glpat-", url, 20, 255),
    shape("a Slack token", "xoxa-", url, 10, 255),
    shape("a Slack token", "xoxb-", url, 10, 255),
    shape("a Slack token", "xoxp-", url, 10, 255),
    shape("a Slack token", "xoxr-", url, 10, 255),
    shape("a Slack token", "xoxs-", url, 10, 255),
    shape("a Google API key", "AIza", url, 35, 35),
    shape("an npm token", "npm_", alnum, 36, 255),
    shape("a Stripe key", "sk_live_", alnum, 16, 255),
    shape("a Stripe key", "rk_live_", alnum, 16, 255),
    shape("an Elasticsearch API key", "ApiKey ", base64, 40, ANY),
];

/// Whether a shape starts with this byte: most bytes of a file are dealt with by this table.
const STARTS: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < SHAPES.len() {
        table[SHAPES[at].start.as_bytes()[0] as usize] = true;
        at += 1;
    }
    table
};

const fn shape(
    what: &'static str,
    start: &'static str,
    alphabet: fn(u8) -> bool,
    min: usize,
    max: usize,
) -> Shape {
    Shape { what, start, alphabet, min, max }
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn url(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

fn base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte)
}

/// A secret found: what it is, how much of it may be shown, where it ends.
struct Found {
    what: &'static str,
    shown: Range<usize>,
    end: usize,
}

/// Looks for secrets in the file `file`; bytes that are not UTF-8 are passed over.
pub fn scan(file: &str, bytes: &[u8]) -> Vec<Diagnostic> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let found = find(bytes);
    if found.is_empty() {
        return Vec::new();
    }
    let source = Source::new(file, &masked(bytes, &found));
    found
        .iter()
        .map(|one| {
            Place::new(&source, one.shown.start..one.end)
                .problem(format!("this looks like {}", one.what))
                .label("not for a bundle")
                .help("a bundle is copied to registries and nodes, and kept: put no secret in it")
                .help("name it under [secrets] in cluster.toml and write {{ secret(\"<name>\") }} here")
        })
        .collect()
}

/// The text with every secret's bytes, and every byte that is not UTF-8, replaced one for one.
fn masked(bytes: &[u8], found: &[Found]) -> String {
    let mut text = bytes.to_vec();
    for one in found {
        for byte in &mut text[one.shown.end..one.end] {
            if *byte != b'\n' && *byte != b'\r' {
                *byte = b'*';
            }
        }
    }
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '?'));
    }
    out
}

fn find(bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let fresh = at == 0 || !word(bytes[at - 1]);
        let hit = match rest[0] {
            b'-' => private_key(rest),
            b'e' if fresh => jwt(rest),
            byte if fresh && STARTS[usize::from(byte)] => token(rest),
            _ => None,
        };
        match hit {
            Some((what, shown, end)) => {
                found.push(Found { what, shown: at..at + shown, end: at + end });
                at += end;
            }
            None => at += 1,
        }
    }
    found
}

type Hit = Option<(&'static str, usize, usize)>;

fn token(rest: &[u8]) -> Hit {
    SHAPES.iter().find_map(|shape| {
        let after = rest.strip_prefix(shape.start.as_bytes())?;
        let length = after.iter().take_while(|byte| (shape.alphabet)(**byte)).count();
        let fits = (shape.min..=shape.max).contains(&length);
        fits.then_some((shape.what, shape.start.len(), shape.start.len() + length))
    })
}

/// Three base64url parts; the first two are JSON objects, which always start `eyJ`.
fn jwt(rest: &[u8]) -> Hit {
    let part = |from: usize| rest[from..].iter().take_while(|byte| url(**byte)).count();
    let first = part(0);
    let second = rest.get(first..)?.strip_prefix(b".eyJ").map(|_| part(first + 1))?;
    let third_at = first + 1 + second + 1;
    let third = (rest.get(third_at - 1) == Some(&b'.')).then(|| part(third_at))?;
    let long = first >= 13 && second >= 13 && third >= 10;
    (rest.starts_with(b"eyJ") && long).then_some(("a JSON web token", 3, third_at + third))
}

/// A PEM or PGP private key of any kind, encrypted or not, also on one line with `\n` in it.
fn private_key(rest: &[u8]) -> Hit {
    let label = rest.strip_prefix(b"-----BEGIN ")?;
    let label = &label[..label.iter().take(64).position(|byte| *byte == b'-')?];
    let what = match label {
        b"PGP PRIVATE KEY BLOCK" => "a PGP private key",
        b"ENCRYPTED PRIVATE KEY" => "an encrypted private key",
        b"OPENSSH PRIVATE KEY" => "an OpenSSH private key",
        _ if label.ends_with(b"PRIVATE KEY") => "a private key",
        _ => return None,
    };
    let head = b"-----BEGIN ".len() + label.len() + 5;
    let body = rest.get(head..)?;
    let end = find_bytes(body, b"-----END");
    // A block that is closed holds a key unless it is empty or a template; a mere mention is not closed.
    let least = if end.is_some() { 1 } else { 32 };
    let end = end.unwrap_or(body.len());
    (key_bytes(&body[..end]) >= least).then_some((what, head, head + end))
}

/// Bytes of a key's body that are neither template, placeholder nor white space.
fn key_bytes(body: &[u8]) -> usize {
    let mut bytes = 0;
    let mut rest = body;
    while let Some((byte, after)) = rest.split_first() {
        // A template, or a placeholder such as `<your key>`.
        let close = if rest.starts_with(b"{{") {
            Some(&b"}}"[..])
        } else if *byte == b'<' {
            Some(&b">"[..])
        } else {
            None
        };
        if let Some(close) = close {
            let Some(end) = find_bytes(rest, close) else { break };
            rest = &rest[end + close.len()..];
            continue;
        }
        bytes += usize::from(base64(*byte));
        rest = after;
    }
    bytes
}

fn find_bytes(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
