//! Typed reading of a TOML tree that records every problem and goes on.
//!
//! serde would stop at the first problem of a file and know nothing of the text around it. A reader
//! here gives `None` for what is wrong or missing, after recording why; the caller carries on and
//! throws the result away if any problem was recorded.

use std::cell::RefCell;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::place::Place;
use super::tree::{Entry, Node, Table, Value};

/// Newest `schema` of windlass.toml, recipes and windlass.lock that this version reads.
pub(crate) const SCHEMA: i128 = 1;

/// The problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems(RefCell<Vec<Diagnostic>>);

impl Problems {
    pub(crate) fn add(&self, problem: Diagnostic) {
        self.0.borrow_mut().push(problem);
    }

    pub(crate) fn extend(&self, problems: impl IntoIterator<Item = Diagnostic>) {
        self.0.borrow_mut().extend(problems);
    }

    /// Fails with everything that was recorded, if anything was.
    pub(crate) fn finish(self) -> Result<(), Diagnostics> {
        Diagnostics::new(self.0.into_inner()).map_or(Ok(()), Err)
    }

    /// The value of `result`, or `None` with its problem recorded at `place`.
    pub(crate) fn accept<T, E: std::fmt::Display>(&self, place: &Place, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(place.problem(error.to_string()))).ok()
    }
}

/// A table of which the keys are known.
pub(crate) struct Fields<'a> {
    table: &'a Table,
    what: &'a str,
    keys: &'static [&'static str],
    problems: &'a Problems,
}

impl<'a> Fields<'a> {
    /// Records every key of `table` that is not in `keys`. `what` names the table: ``"`[[unpack]]`"``.
    pub(crate) fn new(
        table: &'a Table,
        what: &'a str,
        keys: &'static [&'static str],
        problems: &'a Problems,
    ) -> Self {
        for (key, entry) in &table.entries {
            if !keys.contains(&key.as_str()) {
                problems.add(entry.key.problem(format!("unknown key `{key}` in {what}")).names(
                    key,
                    "keys",
                    keys.iter().copied(),
                ));
            }
        }
        Self { table, what, keys, problems }
    }

    pub(crate) fn place(&self) -> &'a Place {
        &self.table.place
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&'a Entry> {
        debug_assert!(self.keys.contains(&key), "{key} is read but not listed");
        self.table.entries.get(key)
    }

    pub(crate) fn node(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The value, or a problem that says `example`.
    pub(crate) fn require(&self, key: &str, example: &str) -> Option<&'a Node> {
        let node = self.node(key);
        if node.is_none() {
            let problem = self.table.place.problem(format!("{} has no `{key}`", self.what));
            self.problems.add(problem.help(format!("add: {key} = {example}")));
        }
        node
    }

    pub(crate) fn string(&self, key: &str) -> Option<(&'a str, &'a Node)> {
        let node = self.node(key)?;
        Some((node.string(key, self.problems)?, node))
    }

    pub(crate) fn boolean(&self, key: &str) -> Option<bool> {
        let node = self.node(key)?;
        match node.value {
            Value::Boolean(flag) => Some(flag),
            _ => node.wrong(key, "`true` or `false`", self.problems),
        }
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn integer(&self, key: &str, min: i128, max: i128) -> Option<i128> {
        self.node(key)?.integer(key, min, max, self.problems)
    }

    /// The items of an array; none if it is missing.
    pub(crate) fn array(&self, key: &str) -> &'a [Node] {
        match self.node(key).map(|node| (&node.value, node)) {
            None => &[],
            Some((Value::Array(items), _)) => items,
            Some((_, node)) => {
                let expected = match &node.value {
                    Value::String(_) => format!("an array, as in {key} = [{}]", node.place.text()),
                    _ => "an array".to_owned(),
                };
                node.wrong::<()>(key, &expected, self.problems);
                &[]
            }
        }
    }

    /// A table below this one.
    pub(crate) fn table(&self, key: &str) -> Option<&'a Table> {
        self.node(key)?.table(key, self.problems)
    }

    /// The tables of `[[key]]`.
    pub(crate) fn tables(&self, key: &str) -> Vec<&'a Table> {
        if let Some(Node { value: Value::Table(table), .. }) = self.node(key) {
            let problem = table.place.problem(format!("`{key}` must be an array of tables"));
            self.problems.add(problem.help(format!("write [[{key}]], once for each")));
            return Vec::new();
        }
        self.array(key).iter().filter_map(|item| item.table(key, self.problems)).collect()
    }
}

impl Node {
    /// Records that `key` holds something other than `expected`.
    pub(crate) fn wrong<T>(&self, key: &str, expected: &str, problems: &Problems) -> Option<T> {
        let found = self.value.kind();
        let problem = self.place.problem(format!("`{key}` must be {expected}, not {found}"));
        problems.add(problem.label(format!("this is {found}")));
        None
    }

    pub(crate) fn string(&self, key: &str, problems: &Problems) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
                let found = self.value.kind();
                let problem = self.place.problem(format!("`{key}` must be a string, not {found}"));
                problems.add(
                    problem
                        .label(format!("this is {found}"))
                        .help(format!("quote it: \"{}\"", self.place.text())),
                );
                None
            }
            Value::Array(_) | Value::Table(_) => self.wrong(key, "a string", problems),
        }
    }

    pub(crate) fn integer(&self, key: &str, min: i128, max: i128, problems: &Problems) -> Option<i128> {
        match self.value {
            Value::Integer(number) if (min..=max).contains(&number) => Some(number),
            Value::Integer(number) => {
                let text = format!("`{key}` must be from {min} to {max}, not {number}");
                problems.add(self.place.problem(text));
                None
            }
            _ => self.wrong(key, "a whole number", problems),
        }
    }

    pub(crate) fn table(&self, key: &str, problems: &Problems) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => self.wrong(key, "a table", problems),
        }
    }
}

/// Checks that a file says `schema = 1`; false if it cannot be read further.
pub(crate) fn check_schema(table: &Table, what: &str, problems: &Problems) -> bool {
    let Some(entry) = table.entries.get("schema") else {
        let problem = table.place.problem(format!("{what} has no `schema`"));
        problems.add(problem.help("start the file with: schema = 1"));
        return true;
    };
    let node = &entry.node;
    match node.value {
        Value::Integer(SCHEMA) => true,
        Value::Integer(number) if number > SCHEMA => {
            problems.add(
                node.place
                    .problem(format!("{what} has schema {number}; this windlass reads up to {SCHEMA}"))
                    .help("it was written for a newer windlass: upgrade this one"),
            );
            false
        }
        Value::Integer(number) => {
            problems
                .add(node.place.problem(format!("there is no schema {number}")).help("write: schema = 1"));
            true
        }
        _ => {
            node.wrong::<()>("schema", "the number 1", problems);
            true
        }
    }
}
