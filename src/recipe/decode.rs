//! A recipe's tree becomes a [`Spec`].

use std::cell::RefCell;
use std::collections::BTreeMap;

use minijinja::Value as TemplateValue;
use serde_json::{Map, Value as Json};

use super::glob::check_glob;
use super::names::{Moment, TemplateNames, check};
use super::place::Place;
use super::reader::{Fields, Problems};
use super::spec::{Conf, Format, Persist, Scratch, Spec, Strip, Unpack};
use super::template::{Engine, TemplateError, is_template, to_template_value};
use super::tree::{Node, Table, Value};
use super::version::VersionTemplate;
use crate::model::{BundlePath, Role};

pub(super) const RECIPE_KEYS: &[&str] =
    &["schema", "extends", "version", "unpack", "conf", "persist", "scratch", "vars", "service"];
const UNPACK_KEYS: &[&str] = &["artifact", "into", "strip", "include", "exclude", "keep_setuid", "format"];
const CONF_KEYS: &[&str] = &["from", "into", "render", "include", "exclude"];

/// What every string of a recipe is read with.
pub(super) struct Decoder<'a> {
    pub(super) problems: &'a Problems,
    versions: &'a BTreeMap<String, String>,
    vars: Map<String, Json>,
    context: TemplateValue,
    used: RefCell<TemplateNames>,
}

/// Reads a merged recipe. The result counts only if no problem was recorded: what is wrong is left out.
pub(super) fn decode(
    role: &Role,
    file: &str,
    table: &Table,
    versions: &BTreeMap<String, String>,
    problems: &Problems,
) -> Option<Spec> {
    let fields = Fields::new(table, "the recipe", RECIPE_KEYS, problems);
    let decoder = Decoder::new(problems, versions, read_vars(&fields, problems));
    let version = decoder.version(&fields);
    // A version is a bundle's name, not its content: what only it uses must not show in the digest.
    decoder.used.take();
    let persist = decoder.persists(fields.tables("persist"));
    let scratch: Vec<Scratch> =
        fields.tables("scratch").into_iter().filter_map(|table| decoder.scratch(table)).collect();
    decoder.check_overlap(&persist, &scratch);
    let spec = Spec {
        unpack: fields.tables("unpack").into_iter().filter_map(|table| decoder.unpack(table)).collect(),
        conf: fields.tables("conf").into_iter().filter_map(|table| decoder.conf(table)).collect(),
        service: fields.table("service").and_then(|table| decoder.service(table)),
        role: role.clone(),
        file: file.to_owned(),
        version: version?,
        persist,
        scratch,
        versions_used: decoder.used.into_inner().versions,
        vars: decoder.vars,
    };
    Some(spec)
}

fn read_vars(fields: &Fields<'_>, problems: &Problems) -> Map<String, Json> {
    let mut vars = Map::new();
    for (name, entry) in fields.table("vars").map(|table| &table.entries).into_iter().flatten() {
        // A wrong value still defines its name, so that its uses are not reported as well.
        let value = entry.node.to_json().map_err(|problem| problems.add(problem));
        vars.insert(name.clone(), value.unwrap_or_default());
    }
    vars
}

impl<'a> Decoder<'a> {
    fn new(problems: &'a Problems, versions: &'a BTreeMap<String, String>, vars: Map<String, Json>) -> Self {
        let context = Map::from_iter([
            ("versions".to_owned(), versions_json(versions)),
            ("vars".to_owned(), Json::Object(vars.clone())),
        ]);
        let context = to_template_value(&Json::Object(context));
        Self { problems, versions, vars, context, used: RefCell::default() }
    }

    /// Renders a string of the recipe.
    fn render(&self, key: &str, node: &Node) -> Option<String> {
        let text = node.string(key, self.problems)?;
        if !is_template(text) {
            return Some(text.to_owned());
        }
        if !self.check(node, text, Moment::Recipe { vars: &self.vars, build: false }) {
            return None;
        }
        match Engine::shared().render(text, &self.context) {
            Ok(text) => Some(text),
            Err(error) => {
                self.refuse(node, text, &error);
                None
            }
        }
    }

    /// A string below `[service]`, kept for the node.
    pub(super) fn keep(&self, key: &str, node: &Node) -> Option<String> {
        let text = node.string(key, self.problems)?;
        self.check(node, text, Moment::Node).then(|| text.to_owned())
    }

    fn check(&self, node: &Node, text: &str, moment: Moment<'_>) -> bool {
        let errors = check(text, self.versions, moment, &mut self.used.borrow_mut());
        for error in &errors {
            self.refuse(node, text, error);
        }
        errors.is_empty()
    }

    fn refuse(&self, node: &Node, text: &str, error: &TemplateError) {
        self.problems.add(error.at(&inside(&node.place, text, error)));
    }

    fn version(&self, fields: &Fields<'_>) -> Option<VersionTemplate> {
        let example = "\"{{ versions.<product> }}-{{ build }}\"";
        let node = fields.require("version", example)?;
        let text = node.string("version", self.problems)?;
        if !self.check(node, text, Moment::Recipe { vars: &self.vars, build: true }) {
            return None;
        }
        let uses_build = super::template::uses(text, "build");
        let names = Map::from_iter([
            ("versions".to_owned(), versions_json(self.versions)),
            ("vars".to_owned(), Json::Object(self.vars.clone())),
        ]);
        let version = VersionTemplate::new(text, &node.place, names, uses_build);
        version.render(Some(1)).map_err(|problem| self.problems.add(problem)).ok()?;
        Some(version)
    }

    fn path(&self, key: &str, node: &Node) -> Option<BundlePath> {
        let text = self.render(key, node)?;
        BundlePath::new(&text)
            .map_err(|error| {
                let problem = node.place.problem(format!("`{key}` is no path inside its folder: {error}"));
                self.problems.add(problem.help("write a relative path without `..`"));
            })
            .ok()
    }

    fn optional_path(&self, fields: &Fields<'_>, key: &str) -> Option<BundlePath> {
        fields.node(key).and_then(|node| self.path(key, node))
    }

    fn globs(&self, fields: &Fields<'_>, key: &str) -> Vec<String> {
        let read = |node: &Node| {
            let text = self.render(key, node)?;
            match check_glob(&text) {
                Ok(()) => Some(text),
                Err(why) => {
                    self.problems.add(node.place.problem(format!("`{text}` is not a glob: {why}")));
                    None
                }
            }
        };
        fields.array(key).iter().filter_map(read).collect()
    }

    fn unpack(&self, table: &Table) -> Option<Unpack> {
        let fields = Fields::new(table, "[[unpack]]", UNPACK_KEYS, self.problems);
        let artifact = fields.require("artifact", "\"<file below install/>\"");
        let path = artifact.and_then(|node| self.path("artifact", node));
        let unpack = Unpack {
            into: self.optional_path(&fields, "into"),
            strip: self.strip(&fields),
            include: self.globs(&fields, "include"),
            exclude: self.globs(&fields, "exclude"),
            keep_setuid: fields.boolean("keep_setuid").unwrap_or(false),
            format: self.format(&fields),
            artifact: path?,
            place: artifact?.place.clone(),
        };
        Some(unpack)
    }

    fn strip(&self, fields: &Fields<'_>) -> Strip {
        let Some(node) = fields.node("strip") else { return Strip::Auto };
        match &node.value {
            Value::String(text) if text == "auto" => Strip::Auto,
            Value::Integer(_) => {
                let levels = node.integer("strip", 0, 64, self.problems);
                Strip::Levels(levels.and_then(|levels| u32::try_from(levels).ok()).unwrap_or_default())
            }
            _ => {
                node.wrong::<()>("strip", "\"auto\" or a whole number", self.problems);
                Strip::Auto
            }
        }
    }

    fn format(&self, fields: &Fields<'_>) -> Format {
        let Some((text, node)) = fields.string("format") else { return Format::Auto };
        let names = Format::ALL.map(|(name, _)| name);
        if let Some((_, format)) = Format::ALL.iter().find(|(name, _)| *name == text) {
            return *format;
        }
        let problem = node.place.problem(format!("there is no format `{text}`"));
        self.problems.add(problem.names(text, "formats", names));
        Format::Auto
    }

    fn conf(&self, table: &Table) -> Option<Conf> {
        let fields = Fields::new(table, "[[conf]]", CONF_KEYS, self.problems);
        let from = fields.require("from", "\"<directory or file below conf/>\"");
        let path = from.and_then(|node| self.path("from", node));
        let conf = Conf {
            into: self.optional_path(&fields, "into"),
            render: self.globs(&fields, "render"),
            include: self.globs(&fields, "include"),
            exclude: self.globs(&fields, "exclude"),
            from: path?,
            place: from?.place.clone(),
        };
        Some(conf)
    }

    fn persists(&self, tables: Vec<&Table>) -> Vec<Persist> {
        let mut list: Vec<Persist> = Vec::new();
        for table in tables {
            let fields = Fields::new(table, "[[persist]]", &["name", "at"], self.problems);
            let at = self.optional_path(&fields, "at");
            let Some(node) = fields.require("name", "\"data\"") else { continue };
            let Some(name) = self.render("name", node) else { continue };
            if !is_plain_name(&name) {
                let problem = node.place.problem(format!("`{name}` is not a plain name"));
                self.problems
                    .add(problem.help("use letters, digits, `_`, `.` and `-`, at most 64, no `.` first"));
            } else if let Some(first) = list.iter().find(|other| other.name == name) {
                let problem = node.place.problem(format!("there are two [[persist]] named `{name}`"));
                self.problems.add(problem.help(format!("the first is at {}", first.place)));
            } else {
                list.push(Persist { name, at, place: node.place.clone() });
            }
        }
        list
    }

    fn scratch(&self, table: &Table) -> Option<Scratch> {
        let fields = Fields::new(table, "[[scratch]]", &["at"], self.problems);
        let node = fields.require("at", "\"<directory in the release>\"")?;
        Some(Scratch { at: self.path("at", node)?, place: node.place.clone() })
    }

    /// A release cannot have one writable directory inside another.
    fn check_overlap(&self, persist: &[Persist], scratch: &[Scratch]) {
        let persists = persist.iter().filter_map(|one| Some((one.at.as_ref()?, &one.place)));
        let all: Vec<(&BundlePath, &Place)> =
            persists.chain(scratch.iter().map(|one| (&one.at, &one.place))).collect();
        for (index, (at, place)) in all.iter().enumerate() {
            let clash = all[..index].iter().find(|(other, _)| at.starts_with(other) || other.starts_with(at));
            if let Some((other, first)) = clash {
                let message = if at == other {
                    format!("`{at}` is named twice by [[persist]] and [[scratch]]")
                } else {
                    format!("`{at}` and `{other}` lie in each other")
                };
                self.problems.add(place.problem(message).help(format!("the other is at {first}")));
            }
        }
    }
}

fn versions_json(versions: &BTreeMap<String, String>) -> Json {
    Json::Object(versions.iter().map(|(name, text)| (name.clone(), Json::from(text.as_str()))).collect())
}

/// Where in the file a problem inside of a string stands: all of the string, if it has escapes.
fn inside(place: &Place, text: &str, error: &TemplateError) -> Place {
    let written = place.text();
    for quotes in [3, 1] {
        let inner = quotes..written.len().saturating_sub(quotes);
        let Some(inner) = written.get(inner) else { continue };
        // TOML drops a line's end that follows three quotes.
        let dropped = ["\r\n", "\n", ""].into_iter().find(|end| inner.strip_prefix(end) == Some(text));
        if let Some(dropped) = dropped {
            let skip = quotes + dropped.len();
            return place.within(skip + error.span.start..skip + error.span.end);
        }
    }
    place.clone()
}

fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.len() <= 64
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || b == b'.' || b == b'-')
}
