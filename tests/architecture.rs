//! The layers hold: no module uses one that the table in ARCHITECTURE.md does not let it use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the layer table, from the edge down: a module and what it may use.
fn table() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| module | may use |")).skip(2);
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|');
        let names =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let module = names(cells.next().unwrap_or_default()).remove(0);
        (module, names(cells.next().unwrap_or_default()).into_iter().collect())
    };
    rows.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// The modules that src/lib.rs declares.
fn declared() -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join("src/lib.rs")).unwrap();
    let name = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    text.lines().filter_map(name).collect()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code without its comments: links in them are no uses.
fn code(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        // A `//` in a string cuts the line short; no path stands behind one.
        out.push_str(line.split("//").next().unwrap_or_default());
        out.push('\n');
    }
    out
}

fn identifier(text: &str) -> &str {
    &text[..text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len())]
}

/// The top modules that `code` names by `crate::x` or `crate::{x::..., y}`.
fn uses(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c == '_' || c == ':' || c.is_ascii_alphanumeric()) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(identifier(rest).to_owned());
            continue;
        };
        let mut depth = 1;
        let mut fresh = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => fresh = true,
                c if fresh && depth == 1 && !c.is_whitespace() => {
                    found.insert(identifier(&group[at..]).to_owned());
                    fresh = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// Chains of `super::` that reach the crate's root, which would go round the table.
fn climbs_out(code: &str, depth: usize) -> bool {
    let (plain, tests) = code.split_at(code.find("#[cfg(test)]").unwrap_or(code.len()));
    let chain = |depth: usize| "super::".repeat(depth);
    plain.contains(&chain(depth)) || tests.contains(&chain(depth + 1))
}

#[test]
fn each_module_uses_only_what_the_table_allows() {
    let table: BTreeMap<_, _> = table().into_iter().collect();
    let mut files = Vec::new();
    rust_files(&repository().join("src"), &mut files);
    let mut problems = Vec::new();
    for file in &files {
        let below = file.strip_prefix(repository().join("src")).unwrap();
        let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        if matches!(first, "lib.rs" | "main.rs") {
            continue;
        }
        let Some(allowed) = table.get(module) else {
            problems.push(format!("src/{}: the table has no module `{module}`", below.display()));
            continue;
        };
        let code = code(&fs::read_to_string(file).unwrap());
        for used in uses(&code) {
            if used != module && !allowed.contains(&used) {
                problems.push(format!("src/{}: `{module}` may not use `{used}`", below.display()));
            }
        }
        let depth = below.components().count() - usize::from(below.ends_with("mod.rs"));
        if climbs_out(&code, depth) {
            problems.push(format!("src/{}: write `crate::`, not `super::` up to the root", below.display()));
        }
    }
    assert!(problems.is_empty(), "{}\nthe table is in ARCHITECTURE.md", problems.join("\n"));
}

#[test]
fn the_table_lists_the_modules_and_points_down() {
    let table = table();
    let listed: BTreeSet<_> = table.iter().map(|(module, _)| module.clone()).collect();
    assert_eq!(listed, declared(), "ARCHITECTURE.md's table against src/lib.rs");
    for (at, (module, allowed)) in table.iter().enumerate() {
        let below: BTreeSet<_> = table[at + 1..].iter().map(|(module, _)| module.clone()).collect();
        let up: Vec<_> = allowed.difference(&below).collect();
        assert!(up.is_empty(), "`{module}` may use {up:?}, which stand above it or nowhere");
    }
}

#[test]
fn paths_are_found_however_they_are_written() {
    let code = code(
        "use crate::fs::{self, replace};\nuse crate::{\n    model::{Digest, Role},\n    store,\n};\n\
         // crate::cli is only spoken of\npub(in crate::build) fn x() { crate::report::y(); my_crate::z(); }",
    );
    let found: Vec<_> = uses(&code).into_iter().collect();
    assert_eq!(found, ["build", "fs", "model", "report", "store"]);
    assert!(climbs_out("use super::super::x;", 2));
    assert!(!climbs_out("use super::x; #[cfg(test)] mod tests { use super::super::x; }", 2));
}
