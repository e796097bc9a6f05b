//! Tests of the module as a whole: texts in, a project or the text of its errors out.

mod design;
mod extends;
mod files;
mod hostile;
mod lock;
mod recipes;
mod secrets;
mod service;
mod set;
mod templates;
mod windlass_toml;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Diagnostics, Project, Source, Spec, read_project};

const WINDLASS_TOML: &str = "\
schema = 1
name = \"monelk\"

[versions]
elasticsearch = \"6.7.0\"
jdk = \"11.0.1\"
analysis-ik = \"6.7.0\"
";

/// Reads a project of windlass.toml and recipes by file name.
fn project(windlass_toml: &str, recipes: &[(&str, &str)]) -> Result<Project, Diagnostics> {
    let recipes: BTreeMap<String, Arc<Source>> = recipes
        .iter()
        .map(|(file, text)| ((*file).to_owned(), Source::new(&format!("recipes/{file}"), text)))
        .collect();
    read_project(&Source::new("windlass.toml", windlass_toml), &recipes)
}

/// The one role of a project that is right.
fn spec(recipes: &[(&str, &str)]) -> Spec {
    let project = project(WINDLASS_TOML, recipes).unwrap_or_else(|error| panic!("{error}"));
    project.recipes.into_values().next().unwrap()
}

/// The errors of a recipe `x.toml` that starts right and goes on with `lines`.
fn errors(lines: &[&str]) -> String {
    let text = format!("schema = 1\nversion = \"1\"\n{}", lines.join("\n"));
    project(WINDLASS_TOML, &[("x.toml", &text)]).unwrap_err().to_string()
}
