//! Loading from a folder: what is missing or cannot be read.

use camino::Utf8Path;
use insta::assert_snapshot;

use super::WINDLASS_TOML;
use crate::recipe::{LoadError, load};

fn failure(files: &[(&str, &[u8])]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap();
    for (name, bytes) in files {
        std::fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
        std::fs::write(path.join(name), bytes).unwrap();
    }
    let error = load(path).unwrap_err();
    let text = error.to_string().replace(path.as_str(), "/project");
    let help: Vec<String> = error.help().iter().map(|line| format!("\nhelp: {line}")).collect();
    text + &help.concat()
}

#[test]
fn no_project() {
    assert_snapshot!(failure(&[]), @r#"
    no windlass.toml in /project
    help: run windlass in the project's folder
    help: or start a project there: a windlass.toml with `schema = 1` and `name = "..."`
    "#);
}

#[test]
fn no_recipes() {
    let toml = ("windlass.toml", WINDLASS_TOML.as_bytes());
    assert_snapshot!(failure(&[toml]), @"
    no recipes in /project/recipes
    help: write one file for each role: recipes/<role>.toml
    ");
    assert_eq!(
        failure(&[toml]),
        failure(&[toml, ("recipes/_x.toml", b"schema = 1"), ("recipes/a.txt", b"")])
    );
}

#[test]
fn not_utf8() {
    assert_snapshot!(failure(&[("windlass.toml", b"schema = 1\nname = \"\xff\xfe\"\n")]), @r#"
    error: the file is not UTF-8
     --> windlass.toml:2:9
      |
    2 | name = "��"
      |         ^
    "#);
}

#[test]
fn a_file_that_cannot_be_read() {
    assert_snapshot!(failure(&[("windlass.toml/x", b"")]), @"could not read /project/windlass.toml");
}

#[test]
fn loads() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap();
    std::fs::create_dir(path.join("recipes")).unwrap();
    std::fs::write(path.join("windlass.toml"), WINDLASS_TOML).unwrap();
    std::fs::write(path.join("recipes/kafka.toml"), "schema = 1\nversion = \"1\"").unwrap();
    std::fs::write(path.join("recipes/.swp.toml"), "x").unwrap();
    let project = load(path).unwrap();
    assert_eq!(project.recipes.keys().map(crate::model::Role::as_str).collect::<Vec<_>>(), ["kafka"]);
    assert!(!matches!(load(path), Err(LoadError::NoRecipes { .. })));
}
