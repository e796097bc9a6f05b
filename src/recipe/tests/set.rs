//! `set`: one value changes, and nothing else.

use insta::assert_snapshot;
use proptest::prelude::*;

use crate::recipe::set_version;

const TEXT: &str = "\u{feff}# head\r\nschema = 1 # one\r\n\r\n[versions] # all\r\n  jdk  =  '11.0.1'   # lts\r\n\"a b\" = 3\r\nkafka = \"2.1.1\"";

fn failure(product: &str, version: &str) -> String {
    let error = set_version(TEXT, product, version).unwrap_err();
    let help: Vec<String> = error.help().iter().map(|line| format!("\nhelp: {line}")).collect();
    error.to_string() + &help.concat()
}

#[test]
fn changes_one_value() {
    assert_eq!(set_version(TEXT, "jdk", "17").unwrap(), TEXT.replace("'11.0.1'", "\"17\""));
    assert_eq!(set_version(TEXT, "a b", "4").unwrap(), TEXT.replace("= 3", "= \"4\""));
    assert_eq!(set_version(TEXT, "kafka", "2.1.1").unwrap(), TEXT);
    let dotted = "versions.jdk = \"1\"";
    assert_eq!(set_version(dotted, "jdk", "2").unwrap(), "versions.jdk = \"2\"");
}

#[test]
fn unknown_product() {
    assert_snapshot!(failure("kafak", "2"), @"
    windlass.toml has no version of `kafak`
    help: did you mean `kafka`?
    help: products: a b, jdk, kafka
    ");
    assert_snapshot!(set_version("", "jdk", "2").unwrap_err(), @"windlass.toml has no version of `jdk`");
}

#[test]
fn bad_version() {
    assert_snapshot!(failure("jdk", "1/2"), @"`1/2` is not a version: only letters, digits and `. _ + - ~ :` may be in it");
}

#[test]
fn not_a_version() {
    assert_snapshot!(set_version("[versions]\njdk = [1]", "jdk", "2").unwrap_err(), @"`jdk` in [versions] is not a version but an array");
}

#[test]
fn not_toml() {
    assert_snapshot!(set_version("[versions", "jdk", "2").unwrap_err(), @"
    error: not valid TOML: unclosed table, expected `]`
     --> windlass.toml:1:10
      |
    1 | [versions
      |          ^
    ");
}

proptest! {
    #[test]
    fn keeps_everything_else(
        comment in "[^\\x00-\\x1f\\x7f]{0,20}",
        key in "[a-zA-Z0-9_-]{1,10}",
        old in "[a-zA-Z0-9._+~:-]{1,12}",
        new in "[a-zA-Z0-9._+~:-]{1,12}",
        ending in prop::sample::select(vec!["\n", "\r\n"]),
        space in "[ \t]{0,4}",
    ) {
        let head = format!("# {comment}{ending}[versions]{ending}{space}\"{key}\"{space}={space}");
        let tail = format!("{space}# {comment}{ending}\"{key}2\" = \"{old}\"{ending}");
        let text = format!("{head}\"{old}\"{tail}");
        let made = set_version(&text, &key, &new).unwrap();
        prop_assert_eq!(&made, &format!("{head}\"{new}\"{tail}"));
        prop_assert_eq!(set_version(&made, &key, &old).unwrap(), text);
    }
}
