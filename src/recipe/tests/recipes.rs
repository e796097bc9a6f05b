//! What a recipe says when something in it is wrong, outside of `[service]`.
//!
//! A recipe's error is what a person has to go by, so each stands here whole.

use insta::assert_snapshot;

use super::{WINDLASS_TOML, errors, project};

#[test]
fn unknown_key() {
    assert_snapshot!(errors(&[
        r#"verison = "2""#,
    ]), @r#"
    error: unknown key `verison` in the recipe
     --> recipes/x.toml:3:1
      |
    3 | verison = "2"
      | ^^^^^^^
      |
      = help: did you mean `version` or `vars`?
      = help: valid keys: schema, extends, version, unpack, conf, persist, scratch, vars, service
    "#);
}

#[test]
fn unknown_table() {
    assert_snapshot!(errors(&[
        "[unpak]",
        r#"artifact = "a""#,
    ]), @"
    error: unknown key `unpak` in the recipe
     --> recipes/x.toml:3:2
      |
    3 | [unpak]
      |  ^^^^^
      |
      = help: did you mean `unpack`?
      = help: valid keys: schema, extends, version, unpack, conf, persist, scratch, vars, service
    ");
}

#[test]
fn unknown_key_of_unpack() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "a.zip""#,
        r#"excludes = ["x"]"#,
    ]), @r#"
    error: unknown key `excludes` in [[unpack]]
     --> recipes/x.toml:5:1
      |
    5 | excludes = ["x"]
      | ^^^^^^^^
      |
      = help: did you mean `exclude` or `include`?
      = help: valid keys: artifact, into, strip, include, exclude, keep_setuid, format
    "#);
}

#[test]
fn wrong_type() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        "artifact = 7",
        r#"keep_setuid = "yes""#,
        r#"strip = "one""#,
        r#"include = "lib/**""#,
        "[[conf]]",
        r#"from = ["a"]"#,
    ]), @r#"
    error: `artifact` must be a string, not an integer
     --> recipes/x.toml:4:12
      |
    4 | artifact = 7
      |            ^ this is an integer
      |
      = help: quote it: "7"

    error: `keep_setuid` must be `true` or `false`, not a string
     --> recipes/x.toml:5:15
      |
    5 | keep_setuid = "yes"
      |               ^^^^^ this is a string

    error: `strip` must be "auto" or a whole number, not a string
     --> recipes/x.toml:6:9
      |
    6 | strip = "one"
      |         ^^^^^ this is a string

    error: `include` must be an array, as in include = ["lib/**"], not a string
     --> recipes/x.toml:7:11
      |
    7 | include = "lib/**"
      |           ^^^^^^^^ this is a string

    error: `from` must be a string, not an array
     --> recipes/x.toml:9:8
      |
    9 | from = ["a"]
      |        ^^^^^ this is an array
    "#);
}

#[test]
fn strip_out_of_range() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "a""#,
        "strip = -1",
    ]), @"
    error: `strip` must be from 0 to 64, not -1
     --> recipes/x.toml:5:9
      |
    5 | strip = -1
      |         ^^
    ");
}

#[test]
fn unknown_format() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "a""#,
        r#"format = "tgz""#,
    ]), @r#"
    error: there is no format `tgz`
     --> recipes/x.toml:5:10
      |
    5 | format = "tgz"
      |          ^^^^^
      |
      = help: valid formats: auto, tar, tar.gz, tar.zst, tar.xz, tar.bz2, zip, file
    "#);
}

#[test]
fn single_table_for_array() {
    assert_snapshot!(errors(&[
        "[unpack]",
        r#"artifact = "a.zip""#,
    ]), @"
    error: `unpack` must be an array of tables
     --> recipes/x.toml:3:1
      |
    3 | [unpack]
      | ^^^^^^^^
      |
      = help: write [[unpack]], once for each
    ");
}

#[test]
fn missing_keys() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"into = "x""#,
        "[[conf]]",
        "[[persist]]",
        "[[scratch]]",
    ]), @r#"
    error: [[unpack]] has no `artifact`
     --> recipes/x.toml:3:1
      |
    3 | [[unpack]]
      | ^^^^^^^^^^
      |
      = help: add: artifact = "<file below install/>"

    error: [[conf]] has no `from`
     --> recipes/x.toml:5:1
      |
    5 | [[conf]]
      | ^^^^^^^^
      |
      = help: add: from = "<directory or file below conf/>"

    error: [[persist]] has no `name`
     --> recipes/x.toml:6:1
      |
    6 | [[persist]]
      | ^^^^^^^^^^^
      |
      = help: add: name = "data"

    error: [[scratch]] has no `at`
     --> recipes/x.toml:7:1
      |
    7 | [[scratch]]
      | ^^^^^^^^^^^
      |
      = help: add: at = "<directory in the release>"
    "#);
}

#[test]
fn bad_paths() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "../a.zip""#,
        r#"into = "/opt""#,
        "[[scratch]]",
        r#"at = """#,
    ]), @r#"
    error: `artifact` is no path inside its folder: the path has a `..` component
     --> recipes/x.toml:4:12
      |
    4 | artifact = "../a.zip"
      |            ^^^^^^^^^^
      |
      = help: write a relative path without `..`

    error: `into` is no path inside its folder: the path is absolute
     --> recipes/x.toml:5:8
      |
    5 | into = "/opt"
      |        ^^^^^^
      |
      = help: write a relative path without `..`

    error: `at` is no path inside its folder: the path is empty
     --> recipes/x.toml:7:6
      |
    7 | at = ""
      |      ^^
      |
      = help: write a relative path without `..`
    "#);
}

#[test]
fn bad_globs() {
    assert_snapshot!(errors(&[
        "[[conf]]",
        r#"from = "x""#,
        r#"render = ["a[", "/etc/*", "", "../x"]"#,
    ]), @r#"
    error: `a[` is not a glob: unclosed character class; missing ']'
     --> recipes/x.toml:5:11
      |
    5 | render = ["a[", "/etc/*", "", "../x"]
      |           ^^^^

    error: `/etc/*` is not a glob: paths are relative and have no `..`, so it can never match
     --> recipes/x.toml:5:17
      |
    5 | render = ["a[", "/etc/*", "", "../x"]
      |                 ^^^^^^^^

    error: `` is not a glob: it is empty
     --> recipes/x.toml:5:27
      |
    5 | render = ["a[", "/etc/*", "", "../x"]
      |                           ^^

    error: `../x` is not a glob: paths are relative and have no `..`, so it can never match
     --> recipes/x.toml:5:31
      |
    5 | render = ["a[", "/etc/*", "", "../x"]
      |                               ^^^^^^
    "#);
}

#[test]
fn persist_names() {
    assert_snapshot!(errors(&[
        "[[persist]]",
        r#"name = "data""#,
        "[[persist]]",
        r#"name = "data""#,
        "[[persist]]",
        r#"name = "../x""#,
    ]), @r#"
    error: there are two [[persist]] named `data`
     --> recipes/x.toml:6:8
      |
    6 | name = "data"
      |        ^^^^^^
      |
      = help: the first is at recipes/x.toml:4:8

    error: `../x` is not a plain name
     --> recipes/x.toml:8:8
      |
    8 | name = "../x"
      |        ^^^^^^
      |
      = help: use letters, digits, `_`, `.` and `-`, at most 64, no `.` first
    "#);
}

#[test]
fn overlapping_places() {
    assert_snapshot!(errors(&[
        "[[persist]]",
        r#"name = "data""#,
        r#"at = "es/data""#,
        "[[scratch]]",
        r#"at = "es/data/tmp""#,
        "[[scratch]]",
        r#"at = "es/data""#,
    ]), @r#"
    error: `es/data/tmp` and `es/data` lie in each other
     --> recipes/x.toml:7:6
      |
    7 | at = "es/data/tmp"
      |      ^^^^^^^^^^^^^
      |
      = help: the other is at recipes/x.toml:4:8

    error: `es/data` is named twice by [[persist]] and [[scratch]]
     --> recipes/x.toml:9:6
      |
    9 | at = "es/data"
      |      ^^^^^^^^^
      |
      = help: the other is at recipes/x.toml:4:8
    "#);
}

#[test]
fn vars_that_no_bundle_carries() {
    assert_snapshot!(errors(&[
        "[vars]",
        "x = inf",
    ]), @"
    error: `inf` and `nan` cannot be carried in a bundle
     --> recipes/x.toml:4:5
      |
    4 | x = inf
      |     ^^^
    ");
}

#[test]
fn vars_too_large() {
    assert_snapshot!(errors(&[
        "[vars]",
        "x = 99999999999999999999",
    ]), @"
    error: the number does not fit in 64 bits
     --> recipes/x.toml:4:5
      |
    4 | x = 99999999999999999999
      |     ^^^^^^^^^^^^^^^^^^^^
    ");
}

#[test]
fn unknown_version_name() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "es-{{ versions.elasticsaerch }}.zip""#,
    ]), @r#"
    error: windlass.toml has no version of `elasticsaerch`
     --> recipes/x.toml:4:19
      |
    4 | artifact = "es-{{ versions.elasticsaerch }}.zip"
      |                   ^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: did you mean `elasticsearch`?
      = help: valid products: analysis-ik, elasticsearch, jdk
    "#);
}

#[test]
fn unknown_version_with_dash() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "es-{{ versions.analysis-ik }}.zip""#,
    ]), @r#"
    error: `-` is a minus in `versions.analysis-ik`
     --> recipes/x.toml:4:19
      |
    4 | artifact = "es-{{ versions.analysis-ik }}.zip"
      |                   ^^^^^^^^^^^^^^^^^^^^
      |
      = help: write versions['analysis-ik']
    "#);
}

#[test]
fn unknown_var() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "es-{{ vars.flavor }}.zip""#,
        "[vars]",
        r#"flavour = "oss""#,
    ]), @r#"
    error: `vars.flavor` is not in the recipe's [vars]
     --> recipes/x.toml:4:19
      |
    4 | artifact = "es-{{ vars.flavor }}.zip"
      |                   ^^^^^^^^^^^
      |
      = help: did you mean `flavour`?
      = help: valid vars: flavour
    "#);
}

#[test]
fn build_outside_of_version() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "es-{{ build }}.zip""#,
    ]), @r#"
    error: `build` exists only in `version`
     --> recipes/x.toml:4:19
      |
    4 | artifact = "es-{{ build }}.zip"
      |                   ^^^^^
      |
      = help: the build number is in the store's index only: the same content has the same digest under any number
    "#);
}

#[test]
fn names_of_the_node() {
    assert_snapshot!(errors(&[
        "[[conf]]",
        r#"from = "{{ role }}""#,
        r#"into = "{{ nod }}""#,
    ]), @r#"
    error: `role` is known only on a node
     --> recipes/x.toml:4:12
      |
    4 | from = "{{ role }}"
      |            ^^^^
      |
      = help: here there are `versions`, `vars`; the rest exists below [service] and in conf

    error: there is no `nod` in a recipe's strings
     --> recipes/x.toml:5:12
      |
    5 | into = "{{ nod }}"
      |            ^^^
      |
      = help: valid names: versions, vars
    "#);
}

#[test]
fn template_syntax() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "es-{{ versions.jdk }.zip""#,
    ]), @r#"
    error: syntax error in the template: unexpected `}`, expected end of variable block
     --> recipes/x.toml:4:32
      |
    4 | artifact = "es-{{ versions.jdk }.zip"
      |                                ^
    "#);
}

#[test]
fn template_filter() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "es-{{ versions.jdk | uper }}.zip""#,
    ]), @r#"
    error: unknown filter `uper`
     --> recipes/x.toml:4:34
      |
    4 | artifact = "es-{{ versions.jdk | uper }}.zip"
      |                                  ^^^^
    "#);
}

#[test]
fn template_error_while_rendering() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "es-{{ versions.jdk / 2 }}.zip""#,
    ]), @r#"
    error: invalid operation: tried to use / operator on unsupported types string and number
     --> recipes/x.toml:4:19
      |
    4 | artifact = "es-{{ versions.jdk / 2 }}.zip"
      |                   ^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn template_in_text_with_escapes() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "\u0041-{{ versions.jd }}.zip""#,
    ]), @r#"
    error: windlass.toml has no version of `jd`
     --> recipes/x.toml:4:12
      |
    4 | artifact = "\u0041-{{ versions.jd }}.zip"
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: did you mean `jdk`?
      = help: valid products: analysis-ik, elasticsearch, jdk
    "#);
}

#[test]
fn template_on_two_lines() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = """{{ versions.jdk }}"#,
        r#"{{ versions.jd }}""""#,
    ]), @r#"
    error: windlass.toml has no version of `jd`
     --> recipes/x.toml:5:4
      |
    5 | {{ versions.jd }}"""
      |    ^^^^^^^^^^^
      |
      = help: did you mean `jdk`?
      = help: valid products: analysis-ik, elasticsearch, jdk
    "#);
}

#[test]
fn template_gives_a_bad_path() {
    assert_snapshot!(errors(&[
        "[[unpack]]",
        r#"artifact = "{{ vars.x }}""#,
        "[vars]",
        r#"x = "../up""#,
    ]), @r#"
    error: `artifact` is no path inside its folder: the path has a `..` component
     --> recipes/x.toml:4:12
      |
    4 | artifact = "{{ vars.x }}"
      |            ^^^^^^^^^^^^^^
      |
      = help: write a relative path without `..`
    "#);
}

#[test]
fn many_problems_at_once() {
    let two = "schema = 1\nversion = 7\n[[unpack]]\nfrom = 1\n";
    let broken = project(
        "schema = 1\nname = \"x\"\nnmae = 2\n",
        &[("b.toml", two), ("a.toml", "schema = 1\nversion = \"1\"\nx = [\n"), ("_c.toml", "start = 1")],
    );
    assert_snapshot!(broken.unwrap_err(), @r#"
    error: unknown key `nmae` in windlass.toml
     --> windlass.toml:3:1
      |
    3 | nmae = 2
      | ^^^^
      |
      = help: did you mean `name`?
      = help: valid keys: schema, name, versions, defaults

    error: the recipe has no `schema`
     --> recipes/_c.toml:1:1
      |
    1 | start = 1
      | ^
      |
      = help: start the file with: schema = 1

    error: unknown key `start` in the recipe
     --> recipes/_c.toml:1:1
      |
    1 | start = 1
      | ^^^^^
      |
      = help: valid keys: schema, extends, version, unpack, conf, persist, scratch, vars, service

    error: not valid TOML: unclosed array, expected `]`
     --> recipes/a.toml:3:6
      |
    3 | x = [
      |      ^

    error: `version` must be a string, not an integer
     --> recipes/b.toml:2:11
      |
    2 | version = 7
      |           ^ this is an integer
      |
      = help: quote it: "7"

    error: [[unpack]] has no `artifact`
     --> recipes/b.toml:3:1
      |
    3 | [[unpack]]
      | ^^^^^^^^^^
      |
      = help: add: artifact = "<file below install/>"

    error: unknown key `from` in [[unpack]]
     --> recipes/b.toml:4:1
      |
    4 | from = 1
      | ^^^^
      |
      = help: did you mean `format`?
      = help: valid keys: artifact, into, strip, include, exclude, keep_setuid, format
    "#);
}

#[test]
fn version_missing() {
    assert_snapshot!(project(WINDLASS_TOML, &[("x.toml", "schema = 1")]).unwrap_err(), @r#"
    error: the recipe has no `version`
     --> recipes/x.toml:1:1
      |
    1 | schema = 1
      | ^
      |
      = help: add: version = "{{ versions.<product> }}-{{ build }}"
    "#);
}

#[test]
fn version_that_is_none() {
    let text = "schema = 1\nversion = '{{ versions.jdk }}+{{ build }}'";
    assert_snapshot!(project(WINDLASS_TOML, &[("x.toml", text)]).unwrap_err(), @"
    error: `11.0.1+1` is not a version; expected a letter, digit or `_`, then letters, digits, `_`, `.` and `-`, at most 128
     --> recipes/x.toml:2:11
      |
    2 | version = '{{ versions.jdk }}+{{ build }}'
      |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    ");
}

#[test]
fn version_as_a_number() {
    assert_snapshot!(project(WINDLASS_TOML, &[("x.toml", "schema = 1\nversion = 6.7")]).unwrap_err(), @r#"
    error: `version` must be a string, not a float
     --> recipes/x.toml:2:11
      |
    2 | version = 6.7
      |           ^^^ this is a float
      |
      = help: quote it: "6.7"
    "#);
}

#[test]
fn schema_missing_newer_and_wrong() {
    let newer = "schema = 2\nfuture = true";
    let recipes = [
        ("a.toml", "version = \"1\""),
        ("b.toml", newer),
        ("c.toml", "schema = 0\nversion = \"1\""),
        ("d.toml", "schema = \"1\"\nversion = \"1\""),
    ];
    assert_snapshot!(project(WINDLASS_TOML, &recipes).unwrap_err(), @r#"
    error: the recipe has no `schema`
     --> recipes/a.toml:1:1
      |
    1 | version = "1"
      | ^
      |
      = help: start the file with: schema = 1

    error: the recipe has schema 2; this windlass reads up to 1
     --> recipes/b.toml:1:10
      |
    1 | schema = 2
      |          ^
      |
      = help: it was written for a newer windlass: upgrade this one

    error: there is no schema 0
     --> recipes/c.toml:1:10
      |
    1 | schema = 0
      |          ^
      |
      = help: write: schema = 1

    error: `schema` must be the number 1, not a string
     --> recipes/d.toml:1:10
      |
    1 | schema = "1"
      |          ^^^ this is a string
    "#);
}

#[test]
fn name_that_is_no_role() {
    assert_snapshot!(
        project(WINDLASS_TOML, &[("Kafka.toml", "schema = 1\nversion = \"1\"")]).unwrap_err(),
        @"
        error: `Kafka` is not a role; expected a lower-case letter or digit, then lower-case letters, digits, `-` and `_`, at most 64
         --> recipes/Kafka.toml:1:1
          |
        1 | schema = 1
          | ^
        "
    );
}

#[test]
fn extends_unknown() {
    let shared = ("_elasticsearch.toml", "schema = 1");
    for (name, snapshot) in [("_elastic", 0), ("b", 1), ("_elasticsearch.toml", 2)] {
        let text = format!("schema = 1\nversion = \"1\"\nextends = \"{name}\"");
        let recipes = [("a.toml", text.as_str()), shared, ("b.toml", "schema = 1\nversion = \"1\"")];
        let error = project(WINDLASS_TOML, &recipes).unwrap_err();
        match snapshot {
            0 => assert_snapshot!(error, @r#"
            error: there is no shared part `_elastic`
             --> recipes/a.toml:3:11
              |
            3 | extends = "_elastic"
              |           ^^^^^^^^^^
              |
              = help: did you mean `_elasticsearch`?
              = help: valid parts: _elasticsearch
              = help: it would be the file recipes/_elastic.toml
            "#),
            1 => assert_snapshot!(error, @r#"
            error: there is no shared part `b`
             --> recipes/a.toml:3:11
              |
            3 | extends = "b"
              |           ^^^
              |
              = help: recipes/b.toml is a role; only recipes/_*.toml can be extended
            "#),
            _ => assert_snapshot!(error, @r#"
            error: there is no shared part `_elasticsearch.toml`
             --> recipes/a.toml:3:11
              |
            3 | extends = "_elasticsearch.toml"
              |           ^^^^^^^^^^^^^^^^^^^^^
              |
              = help: write the name without its ending: "_elasticsearch"
            "#),
        }
    }
}

#[test]
fn extends_in_a_circle() {
    let recipes = [
        ("a.toml", "schema = 1\nversion = \"1\"\nextends = \"_b\""),
        ("_b.toml", "schema = 1\nextends = \"_c\""),
        ("_c.toml", "schema = 1\nextends = \"_b\""),
    ];
    assert_snapshot!(project(WINDLASS_TOML, &recipes).unwrap_err(), @r#"
    error: recipes extend each other in a circle
     --> recipes/_c.toml:2:11
      |
    2 | extends = "_b"
      |           ^^^^
      |
      = help: a -> _b -> _c -> _b
    "#);
}

#[test]
fn a_problem_of_a_shared_part_is_said_once() {
    let child = "schema = 1\nversion = \"1\"\nextends = \"_b\"";
    let recipes =
        [("a.toml", child), ("c.toml", child), ("_b.toml", "schema = 1\n[[unpack]]\nartifcat = \"x\"")];
    assert_snapshot!(project(WINDLASS_TOML, &recipes).unwrap_err(), @r#"
    error: [[unpack]] has no `artifact`
     --> recipes/_b.toml:2:1
      |
    2 | [[unpack]]
      | ^^^^^^^^^^
      |
      = help: add: artifact = "<file below install/>"

    error: unknown key `artifcat` in [[unpack]]
     --> recipes/_b.toml:3:1
      |
    3 | artifcat = "x"
      | ^^^^^^^^
      |
      = help: did you mean `artifact`?
      = help: valid keys: artifact, into, strip, include, exclude, keep_setuid, format
    "#);
}

#[test]
fn a_tag_without_end() {
    let tag = format!("artifact = \"{{{{ {} }}}}\"", vec!["1"; 600].join("+"));
    let text = errors(&["[[unpack]]", &tag]);
    assert_snapshot!(text.lines().next().unwrap_or_default(), @"error: more than 1000 words in one tag, or as many branches");
    assert!(text.contains("recipes/x.toml:4:13") && text.contains("move the data to [vars]"), "{text}");
}

#[test]
fn a_glob_without_end() {
    let glob = format!("exclude = [\"{}\"]", "x".repeat(1001));
    let text = errors(&["[[unpack]]", "artifact = \"a\"", &glob]);
    assert!(text.contains("it is longer than 1000 bytes"), "{text}");
}

#[test]
fn a_number_beyond_all_types() {
    let number = format!("[[unpack]]\nstrip = {}", "9".repeat(60));
    let text = errors(&[&number]);
    assert_snapshot!(text.lines().next().unwrap_or_default(), @"error: the number is too large");
}

#[test]
fn a_build_number_is_needed() {
    let text = "schema = 1\nversion = \"{{ build }}\"";
    let project = project(WINDLASS_TOML, &[("x.toml", text)]).unwrap_or_else(|error| panic!("{error}"));
    let spec = project.recipes.values().next().unwrap();
    assert_snapshot!(spec.version.render(None).unwrap_err(), @r#"
    error: this version needs a build number
     --> recipes/x.toml:2:11
      |
    2 | version = "{{ build }}"
      |           ^^^^^^^^^^^^^
      |
      = help: give one with --build
    "#);
}

#[test]
fn colour_only_where_it_is_asked_for() {
    let broken = project(WINDLASS_TOML, &[("x.toml", "schema = 1")]).unwrap_err();
    assert!(broken.render(true).contains('\u{1b}'));
    assert!(!broken.to_string().contains('\u{1b}'));
}
