//! windlass.toml and the recipes, as texts, become a [`Project`]: every problem of every file at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::decode;
use super::diagnostic::Diagnostics;
use super::extends::{Parts, is_part};
use super::place::{Place, Source};
use super::reader::{Fields, Problems, check_schema};
use super::spec::{Defaults, Project};
use super::tree::{Node, Table, Value, parse};
use crate::model::{ByteSize, Role};

const PROJECT_KEYS: &[&str] = &["schema", "name", "versions", "defaults"];
const DEFAULT_KEYS: &[&str] = &["level", "jobs", "max_unpacked", "memory"];

/// Reads a project from its texts.
///
/// `recipes` are the files of `recipes/`, by file name without the folder, as `kafka.toml`; those
/// that start with `_` are shared parts.
pub fn read_project(
    windlass_toml: &Arc<Source>,
    recipes: &BTreeMap<String, Arc<Source>>,
) -> Result<Project, Diagnostics> {
    let problems = Problems::default();
    let mut project = Project {
        name: String::new(),
        versions: BTreeMap::new(),
        defaults: Defaults::default(),
        recipes: BTreeMap::new(),
    };
    let readable = match parse(windlass_toml) {
        Ok(table) => read_windlass_toml(&table, &mut project, &problems),
        Err(errors) => {
            problems.extend(errors);
            false
        }
    };
    let mut parts = Parts::new(recipes, &problems);
    for (file, source) in recipes.iter().filter(|(file, _)| !is_part(file)) {
        let stem = file.strip_suffix(".toml").unwrap_or(file);
        let place = Place::start_of(source);
        let role: Option<Role> = problems.accept(&place, stem.parse());
        // Without its versions every template would be wrong for a reason that is not its own.
        if let (Some(role), Some(table), true) = (role, parts.merged(stem), readable)
            && let Some(spec) = decode(&role, source.name(), &table, &project.versions, &problems)
        {
            project.recipes.insert(role, spec);
        }
    }
    drop(parts);
    problems.finish()?;
    Ok(project)
}

/// Fills `project`; false if nothing that follows from it can be trusted.
fn read_windlass_toml(table: &Table, project: &mut Project, problems: &Problems) -> bool {
    if !check_schema(table, "windlass.toml", problems) {
        return false;
    }
    let fields = Fields::new(table, "windlass.toml", PROJECT_KEYS, problems);
    if let Some(node) = fields.require("name", "\"<name of the project>\"")
        && let Some(name) = node.string("name", problems)
    {
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            problems.add(node.place.problem("the project's name must be printable text"));
        }
        name.clone_into(&mut project.name);
    }
    for (product, entry) in fields.table("versions").map(|table| &table.entries).into_iter().flatten() {
        // A wrong version still names its product, so that its uses are not reported as well.
        let version = read_version(product, &entry.node, problems).unwrap_or_else(|| "0".to_owned());
        project.versions.insert(product.clone(), version);
    }
    if let Some(table) = fields.table("defaults") {
        read_defaults(table, &mut project.defaults, problems);
    }
    true
}

fn read_version(product: &str, node: &Node, problems: &Problems) -> Option<String> {
    let text = node.string(product, problems)?;
    match check_version(text) {
        Ok(()) => Some(text.to_owned()),
        Err(why) => {
            problems.add(node.place.problem(format!("`{text}` is not a version: {why}")));
            None
        }
    }
}

/// Why `text` cannot be the version of a product: it becomes part of file names.
pub(super) fn check_version(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > 128 {
        return Err("it is longer than 128 bytes");
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "._+-~:".contains(c);
    if text.chars().all(fits) { Ok(()) } else { Err("only letters, digits and `. _ + - ~ :` may be in it") }
}

fn read_defaults(table: &Table, defaults: &mut Defaults, problems: &Problems) {
    let fields = Fields::new(table, "[defaults]", DEFAULT_KEYS, problems);
    if let Some(level) = fields.integer("level", 1, 19) {
        defaults.level = i32::try_from(level).unwrap_or(defaults.level);
    }
    if let Some(jobs) = fields.integer("jobs", 0, 1024) {
        defaults.jobs = usize::try_from(jobs).unwrap_or(defaults.jobs);
    }
    for (key, slot) in [("max_unpacked", &mut defaults.max_unpacked), ("memory", &mut defaults.memory)] {
        if let Some(size) = fields.node(key).and_then(|node| read_size(key, node, problems)) {
            *slot = size;
        }
    }
}

fn read_size(key: &str, node: &Node, problems: &Problems) -> Option<ByteSize> {
    match &node.value {
        Value::String(text) => problems.accept(&node.place, text.parse()),
        Value::Integer(number) if u64::try_from(*number).is_ok() => u64::try_from(*number).ok().map(ByteSize),
        _ => node.wrong(key, "a size, as in \"512 MiB\"", problems),
    }
}
