//! Host patterns as OpenSSH has them: `*`, `?`, lists with commas or blanks, `!` to exclude.

/// Whether `pattern` with `*` and `?` matches all of `text`.
pub(super) fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: behind the last `*`, with one more byte given to it.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(b'?') => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match retry {
                Some((after_star, start)) => {
                    retry = Some((after_star, start + 1));
                    (p, t) = (after_star, start + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether one of `patterns` matches and no excluding one does.
pub(super) fn any<'a>(patterns: impl IntoIterator<Item = &'a str>, text: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(excluded) if wildcard(excluded, text) => return false,
            Some(_) => {}
            None => matched |= wildcard(pattern, text),
        }
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn agrees_with_a_plain_definition(pattern in "[ab*?]{0,8}", text in "[abc]{0,8}") {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, _) => text.is_empty(),
                    (Some((b'*', rest)), _) => (0..=text.len()).any(|skip| plain(rest, &text[skip..])),
                    (Some((b'?', rest)), Some((_, tail))) => plain(rest, tail),
                    (Some((want, rest)), Some((have, tail))) => want == have && plain(rest, tail),
                    (Some(_), None) => false,
                }
            }
            proptest::prop_assert_eq!(wildcard(&pattern, &text), plain(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn as_openssh_has_them() {
        assert!(wildcard("*.example.net", "a.example.net"));
        assert!(!wildcard("*.example.net", "example.net"));
        assert!(wildcard("10.0.?.1", "10.0.3.1"));
        assert!(wildcard("*a*b", "xaybzb"));
        assert!(!wildcard("a", "ab"));
        assert!(wildcard("*", ""));
        assert!(any(["*.net", "!bad.net"], "good.net"));
        assert!(!any(["*.net", "!bad.net"], "bad.net"));
        assert!(!any(["!bad.net"], "good.net"));
    }
}
