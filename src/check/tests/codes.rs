//! Codes, their documentation and their levels.

use std::collections::BTreeSet;

use crate::check::codes::ALL;
use crate::check::{Level, Levels, Problem, explain, find_code, near_codes};
use crate::inventory::read_cluster;
use crate::recipe::Source;

#[test]
fn every_code_is_explained_once_and_no_other() {
    let text = include_str!("../../../docs/check.md");
    let headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    let named: Vec<(&str, &str)> = headings.map(|line| line.split_once(": ").unwrap()).collect();
    let all: Vec<(&str, &str)> = ALL.iter().map(|code| (code.name, code.title)).collect();
    assert_eq!(named.iter().copied().collect::<BTreeSet<_>>(), all.iter().copied().collect::<BTreeSet<_>>());
    assert_eq!(named.len(), all.len());
    for code in ALL {
        let text = explain(*code);
        assert!(text.starts_with(code.name) && text.lines().count() > 2, "{text}");
        assert!(!text.contains("\n#"), "{text}");
        let wanted = match code.name.as_bytes()[0] {
            b'E' => Level::Error,
            b'W' => Level::Warn,
            _ => code.level,
        };
        assert_eq!(code.level, wanted, "{}", code.name);
    }
}

#[test]
fn every_one_of_the_27_has_a_code() {
    for number in 101..=127 {
        assert!(ALL.iter().any(|code| code.name[1..] == number.to_string()), "{number}");
    }
}

fn levels(lines: &str) -> Result<Levels, String> {
    let text = format!("schema = 1\nname = \"x\"\n[nodes.a]\n[lints]\n{lines}\n");
    let cluster = read_cluster(&Source::new("cluster.toml", &text), &[].into()).unwrap();
    Levels::read(&cluster.lints).map_err(|problems| problems.to_string())
}

#[test]
fn levels_are_set_by_code_and_unknown_codes_are_refused() {
    let problems = || {
        let one = |code: &str| Problem {
            level: find_code(code).unwrap().level,
            code: find_code(code).unwrap().name,
            node: None,
            place: String::new(),
            message: String::new(),
            help: String::new(),
        };
        vec![one("W104"), one("E101"), one("W103"), one("W103")]
    };
    let shown = |levels: &Levels| -> Vec<(&str, Level)> {
        levels.apply(problems()).iter().map(|one| (one.code, one.level)).collect()
    };
    let usual = shown(&Levels::default());
    assert_eq!(usual, [("E101", Level::Error), ("W103", Level::Warn), ("W104", Level::Warn)]);
    let set = levels("W104 = \"allow\"\nE101 = \"warn\"\nW103 = \"error\"").unwrap();
    assert_eq!(shown(&set), [("W103", Level::Error), ("E101", Level::Warn)]);
    let error = levels("E104 = \"allow\"").unwrap_err();
    assert!(error.contains("there is no lint `E104`") && error.contains("did you mean W104?"), "{error}");
    assert!(error.contains("cluster.toml:5"), "{error}");
    assert_eq!(near_codes("w106"), ["E106", "W106"]);
}

proptest::proptest! {
    /// Whatever a template renders to is read or refused.
    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n\t\u{e9}]{0,200}", yaml in "(([a-c.]{1,3}:|-|\\[|\\]|\\{|\\}|,|&a|\\*a|\"|\\$\\{x)[ \n]{1,3}){0,40}") {
        use crate::check::settings::Settings;
        for text in [text, yaml] {
            if let Ok(mut settings) = Settings::yaml("x", &text) {
                settings.fill(&std::collections::BTreeMap::new());
            }
            Settings::properties("x", &text);
        }
    }
}
