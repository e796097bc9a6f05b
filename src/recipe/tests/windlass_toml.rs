//! What windlass.toml says, and what is said when it is wrong.

use insta::assert_snapshot;

use super::project;
use crate::model::ByteSize;
use crate::recipe::Defaults;

const RECIPE: (&str, &str) = ("x.toml", "schema = 1\nversion = \"1\"");

fn errors(lines: &[&str]) -> String {
    project(&lines.join("\n"), &[RECIPE]).unwrap_err().to_string()
}

#[test]
fn empty() {
    assert_snapshot!(errors(&[
    ]), @r#"
    error: windlass.toml has no `schema`
     --> windlass.toml:1:1
      |
    1 |
      | ^
      |
      = help: start the file with: schema = 1

    error: windlass.toml has no `name`
     --> windlass.toml:1:1
      |
    1 |
      | ^
      |
      = help: add: name = "<name of the project>"
    "#);
}

#[test]
fn newer() {
    assert_snapshot!(errors(&[
        "schema = 2",
        r#"name = "x""#,
        "profiles = []",
    ]), @"
    error: windlass.toml has schema 2; this windlass reads up to 1
     --> windlass.toml:1:10
      |
    1 | schema = 2
      |          ^
      |
      = help: it was written for a newer windlass: upgrade this one
    ");
}

#[test]
fn unknown_keys() {
    assert_snapshot!(errors(&[
        "schema = 1",
        r#"name = "x""#,
        "verions = {}",
        "[defaults]",
        "levels = 3",
    ]), @"
    error: unknown key `verions` in windlass.toml
     --> windlass.toml:3:1
      |
    3 | verions = {}
      | ^^^^^^^
      |
      = help: did you mean `versions`?
      = help: valid keys: schema, name, versions, defaults

    error: unknown key `levels` in [defaults]
     --> windlass.toml:5:1
      |
    5 | levels = 3
      | ^^^^^^
      |
      = help: did you mean `level`?
      = help: valid keys: level, jobs, max_unpacked, memory
    ");
}

#[test]
fn versions_unquoted() {
    assert_snapshot!(errors(&[
        "schema = 1",
        r#"name = "x""#,
        "[versions]",
        "jdk = 11",
        "kafka = 2.1",
        "es = 2019-01-01",
        "redis = [5]",
    ]), @r#"
    error: `jdk` must be a string, not an integer
     --> windlass.toml:4:7
      |
    4 | jdk = 11
      |       ^^ this is an integer
      |
      = help: quote it: "11"

    error: `kafka` must be a string, not a float
     --> windlass.toml:5:9
      |
    5 | kafka = 2.1
      |         ^^^ this is a float
      |
      = help: quote it: "2.1"

    error: `es` must be a string, not a date
     --> windlass.toml:6:6
      |
    6 | es = 2019-01-01
      |      ^^^^^^^^^^ this is a date
      |
      = help: quote it: "2019-01-01"

    error: `redis` must be a string, not an array
     --> windlass.toml:7:9
      |
    7 | redis = [5]
      |         ^^^ this is an array
    "#);
}

#[test]
fn versions_bad() {
    assert_snapshot!(errors(&[
        "schema = 1",
        r#"name = "x""#,
        "[versions]",
        r#"jdk = "11/0""#,
        r#"kafka = """#,
    ]), @r#"
    error: `11/0` is not a version: only letters, digits and `. _ + - ~ :` may be in it
     --> windlass.toml:4:7
      |
    4 | jdk = "11/0"
      |       ^^^^^^

    error: `` is not a version: it is empty
     --> windlass.toml:5:9
      |
    5 | kafka = ""
      |         ^^
    "#);
}

#[test]
fn defaults_out_of_range() {
    assert_snapshot!(errors(&[
        "schema = 1",
        r#"name = "x""#,
        "[defaults]",
        "level = 20",
        "jobs = -1",
        r#"max_unpacked = "16 gigs""#,
        "memory = true",
    ]), @r#"
    error: `level` must be from 1 to 19, not 20
     --> windlass.toml:4:9
      |
    4 | level = 20
      |         ^^

    error: `jobs` must be from 0 to 1024, not -1
     --> windlass.toml:5:8
      |
    5 | jobs = -1
      |        ^^

    error: `16 gigs` is not a size; expected a number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, as in `512 MiB`
     --> windlass.toml:6:16
      |
    6 | max_unpacked = "16 gigs"
      |                ^^^^^^^^^

    error: `memory` must be a size, as in "512 MiB", not a boolean
     --> windlass.toml:7:10
      |
    7 | memory = true
      |          ^^^^ this is a boolean
    "#);
}

#[test]
fn defaults_wrong_type() {
    assert_snapshot!(errors(&[
        "schema = 1",
        "name = 7",
        "[defaults]",
        r#"level = "fast""#,
    ]), @r#"
    error: `name` must be a string, not an integer
     --> windlass.toml:2:8
      |
    2 | name = 7
      |        ^ this is an integer
      |
      = help: quote it: "7"

    error: `level` must be a whole number, not a string
     --> windlass.toml:4:9
      |
    4 | level = "fast"
      |         ^^^^^^ this is a string
    "#);
}

#[test]
fn syntax() {
    assert_snapshot!(errors(&[
        "schema = 1",
        "name = monelk",
        "[versions",
        r#"jdk = "1"#,
    ]), @"
    error: not valid TOML: string values must be quoted, expected literal string
     --> windlass.toml:2:8
      |
    2 | name = monelk
      |        ^^^^^^

    error: not valid TOML: unclosed table, expected `]`
     --> windlass.toml:3:10
      |
    3 | [versions
      |          ^
    ");
}

#[test]
fn duplicate_key() {
    assert_snapshot!(errors(&[
        "schema = 1",
        r#"name = "x""#,
        r#"name = "y""#,
    ]), @r#"
    error: not valid TOML: duplicate key
     --> windlass.toml:3:1
      |
    3 | name = "y"
      | ^^^^
    "#);
}

#[test]
fn carriage_returns() {
    assert_snapshot!(errors(&["schema = 1\r\nname = \"x\"\r\n\r\n[versions]\r\n  jdk = 11 # no\r\n"]), @r#"
    error: `jdk` must be a string, not an integer
     --> windlass.toml:5:9
      |
    5 |   jdk = 11 # no
      |         ^^ this is an integer
      |
      = help: quote it: "11"
    "#);
}

#[test]
fn defaults() {
    let text =
        "schema = 1\nname = \"x\"\n[defaults]\nlevel = 19\njobs = 4\nmemory = 1024\nmax_unpacked = \"1 GiB\"";
    let project = project(text, &[RECIPE]).unwrap();
    let expected = Defaults { level: 19, jobs: 4, memory: ByteSize(1024), max_unpacked: ByteSize(1 << 30) };
    assert_eq!(project.defaults, expected);
    let bare = super::project("schema = 1\nname = \"x\"", &[RECIPE]).unwrap();
    assert_eq!(bare.defaults, Defaults::default());
}

#[test]
fn blank_name() {
    assert_snapshot!(errors(&["schema = 1", "name = \" \""]), @r#"
    error: the project's name must be printable text
     --> windlass.toml:2:8
      |
    2 | name = " "
      |        ^^^
    "#);
}
