//! cluster.toml and the host lists, as texts, become a [`Cluster`]: every problem of every file at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cluster::{Cluster, LintLevel, LintSetting, Secret, SecretFrom};
use super::decode_node::{self, Usual};
use super::decode_rollout::{rollout, word};
use super::hosts;
use super::rollout::Rollout;
use crate::model::Role;
use crate::recipe::{Diagnostics, Fields, Place, Problems, Source, Table, TreeNode, check_schema, parse};

const KEYS: &[&str] = &[
    "schema",
    "name",
    "root",
    "lists",
    "agent",
    "ssh",
    "nodes",
    "vars",
    "supervisor",
    "rollout",
    "secrets",
    "lints",
];
const SECRET_KEYS: &[&str] = &["env", "file", "command"];

/// Reads a cluster from its texts.
///
/// `lists` are the host lists by file name without the folder, as `kafka.list`.
pub fn read_cluster(
    cluster_toml: &Arc<Source>,
    lists: &BTreeMap<String, Arc<Source>>,
) -> Result<Cluster, Diagnostics> {
    let problems = Problems::default();
    let cluster = match parse(cluster_toml) {
        Ok(table) => cluster(&table, cluster_toml.name(), lists, &problems),
        Err(errors) => {
            problems.extend(errors);
            None
        }
    };
    let end = || Diagnostics::from(Place::start_of(cluster_toml).problem("the file cannot be read"));
    problems.finish()?;
    cluster.ok_or_else(end)
}

fn cluster(
    table: &Table,
    file: &str,
    lists: &BTreeMap<String, Arc<Source>>,
    problems: &Problems,
) -> Option<Cluster> {
    if !check_schema(table, file, problems) {
        return None;
    }
    let fields = Fields::new(table, file, KEYS, problems);
    // Where the lists are was asked before; here only its type matters.
    fields.string("lists");
    let name = fields.require("name", "\"<name of the cluster>\"").and_then(|node| name(node, problems));
    let supervisor = fields.table("supervisor").and_then(|table| {
        let fields = Fields::new(table, "[supervisor]", &["kind", "config"], problems);
        fields.require("kind", "\"systemd\"")?;
        let example = "/etc/supervisor/supervisord.conf";
        let config = decode_node::absolute(&fields, "config", example, problems);
        Some((decode_node::supervisor(&fields, "kind", problems)?, config))
    });
    let (supervisor, supervisor_config) = supervisor.unwrap_or_default();
    let usual = Usual {
        ssh: fields.table("ssh").map(|table| decode_node::ssh(table, problems)).unwrap_or_default(),
        root: decode_node::root(&fields, problems).unwrap_or_else(|| "/opt/windlass".into()),
        supervisor,
        supervisor_config,
        agent: decode_node::agent(&fields, problems),
    };
    let mut nodes =
        fields.table("nodes").map(|table| decode_node::nodes(table, &usual, problems)).unwrap_or_default();
    if fields.node("nodes").is_none() {
        let problem = fields.place().problem(format!("{file} has no node"));
        problems.add(problem.help("add: [nodes.<name>] with an address and roles"));
    } else {
        for (file, list) in lists {
            let stem = file.strip_suffix(".list").unwrap_or(file);
            match stem.parse::<Role>() {
                Ok(role) => hosts::add_role(&mut nodes, &role, list, problems),
                Err(error) => {
                    let problem = Place::start_of(list).problem(error.to_string());
                    problems.add(problem.help("a host list is called <role>.list"));
                }
            }
        }
    }
    let roles: BTreeSet<Role> = nodes.iter().flat_map(|node| node.roles.iter().cloned()).collect();
    Some(Cluster {
        name: name.unwrap_or_default(),
        nodes,
        vars: fields.table("vars").map(|table| decode_node::vars(table, problems)).unwrap_or_default(),
        rollout: fields
            .table("rollout")
            .map_or_else(Rollout::default, |table| rollout(table, &roles, problems)),
        secrets: fields.table("secrets").map(|table| secrets(table, problems)).unwrap_or_default(),
        lints: fields.table("lints").map(|table| lints(table, problems)).unwrap_or_default(),
    })
}

fn name(node: &TreeNode, problems: &Problems) -> Option<String> {
    let text = node.string("name", problems)?;
    if text.trim().is_empty() || text.contains(char::is_control) {
        problems.add(node.place.problem("the cluster's name must be printable text"));
        return None;
    }
    Some(text.to_owned())
}

fn secrets(table: &Table, problems: &Problems) -> BTreeMap<String, Secret> {
    let mut secrets = BTreeMap::new();
    for (name, entry) in &table.entries {
        let Some(table) = entry.node.table(name, problems) else { continue };
        let what = format!("secret `{name}`");
        let fields = Fields::new(table, &what, SECRET_KEYS, problems);
        let given: Vec<&&str> = SECRET_KEYS.iter().filter(|key| fields.node(key).is_some()).collect();
        if given.len() != 1 {
            let text = format!("{what} must have exactly one of `env`, `file` and `command`");
            problems.add(entry.key.problem(text).help(format!("as in {name} = {{ env = \"NAME\" }}")));
            continue;
        }
        if let Some(from) = secret_from(&fields, problems) {
            secrets.insert(name.clone(), Secret { from, place: entry.key.clone() });
        }
    }
    secrets
}

fn secret_from(fields: &Fields<'_>, problems: &Problems) -> Option<SecretFrom> {
    let text = |key: &str| {
        let (text, node) = fields.string(key)?;
        if text.is_empty() || text.contains('\0') || (key == "env" && text.contains('=')) {
            problems.add(node.place.problem(format!("`{key}` cannot be `{}`", text.escape_debug())));
            return None;
        }
        Some(text.to_owned())
    };
    if fields.node("env").is_some() {
        return text("env").map(SecretFrom::Env);
    }
    if fields.node("file").is_some() {
        return text("file").map(|file| SecretFrom::File(file.into()));
    }
    let words: Vec<String> = fields
        .array("command")
        .iter()
        .filter_map(|item| item.string("command", problems).map(str::to_owned))
        .collect();
    if fields.array("command").is_empty()
        && let Some(node) = fields.node("command")
    {
        problems.add(node.place.problem("`command` has no program to run"));
    }
    (!words.is_empty()).then_some(SecretFrom::Command(words))
}

fn lints(table: &Table, problems: &Problems) -> BTreeMap<String, LintSetting> {
    let words = [("allow", LintLevel::Allow), ("warn", LintLevel::Warn), ("error", LintLevel::Error)];
    let mut lints = BTreeMap::new();
    for (code, entry) in &table.entries {
        let text = entry.node.string(code, problems);
        let level = text.and_then(|text| word(text, &entry.node.place, code, &words, problems));
        if let Some(level) = level {
            lints.insert(code.clone(), LintSetting { level, place: entry.key.clone() });
        }
    }
    lints
}
