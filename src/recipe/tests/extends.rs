//! `extends`: what wins, what merges, what appends.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{WINDLASS_TOML, project, spec};

#[test]
fn tables_merge_arrays_append_scalars_win() {
    let spec = spec(&[
        ("_a.toml", "schema = 1\n[vars]\na = 1\nb = { x = 1, y = [1] }\nc = [1]\nd = 1"),
        (
            "_b.toml",
            "schema = 1\nextends = \"_a\"\nversion = \"1\"\n[vars]\na = 2\nb = { y = [2], z = 2 }\nd = [2]",
        ),
        ("x.toml", "schema = 1\nextends = \"_b\"\nversion = \"2\"\n[vars]\na = 3\nb.y = [3]\nc = { no = 1 }"),
    ]);
    assert_eq!(spec.version.render(None).unwrap().as_str(), "2");
    let expected = serde_json::json!({
        "a": 3, "b": {"x": 1, "y": [1, 2, 3], "z": 2}, "c": {"no": 1}, "d": [2],
    });
    assert_eq!(serde_json::Value::Object(spec.vars), expected);
}

/// What this thread has used of a processor: other tests take none of it.
fn processor_time() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

#[test]
fn twenty_recipes_load_in_a_few_milliseconds() {
    let shared = "schema = 1\n[service]\nkind = \"process\"\nstart = [\"{{ release }}/x\"]\n";
    let mut text =
        String::from("schema = 1\nextends = \"_a\"\nversion = \"{{ versions.jdk }}-{{ build }}\"\n");
    for index in 0..10 {
        let _ = writeln!(
            text,
            "[[unpack]]\nartifact = \"a{index}-{{{{ versions.jdk }}}}.zip\"\nexclude = [\"a/**\"]"
        );
    }
    let names: Vec<String> = (0..20).map(|index| format!("role{index}.toml")).collect();
    let mut recipes: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), text.as_str())).collect();
    recipes.push(("_a.toml", shared));
    let start = processor_time();
    assert_eq!(project(WINDLASS_TOML, &recipes).unwrap().recipes.len(), 20);
    let took = processor_time().saturating_sub(start);
    // Unoptimised; a release build takes a few.
    assert!(took.as_millis() < 2_000, "{took:?}");
}

proptest! {
    #[test]
    fn a_chain_is_the_sum_of_its_files(
        files in prop::collection::vec(
            (prop::collection::vec("[a-z]{1,8}", 0..4), prop::collection::btree_map("[a-d]", 0_i64..9, 0..4)),
            1..6,
        ),
    ) {
        let last = files.len() - 1;
        let mut texts = Vec::new();
        for (index, (artifacts, vars)) in files.iter().enumerate() {
            let mut text = String::from("schema = 1\n");
            if index > 0 {
                let _ = writeln!(text, "extends = \"_{}\"", index - 1);
            }
            if index == last {
                text.push_str("version = \"1\"\n");
            }
            for artifact in artifacts {
                let _ = writeln!(text, "[[unpack]]\nartifact = \"{artifact}\"");
            }
            text.push_str("[vars]\n");
            for (name, value) in vars {
                let _ = writeln!(text, "{name} = {value}");
            }
            texts.push((if index == last { "x.toml".to_owned() } else { format!("_{index}.toml") }, text));
        }
        let recipes: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (&**name, &**text)).collect();
        let spec = spec(&recipes);
        let expected: Vec<&str> = files.iter().flat_map(|(list, _)| list).map(String::as_str).collect();
        let got: Vec<&str> = spec.unpack.iter().map(|unpack| unpack.artifact.as_str()).collect();
        prop_assert_eq!(got, expected);
        let mut vars = serde_json::Map::new();
        for (name, value) in files.iter().flat_map(|(_, vars)| vars) {
            vars.insert(name.clone(), (*value).into());
        }
        prop_assert_eq!(spec.vars, vars);
    }
}
