//! TOML as a tree in which every key and value knows where it stands.
//!
//! Recipes are merged as trees and read afterwards, so a problem in a merged recipe still points
//! into the file that holds the text. Nesting is bounded by the TOML parser (80 levels).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::place::{Place, Source};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

/// Keys in byte order, and where the table starts.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) place: Place,
    pub(crate) entries: BTreeMap<String, Entry>,
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Place,
    pub(crate) node: Node,
}

/// Reads `source`, or says everything that keeps it from being TOML.
pub(crate) fn parse(source: &Arc<Source>) -> Result<Table, Vec<Diagnostic>> {
    let (root, errors) = DeTable::parse_recoverable(source.text());
    let mut problems: Vec<Diagnostic> = Vec::new();
    for error in &errors {
        let end = source.text().len();
        let place = Place::new(source, error.span().unwrap_or(end..end));
        // One slip makes the parser stumble over the rest of its line; only the first matters.
        if problems.last().is_none_or(|last| last.place.line() != place.line()) {
            problems.push(place.problem(format!("not valid TOML: {}", error.message())));
        }
    }
    let table = read_table(source, root.get_ref(), Place::start_of(source), &mut problems);
    if problems.is_empty() { Ok(table) } else { Err(problems) }
}

fn read_table(
    source: &Arc<Source>,
    table: &DeTable<'_>,
    place: Place,
    problems: &mut Vec<Diagnostic>,
) -> Table {
    let entries = table
        .iter()
        .map(|(key, value)| {
            let node = Node {
                place: Place::new(source, value.span()),
                value: read_value(source, value.get_ref(), &Place::new(source, value.span()), problems),
            };
            (key.get_ref().to_string(), Entry { key: Place::new(source, key.span()), node })
        })
        .collect();
    Table { place, entries }
}

fn read_value(
    source: &Arc<Source>,
    value: &DeValue<'_>,
    place: &Place,
    problems: &mut Vec<Diagnostic>,
) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let read = i128::from_str_radix(number.as_str(), number.radix());
            Value::Integer(read.unwrap_or_else(|_| {
                problems.push(place.problem("the number is too large"));
                0
            }))
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or_else(|_| {
            problems.push(place.problem("not a number"));
            0.0
        })),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(time.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| {
                    let place = Place::new(source, item.span());
                    Node { value: read_value(source, item.get_ref(), &place, problems), place }
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(read_table(source, table, place.clone(), problems)),
    }
}

impl Value {
    /// What it is, for an error: `a string`, `an integer`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    /// The value as JSON, for templates and for the bundle. Dates become strings.
    pub(crate) fn to_json(&self) -> Result<Json, Diagnostic> {
        Ok(match &self.value {
            Value::String(text) | Value::Datetime(text) => Json::String(text.clone()),
            Value::Integer(number) => match i64::try_from(*number) {
                Ok(number) => Json::from(number),
                Err(_) => return Err(self.place.problem("the number does not fit in 64 bits")),
            },
            Value::Float(number) => match serde_json::Number::from_f64(*number) {
                Some(number) => Json::Number(number),
                None => return Err(self.place.problem("`inf` and `nan` cannot be carried in a bundle")),
            },
            Value::Boolean(flag) => Json::Bool(*flag),
            Value::Array(items) => Json::Array(items.iter().map(Node::to_json).collect::<Result<_, _>>()?),
            Value::Table(table) => Json::Object(table.to_json()?),
        })
    }
}

impl Table {
    /// The table as a JSON object.
    pub(crate) fn to_json(&self) -> Result<serde_json::Map<String, Json>, Diagnostic> {
        self.entries.iter().map(|(key, entry)| Ok((key.clone(), entry.node.to_json()?))).collect()
    }

    /// Lays this table over `base`: tables merge, arrays append to the base's, anything else wins.
    pub(crate) fn over(self, base: Table) -> Table {
        let mut entries = base.entries;
        for (key, entry) in self.entries {
            let merged = match entries.remove(&key) {
                Some(below) => Entry { node: entry.node.over(below.node), key: entry.key },
                None => entry,
            };
            entries.insert(key, merged);
        }
        Table { place: self.place, entries }
    }
}

impl Node {
    fn over(self, base: Node) -> Node {
        let value = match (self.value, base.value) {
            (Value::Table(above), Value::Table(below)) => Value::Table(above.over(below)),
            (Value::Array(above), Value::Array(mut below)) => {
                below.extend(above);
                Value::Array(below)
            }
            (above, _) => above,
        };
        Node { value, place: self.place }
    }
}
