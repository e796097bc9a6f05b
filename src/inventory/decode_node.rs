//! `[ssh]` and `[nodes.X]` of cluster.toml.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use super::cluster::{Node, Reach, SshSettings, Vars};
use super::decode_rollout::{choice, role};
use crate::model::{NodeName, SupervisorKind};
use crate::recipe::{Fields, Place, Problems, Table, TreeNode};

const SSH_KEYS: &[&str] = &["user", "port", "identity", "known_hosts", "accept_new", "jump"];
const NODE_KEYS: &[&str] = &[
    "address",
    "transport",
    "zone",
    "roles",
    "vars",
    "port",
    "user",
    "identity",
    "root",
    "supervisor",
    "supervisor_config",
    "agent",
];

/// What holds for nodes that do not say otherwise.
pub(super) struct Usual {
    pub(super) ssh: SshSettings,
    pub(super) root: Utf8PathBuf,
    pub(super) supervisor: SupervisorKind,
    pub(super) supervisor_config: Option<Utf8PathBuf>,
    pub(super) agent: Option<Utf8PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Local,
    Ssh,
}

/// Reads `[ssh]`.
pub(super) fn ssh(table: &Table, problems: &Problems) -> SshSettings {
    let fields = Fields::new(table, "[ssh]", SSH_KEYS, problems);
    SshSettings {
        port: port(&fields),
        user: filled(&fields, "user", problems),
        identity: filled(&fields, "identity", problems).map(Into::into),
        known_hosts: filled(&fields, "known_hosts", problems).map(Into::into),
        accept_new: fields.boolean("accept_new"),
        jump: filled(&fields, "jump", problems),
    }
}

/// Reads `[nodes]`.
pub(super) fn nodes(table: &Table, usual: &Usual, problems: &Problems) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (name, entry) in &table.entries {
        let name: Option<NodeName> = problems.accept(&entry.key, name.parse());
        let table = entry.node.table("a node", problems);
        if let (Some(name), Some(table)) = (name, table) {
            nodes.push(node(name, &entry.key, table, usual, problems));
        }
    }
    refuse_twins(&nodes, problems);
    nodes
}

fn node(name: NodeName, place: &Place, table: &Table, usual: &Usual, problems: &Problems) -> Node {
    let what = format!("[nodes.{name}]");
    let fields = Fields::new(table, &what, NODE_KEYS, problems);
    let transports = [("ssh", Transport::Ssh), ("local", Transport::Local)];
    let transport = choice(&fields, "transport", &transports, problems).unwrap_or(Transport::Ssh);
    let address = filled(&fields, "address", problems);
    let (reach, address) = match transport {
        Transport::Local => {
            refuse_ssh_keys(&fields, problems);
            (Reach::Local, address.unwrap_or_else(|| "127.0.0.1".to_owned()))
        }
        Transport::Ssh => {
            let settings = SshSettings {
                port: port(&fields).or(usual.ssh.port),
                user: filled(&fields, "user", problems).or_else(|| usual.ssh.user.clone()),
                identity: filled(&fields, "identity", problems)
                    .map(Into::into)
                    .or_else(|| usual.ssh.identity.clone()),
                ..usual.ssh.clone()
            };
            // The name may be one that DNS or `~/.ssh/config` knows.
            (Reach::Ssh(settings), address.unwrap_or_else(|| name.to_string()))
        }
    };
    Node {
        address,
        reach,
        zone: filled(&fields, "zone", problems),
        roles: fields.array("roles").iter().filter_map(|item| role(item, "roles", problems)).collect(),
        vars: fields.table("vars").map(|table| vars(table, problems)).unwrap_or_default(),
        root: root(&fields, problems).unwrap_or_else(|| usual.root.clone()),
        supervisor: supervisor(&fields, "supervisor", problems).unwrap_or(usual.supervisor),
        supervisor_config: absolute(
            &fields,
            "supervisor_config",
            "/etc/supervisor/supervisord.conf",
            problems,
        )
        .or_else(|| usual.supervisor_config.clone()),
        agent: agent(&fields, problems).or_else(|| usual.agent.clone()),
        place: place.clone(),
        name,
    }
}

fn refuse_ssh_keys(fields: &Fields<'_>, problems: &Problems) {
    for key in ["port", "user", "identity"] {
        if let Some(entry) = fields.entry(key) {
            let problem = entry.key.problem(format!("`{key}` is for SSH, and this node is local"));
            problems.add(problem.help("remove it, or remove `transport = \"local\"`"));
        }
    }
}

/// Two names for one place would each undo what the other does.
fn refuse_twins(nodes: &[Node], problems: &Problems) {
    // This machine is the one without address.
    type Machine<'a> = Option<(&'a str, u16)>;
    let mut seen: BTreeMap<(Machine<'_>, &Utf8Path), &Node> = BTreeMap::new();
    for node in nodes {
        let machine = match &node.reach {
            Reach::Local => None,
            Reach::Ssh(ssh) => Some((node.address.as_str(), ssh.port.unwrap_or(22))),
        };
        if let Some(first) = seen.insert((machine, &node.root), node) {
            let text = format!("node `{}` is the same place as node `{}`", node.name, first.name);
            let problem = node.place.problem(text);
            problems.add(problem.help("give each node an address, a port or a `root` of its own"));
        }
    }
}

/// windlass's folder on the node.
pub(super) fn root(fields: &Fields<'_>, problems: &Problems) -> Option<Utf8PathBuf> {
    absolute(fields, "root", "/opt/windlass", problems)
}

/// An absolute path on the node.
pub(super) fn absolute(
    fields: &Fields<'_>,
    key: &str,
    example: &str,
    problems: &Problems,
) -> Option<Utf8PathBuf> {
    let (text, node) = fields.string(key)?;
    let path = Utf8PathBuf::from(text);
    let is_plain = path.components().all(|part| !matches!(part.as_str(), ".." | "."));
    if path.is_absolute() && path.parent().is_some() && is_plain && !text.contains(char::is_control) {
        return Some(path);
    }
    let problem = node.place.problem(format!("`{key}` must be an absolute path below `/`, not `{text}`"));
    problems.add(problem.help(format!("as in {key} = \"{example}\"")));
    None
}

/// A kind of supervisor.
pub(super) fn supervisor(fields: &Fields<'_>, key: &str, problems: &Problems) -> Option<SupervisorKind> {
    choice(fields, key, &SupervisorKind::ALL, problems)
}

/// The path of a program for nodes.
pub(super) fn agent(fields: &Fields<'_>, problems: &Problems) -> Option<Utf8PathBuf> {
    filled(fields, "agent", problems).map(Into::into)
}

fn port(fields: &Fields<'_>) -> Option<u16> {
    fields.integer("port", 1, 65_535).and_then(|port| u16::try_from(port).ok())
}

/// A text that is not empty, and no option to the programs it may be given to.
fn filled(fields: &Fields<'_>, key: &str, problems: &Problems) -> Option<String> {
    let (text, node) = fields.string(key)?;
    let is_bad =
        text.trim() != text || text.is_empty() || text.starts_with('-') || text.contains(char::is_control);
    if is_bad {
        problems.add(node.place.problem(format!("`{key}` is empty, or starts or ends with what it cannot")));
        return None;
    }
    Some(text.to_owned())
}

/// Variables for templates.
pub(super) fn vars(table: &Table, problems: &Problems) -> Vars {
    let json = |node: &TreeNode| node.to_json().map_err(|problem| problems.add(problem)).ok();
    let entries = table.entries.iter();
    entries.filter_map(|(name, entry)| Some((name.clone(), json(&entry.node)?))).collect()
}
