//! Texts that nobody writes by accident: no panic, and an answer in reasonable time.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{WINDLASS_TOML, project};
use crate::recipe::{Lock, check_template, secrets, set_version};

fn feed(text: &str) {
    let shown = |error: &dyn std::fmt::Display| assert!(!error.to_string().is_empty());
    if let Err(error) = project(text, &[("x.toml", text), ("_y.toml", text)]) {
        shown(&error);
        assert!(error.iter().all(|one| one.place.line() > 0 && one.place.column() > 0));
    }
    let recipe = format!("schema = 1\nversion = \"1\"\n{text}");
    if let Err(error) = project(WINDLASS_TOML, &[("x.toml", &recipe)]) {
        shown(&error);
    }
    if let Err(error) = Lock::parse(text) {
        shown(&error);
    }
    if let Err(error) = set_version(text, "jdk", "1") {
        shown(&error);
    }
    if let Err(error) = check_template("x", text, &std::collections::BTreeMap::new()) {
        shown(&error);
    }
    drop(secrets::scan("x", text.as_bytes()));
}

#[test]
fn deep_nesting() {
    feed(&format!("x = {}", "[".repeat(20_000)));
    feed(&format!("x = {}{}", "[".repeat(70), "]".repeat(70)));
    feed(&format!("x = {}", "{a=".repeat(20_000)));
    feed(&format!("{} = 1", vec!["a"; 5_000].join(".")));
    feed(&format!("[{}]", vec!["a"; 5_000].join(".")));
    feed(&format!("{{{{ {}", "(".repeat(20_000)));
    feed(&format!("{{{{ {} }}}}", vec!["a"; 20_000].join(".")));
    feed(&"{% if a %}".repeat(2_000));
    feed(&"{{".repeat(20_000));
    feed(&format!("service = {{ kind = \"{}\" }}", "x".repeat(20_000)));
}

#[test]
fn huge_numbers_and_odd_bytes() {
    for value in [
        "9".repeat(400),
        format!("0x{}", "f".repeat(400)),
        "1e999".to_owned(),
        "-0".to_owned(),
        "nan".to_owned(),
    ] {
        feed(&format!("schema = {value}"));
        feed(&format!(
            "schema = 1\n[defaults]\nlevel = {value}\nmemory = {value}\n[[unpack]]\nstrip = {value}"
        ));
    }
    for text in [
        "\0",
        "\u{feff}",
        "\u{feff}\u{feff}x",
        "\r",
        "\r\n\r",
        "a = \"\u{202e}\"\u{7}",
        "x = \"\\u0000\"",
        "\u{1b}[31m = 1",
    ] {
        feed(text);
    }
    let mut many = String::from("schema = 1\n");
    for index in 0..500 {
        let _ = writeln!(many, "k{index} = {index}");
    }
    feed(&many);
}

#[test]
fn escapes_do_not_reach_the_terminal() {
    let error =
        project(WINDLASS_TOML, &[("x.toml", "schema = 1\nversion = \"1\"\n\"\\u001b[31m\" = 1 # \u{202e}")]);
    let text = error.unwrap_err().to_string();
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}

fn words() -> impl Strategy<Value = String> {
    let words = [
        "schema = 1",
        "\n",
        "\r\n",
        "[service]",
        "[[unpack]]",
        "artifact = ",
        "\"",
        "'",
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "versions.jdk",
        "vars",
        "[",
        "]",
        "=",
        " ",
        "extends = \"_y\"",
        "start = []",
        "é",
        "\0",
        "raw",
        "endraw",
        "secret(",
        "\"\"\"",
        "\\",
        "-----BEGIN RSA PRIVATE KEY-----",
        "eyJ",
        ".",
        "7",
        "is",
        "defined",
        "|",
        "default",
        "-",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..40).prop_map(|list| list.concat())
}

proptest! {
    #[test]
    fn anything(text in any::<String>()) {
        feed(&text);
    }

    #[test]
    fn nearly_right(text in words()) {
        feed(&text);
    }
}
