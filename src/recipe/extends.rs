//! `extends`: a recipe laid over the shared part it names, and that over the next.
//!
//! # Invariants
//!
//! * Tables merge, arrays append with the base's items first, anything else of the child wins.
//! * Each file is parsed once, however many recipes extend it, and reports its own problems once.
//! * A chain that comes back to itself is refused; a part that is nobody's base is still checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::RECIPE_KEYS;
use super::place::Source;
use super::reader::{Fields, Problems, check_schema};
use super::tree::{Entry, Table, parse};

/// Whether a file of `recipes/` is a shared part, not a role.
pub(super) fn is_part(file: &str) -> bool {
    file.starts_with('_')
}

/// Every file of `recipes/`, parsed, by name without `.toml`. `None` is a file that cannot be used.
pub(super) struct Parts<'a> {
    files: BTreeMap<&'a str, Option<Table>>,
    problems: &'a Problems,
}

impl<'a> Parts<'a> {
    /// Parses all of `recipes`.
    pub(super) fn new(recipes: &'a BTreeMap<String, Arc<Source>>, problems: &'a Problems) -> Self {
        let read = |(file, source): (&'a String, &'a Arc<Source>)| {
            let table = parse(source).map_err(|errors| problems.extend(errors)).ok();
            let table = table.filter(|table| check_schema(table, "the recipe", problems));
            if let Some(table) = table.as_ref().filter(|_| is_part(file)) {
                Fields::new(table, "the recipe", RECIPE_KEYS, problems);
            }
            (file.strip_suffix(".toml").unwrap_or(file), table)
        };
        Self { files: recipes.iter().map(read).collect(), problems }
    }

    /// The recipe `name` with all it extends; `None` if any file of the chain cannot be used.
    pub(super) fn merged(&mut self, name: &str) -> Option<Table> {
        let mut table = self.files.get(name)?.clone()?;
        let mut chain = vec![name.to_owned()];
        while let Some(extends) = table.entries.remove("extends") {
            let base = self.base(&extends, &chain)?;
            chain.push(base.clone());
            // The base's own `extends` must come through, so that the loop follows it.
            table = table.over(self.files.get(base.as_str())?.clone()?);
        }
        Some(table)
    }

    fn base(&self, extends: &Entry, chain: &[String]) -> Option<String> {
        let place = &extends.node.place;
        let wanted = extends.node.string("extends", self.problems)?;
        let parts = || self.files.keys().copied().filter(|name| is_part(name));
        if chain.iter().any(|earlier| earlier == wanted) {
            let chain = [chain, &[wanted.to_owned()]].concat().join(" -> ");
            self.problems.add(place.problem("recipes extend each other in a circle").help(chain));
            return None;
        }
        if self.files.contains_key(wanted) && is_part(wanted) {
            return Some(wanted.to_owned());
        }
        let mut problem = place.problem(format!("there is no shared part `{wanted}`"));
        if self.files.contains_key(wanted) {
            problem = problem
                .help(format!("recipes/{wanted}.toml is a role; only recipes/_*.toml can be extended"));
        } else if let Some(stem) = wanted.strip_suffix(".toml") {
            problem = problem.help(format!("write the name without its ending: \"{stem}\""));
        } else {
            let all: Vec<&str> = parts().collect();
            problem = problem.names(wanted, "parts", all.iter().copied());
            problem = problem.help(format!("it would be the file recipes/{wanted}.toml"));
        }
        self.problems.add(problem);
        None
    }
}
