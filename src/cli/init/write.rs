//! The texts of a new project.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::found::{Stock, artifact, is_plugin};
use super::names::Versions;
use super::stock;

/// Every file of the new project, by path.
pub(super) fn files(
    name: &str,
    roles: &[&Stock],
    versions: &Versions,
    artifacts: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for recipe in roles.iter().flat_map(|one| &one.recipes) {
        if let Some(text) = stock::recipe(recipe) {
            files.insert(format!("recipes/{recipe}.toml"), adapted(text, versions, artifacts));
        }
    }
    for from in roles.iter().flat_map(|one| &one.conf) {
        files.extend(stock::conf(from).map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
    }
    files.insert("windlass.toml".to_owned(), project(name, roles, versions));
    files.insert("cluster.toml".to_owned(), cluster(name, roles));
    files
}

/// A recipe with the artifacts' names as they are here; plugins that are not here are comments.
fn adapted(text: &str, versions: &Versions, artifacts: &BTreeSet<String>) -> String {
    let mut out = String::new();
    // A table reaches to the empty line after it.
    for (index, block) in text.split("\n\n").enumerate() {
        if index > 0 {
            out.push_str("\n\n");
        }
        let value = |key: &str| {
            let line =
                block.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='))?;
            line.trim().strip_prefix('"')?.split('"').next()
        };
        let Some(pattern) = value("artifact").filter(|_| block.contains("[[unpack]]")) else {
            out.push_str(block);
            continue;
        };
        match artifact(pattern, versions, artifacts) {
            Some(name) => out.push_str(&block.replace(pattern, name)),
            None if is_plugin(value("into").unwrap_or_default()) => {
                out.push_str("# Left out, because install/ does not have it.");
                for line in block.lines() {
                    let line = line.strip_prefix("# ").unwrap_or(line);
                    let _ = write!(out, "\n# {line}");
                }
                if block.ends_with('\n') {
                    out.push('\n');
                }
            }
            None => out.push_str(block),
        }
    }
    out
}

fn project(name: &str, roles: &[&Stock], versions: &Versions) -> String {
    let text: String = roles
        .iter()
        .flat_map(|one| one.recipes.iter().filter_map(|name| stock::recipe(name)))
        .flat_map(|text| [text, "\n"])
        .collect();
    let mut out = format!(
        "# The project: its name, and the one place where a version is raised.\n\
         # `windlass set PRODUCT VERSION` edits a line below and leaves the comments alone.\n\
         schema = 1\nname = {}\n\n[versions]\n",
        quoted(name)
    );
    // Only what some recipe names.
    for (product, version) in
        versions.iter().filter(|(product, _)| text.contains(&format!("versions.{product} ")))
    {
        let _ = writeln!(out, "{product} = {}", quoted(version));
    }
    out
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// An example: three nodes, with the roles that may run on several on all of them.
fn cluster(name: &str, roles: &[&Stock]) -> String {
    let mut out = format!(
        "# An example to be changed: which nodes there are, how they are reached, what they run.\n\
         # Every key is in docs/cluster.md; `windlass check --offline` looks whether the topology is sound.\n\
         schema = 1\nname = {}\n\
         # windlass's folder on every node.\nroot = \"/opt/windlass\"\n\n\
         [ssh]\n# ~/.ssh/config is read too; what stands here wins.\nuser = \"deploy\"\n\n\
         # For templates: over what recipes say, below a node's own vars.\n[vars]\n# heap = \"8g\"\n",
        quoted(name)
    );
    // A plain process may be meant to run once; beats watch their own node.
    let is_everywhere =
        |one: &&&Stock| one.kind != "process" || one.recipes.iter().any(|name| name == "_beat");
    let list = |roles: Vec<&&Stock>| roles.iter().map(|one| quoted(one.role)).collect::<Vec<_>>().join(", ");
    for n in 1..=3 {
        let here: Vec<&&Stock> =
            if n == 1 { roles.iter().collect() } else { roles.iter().filter(is_everywhere).collect() };
        let _ = write!(
            out,
            "\n[nodes.node{n}]\naddress = \"192.0.2.1{n}\"\n# The failure zone: nodes of two zones are never changed together.\n\
             zone = \"rack-{n}\"\nroles = [{}]\n",
            list(here)
        );
    }
    out.push_str(
        "\n[rollout]\nmax_unavailable = 1\ncanary = 1\n\n\
         # Asked for by templates as secret(\"name\"); never in a bundle.\n[secrets]\n\
         # elastic_password = { env = \"ELASTIC_PASSWORD\" }\n\n\
         # What each lint of `windlass check` is worth here.\n[lints]\n# W104 = \"allow\"\n",
    );
    out
}
