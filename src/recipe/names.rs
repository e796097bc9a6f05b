//! Which names a template may use, by where it is rendered.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::diagnostic::{Diagnostic, Diagnostics, name_help};
use super::place::{Place, Source};
use super::scan::{Name, Scan};
use super::template::{BUILT_IN, Engine, TemplateError};

/// Where a template is rendered, and thereby what it may use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment<'a> {
    /// When the recipe is read: `versions`, `vars`, and `build` in a version.
    Recipe { vars: &'a Map<String, Json>, build: bool },
    /// When a node stages the release.
    Node,
}

/// Names of the template language on a node.
const ON_NODE: &[&str] =
    &["versions", "vars", "role", "release", "current", "shared", "node", "cluster", "nodes_with", "secret"];
const OF_NODE: &[&str] = &["name", "address", "zone", "vars"];
const OF_CLUSTER: &[&str] = &["name", "forming"];

/// The names that a template takes from its context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateNames {
    /// Every product it names, with the version.
    pub versions: BTreeMap<String, String>,
    /// Every name as it is written with dots: `vars.heap`, `node.name`, `secret`.
    pub names: BTreeSet<String>,
    /// The secrets that it names literally.
    pub secrets: BTreeSet<String>,
    /// A secret's name is computed: which it is, only rendering tells.
    pub computed_secret: bool,
}

impl TemplateNames {
    /// Takes in the names of another template.
    pub fn extend(&mut self, other: Self) {
        self.versions.extend(other.versions);
        self.names.extend(other.names);
        self.secrets.extend(other.secrets);
        self.computed_secret |= other.computed_secret;
    }
}

/// Checks a conf template of which nothing is rendered yet: its syntax, filters and names.
///
/// `file` is its name for people, relative to the project's folder; `versions` are windlass.toml's.
/// All wrong names are reported at once; after a syntax error nothing more can be said.
pub fn check_template(
    file: &str,
    text: &str,
    versions: &BTreeMap<String, String>,
) -> Result<TemplateNames, Diagnostics> {
    let mut names = TemplateNames::default();
    let source = Source::new(file, text);
    let problems: Vec<Diagnostic> = check(source.text(), versions, Moment::Node, &mut names)
        .into_iter()
        .map(|error| error.at(&Place::new(&source, error.span.clone())))
        .collect();
    Diagnostics::new(problems).map_or(Ok(names), Err)
}

/// Checks `text` and adds what it uses to `names`.
pub(super) fn check(
    text: &str,
    versions: &BTreeMap<String, String>,
    moment: Moment<'_>,
    names: &mut TemplateNames,
) -> Vec<TemplateError> {
    let found = match Engine::shared().check(text) {
        Ok(found) => found,
        Err(error) => return vec![error],
    };
    let optional: BTreeSet<&[String]> =
        found.names.iter().filter(|name| name.optional).map(|name| &*name.path).collect();
    let mut problems: Vec<TemplateError> = Vec::new();
    for name in &found.names {
        if problems.last().is_some_and(|last| name.span.start < last.span.end) {
            continue;
        }
        note(name, versions, names);
        if let Some(problem) = dashed(name, text, versions) {
            problems.push(problem);
            continue;
        }
        if !optional.contains(&*name.path)
            && let Some(problem) = judge(name, versions, moment)
        {
            problems.push(problem);
        }
    }
    drop(optional);
    problems.extend(unknown_secret_calls(&found));
    problems
}

fn note(name: &Name, versions: &BTreeMap<String, String>, names: &mut TemplateNames) {
    names.names.insert(name.path.join("."));
    match (name.path.first().map(String::as_str), name.path.get(1)) {
        (Some("versions"), Some(product)) => {
            if let Some((product, version)) = versions.get_key_value(product) {
                names.versions.insert(product.clone(), version.clone());
            }
        }
        // `versions` as a whole, or by an index that only rendering knows: any of them may be meant.
        (Some("versions"), None) => names.versions.extend(versions.clone()),
        (Some("secret"), _) => {
            names.computed_secret |= name.argument.is_none();
            names.secrets.extend(name.argument.clone());
        }
        _ => {}
    }
}

fn judge(name: &Name, versions: &BTreeMap<String, String>, moment: Moment<'_>) -> Option<TemplateError> {
    let root = name.path.first().map_or("", String::as_str);
    if BUILT_IN.contains(&root) {
        return None;
    }
    match (root, name.path.get(1), moment) {
        ("versions", Some(product), _) if !versions.contains_key(product) => {
            Some(unknown_version(name, product, versions))
        }
        ("versions", ..)
        | ("vars", _, Moment::Node)
        | ("vars", None, _)
        | ("build", _, Moment::Recipe { build: true, .. }) => None,
        ("vars", Some(var), Moment::Recipe { vars, .. }) => (!vars.contains_key(var)).then(|| {
            error(name, format!("`vars.{var}` is not in the recipe's [vars]")).names(
                var,
                "vars",
                vars.keys().map(String::as_str),
            )
        }),
        ("build", _, _) => Some(error(name, "`build` exists only in `version`".to_owned()).help(
            "the build number is in the store's index only: the same content has the same digest \
                 under any number",
        )),
        (_, _, Moment::Recipe { build, .. }) => Some(not_in_recipe(name, root, build)),
        ("node", Some(field), Moment::Node) => unknown_field(name, root, field, OF_NODE),
        ("cluster", Some(field), Moment::Node) => unknown_field(name, root, field, OF_CLUSTER),
        (_, _, Moment::Node) => (!ON_NODE.contains(&root)).then(|| {
            error(name, format!("there is no `{root}` in templates")).names(
                root,
                "names",
                ON_NODE.iter().copied(),
            )
        }),
    }
}

fn unknown_version(name: &Name, product: &str, versions: &BTreeMap<String, String>) -> TemplateError {
    let products = versions.keys().map(String::as_str);
    error(name, format!("windlass.toml has no version of `{product}`")).names(product, "products", products)
}

/// `versions.analysis-ik` is a subtraction; a person means `versions["analysis-ik"]`.
fn dashed(name: &Name, text: &str, versions: &BTreeMap<String, String>) -> Option<TemplateError> {
    let [root, product] = &*name.path else { return None };
    if root != "versions" || versions.contains_key(product) {
        return None;
    }
    let meant = versions.keys().filter(|known| {
        let rest = known.strip_prefix(product.as_str()).filter(|rest| rest.starts_with('-'));
        rest.is_some_and(|rest| text[name.span.end..].starts_with(rest))
    });
    let meant = meant.max_by_key(|known| known.len())?;
    let mut problem = error(name, format!("`-` is a minus in `versions.{meant}`"));
    problem.span.end += meant.len() - product.len();
    Some(problem.help(format!("write versions['{meant}']")))
}

fn not_in_recipe(name: &Name, root: &str, build: bool) -> TemplateError {
    let known: &[&str] = if build { &["versions", "vars", "build"] } else { &["versions", "vars"] };
    if ON_NODE.contains(&root) {
        let known = known.join("`, `");
        return error(name, format!("`{root}` is known only on a node"))
            .help(format!("here there are `{known}`; the rest exists below [service] and in conf"));
    }
    error(name, format!("there is no `{root}` in a recipe's strings")).names(
        root,
        "names",
        known.iter().copied(),
    )
}

fn unknown_field(name: &Name, root: &str, field: &str, known: &'static [&str]) -> Option<TemplateError> {
    (!known.contains(&field)).then(|| {
        error(name, format!("there is no `{root}.{field}`")).names(field, "fields", known.iter().copied())
    })
}

/// `secret("name")` wants a name; `{{ secret }}` would print the function.
fn unknown_secret_calls(found: &Scan) -> Vec<TemplateError> {
    let bare = |name: &&Name| !name.called && (name.path == ["secret"] || name.path == ["nodes_with"]);
    found
        .names
        .iter()
        .filter(bare)
        .map(|name| {
            let function = &name.path[0];
            error(name, format!("`{function}` is a function")).help(format!("write {function}(\"...\")"))
        })
        .collect()
}

fn error(name: &Name, message: String) -> TemplateError {
    TemplateError { message, span: name.span.clone(), help: Vec::new() }
}

impl TemplateError {
    fn help(mut self, line: impl Into<String>) -> Self {
        self.help.push(line.into());
        self
    }

    fn names<'a>(mut self, wanted: &str, kind: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        self.help.extend(name_help(wanted, kind, valid));
        self
    }

    /// This problem at `place`.
    pub fn at(&self, place: &Place) -> Diagnostic {
        let mut problem = place.problem(self.message.clone());
        problem.help.clone_from(&self.help);
        problem
    }
}
