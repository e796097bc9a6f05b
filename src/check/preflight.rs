//! What nodes said about themselves, judged for the roles that they would run.
//!
//! # Invariants
//!
//! * A kind of service is asked only for what it needs; a plain process for ports, directories, space, and the
//!   limits that its own recipe names.
//! * What the product itself only warns of, because nobody else can reach it, is a warning here too.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;

use super::codes::{self, Code};
use super::elastic::{EsNode, KINDS};
use super::settings::Settings;
use super::topology::{Instance, Topology};
use super::{Level, Problem, java, limits, ports};
use crate::agent::{DirFact, Preflight, RolePreflight};
use crate::model::ProductVersion;
use crate::recipe::ServiceKind;

/// What a node said, and when it was asked.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The node.
    pub node: String,
    /// What it said.
    pub facts: Preflight,
    /// The controller's clock before it was asked, in microseconds since 1970.
    pub sent_us: i64,
    /// And after it had answered.
    pub back_us: i64,
}

impl NodeFacts {
    /// How far the node's clock is ahead of the controller's, in microseconds: half of the way there and back
    /// taken off, and all of the time that the node took to answer.
    pub fn ahead_us(&self) -> i64 {
        i64::midpoint(self.facts.came_us - self.sent_us, self.facts.went_us - self.back_us)
    }
}

/// The directories that a role writes to.
pub fn dirs(one: &Instance) -> BTreeSet<Utf8PathBuf> {
    let mut dirs: BTreeSet<Utf8PathBuf> = one.persist.iter().map(|(_, path)| path.clone()).collect();
    let (file, keys): (&str, &[&str]) = match one.kind {
        ServiceKind::Kafka => ("server.properties", &["log.dirs", "log.dir"]),
        ServiceKind::Zookeeper => ("zoo.cfg", &["dataDir", "dataLogDir"]),
        ServiceKind::Elasticsearch | ServiceKind::Opensearch => {
            if let Ok(node) = EsNode::of(one) {
                dirs.extend(["path.data", "path.logs"].iter().flat_map(|key| node.paths(key)));
            }
            ("", &[])
        }
        _ => ("", &[]),
    };
    if let Some(file) = one.conf(file) {
        let conf = Settings::properties(&file.path, &file.text);
        dirs.extend(keys.iter().filter_map(|key| conf.list(key)).flatten().map(Utf8PathBuf::from));
    }
    // What is in the release goes with it, and has a lint of its own.
    dirs.retain(|dir| dir.is_absolute() && !one.is_in_release(dir) && !dir.starts_with(&one.release));
    dirs
}

/// Everything that stands in the way, on all nodes that answered.
pub fn preflight(topology: &Topology, facts: &[NodeFacts]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for one in &topology.instances {
        of_bundle(one, &mut problems);
        let Some(node) = facts.iter().find(|facts| facts.node == one.node) else { continue };
        let found = node.facts.roles.iter().find(|(role, _)| role.as_str() == one.role);
        if let Some((_, role)) = found {
            of_role(one, &node.facts, role, &mut problems);
        }
    }
    for node in facts {
        space(topology, node, &mut problems);
    }
    clocks(topology, facts, &mut problems);
    systems(topology, facts, &mut problems);
    problems
}

/// What a role's level is: the product itself does not insist where nobody else can reach it.
pub(super) fn level(one: &Instance) -> Level {
    let insists = KINDS.contains(&one.kind) && EsNode::of(one).is_ok_and(|node| node.is_production());
    if insists { Level::Error } else { Level::Warn }
}

/// What the bundle says by itself: heap, collector, JDK, plugins.
fn of_bundle(one: &Instance, problems: &mut Vec<Problem>) {
    let at = Some(one.node.as_str());
    let options = java::options(one);
    let level = level(one);
    if let (Some((least, _)), Some((most, place))) = (&options.least, &options.most)
        && least != most
    {
        let message = format!("{}: Xms is {} and Xmx {}", one.name(), size(*least), size(*most));
        let help = "make them the same: a heap that grows stops the service, and is swapped out bit by bit";
        problems.push(Problem::new(codes::P206, at, place, message, help).at_most(level));
    }
    if KINDS.contains(&one.kind) {
        for (place, what) in [(&options.serial, "the serial collector"), (&options.client, "the client JVM")]
        {
            if let Some(place) = place {
                let message = format!("{} uses {what}", one.name());
                let help = "leave the choice to the product's own jvm.options: pauses grow with the heap";
                problems.push(Problem::new(codes::P207, at, place, message, help).at_most(level));
            }
        }
    }
    let Some(version) = &one.version else { return };
    if let (Some((major, place)), Some((first, last))) = (java::jdk(one), java::range(one.kind, version))
        && (major < first || last.is_some_and(|last| major > last))
    {
        let range = last.map_or_else(|| format!("{first} and later"), |last| format!("{first} to {last}"));
        let kind = one.kind.name();
        let message =
            format!("{}: {kind} {version} runs on Java {range}, and the bundle has {major}", one.name());
        let help = "set the JDK's version in windlass.toml and build again";
        problems.push(Problem::new(codes::P209, at, place, message, help));
    }
    for file in one.files.iter().filter(|file| file.path.ends_with("/plugin-descriptor.properties")) {
        let conf = Settings::properties(&file.path, &file.text);
        let key =
            if one.kind == ServiceKind::Opensearch { "opensearch.version" } else { "elasticsearch.version" };
        let wants = conf.get(key).and_then(|text| ProductVersion::leading(&text));
        if let Some(wants) = wants.filter(|wants| wants != version) {
            let name = conf.get("name").unwrap_or_else(|| file.path.clone());
            let message =
                format!("{}: plugin {name} is for {wants}, and the bundle has {version}", one.name());
            let help = "take the plugin that was built for this version: another one stops the start";
            problems.push(Problem::new(codes::P210, at, conf.place(key), message, help));
        }
    }
}

fn size(bytes: u64) -> String {
    crate::model::ByteSize(bytes).to_string()
}

fn of_role(one: &Instance, node: &Preflight, role: &RolePreflight, problems: &mut Vec<Problem>) {
    let at = Some(one.node.as_str());
    if let Some(why) = &role.no_user {
        problems.push(Problem::new(
            codes::P217,
            at,
            format!("recipes/{}.toml service.user", one.role),
            format!("{}: {why}", one.name()),
            "make the user on the node, or name another with [vars]",
        ));
    }
    limits::limits(one, node, role, problems);
    kernel(one, node, problems);
    let written = ports(one);
    for fact in role.ports.iter().filter(|fact| fact.own == Some(false)) {
        let who = match (&fact.program, fact.pid) {
            (Some(program), Some(pid)) => format!("{program}, process {pid}"),
            _ => "another process".to_owned(),
        };
        let place = written.get(&fact.port).cloned().unwrap_or_default();
        let message = format!("{}: port {} is taken by {who}", one.name(), fact.port);
        problems.push(Problem::new(codes::P211, at, place, message, "stop it, or choose another port"));
    }
    for dir in &role.dirs {
        directory(one, role, dir, problems);
    }
}

fn directory(one: &Instance, role: &RolePreflight, dir: &DirFact, problems: &mut Vec<Problem>) {
    let at = Some(one.node.as_str());
    let mut add = |code: Code, message: String, help: String| {
        problems.push(Problem::new(code, at, dir.path.as_str(), message, help));
    };
    let (path, user) = (&dir.path, &role.user);
    if !dir.exists && !dir.made {
        let help = format!("make it and give it to {user}, or use a directory below {{{{ shared }}}}");
        add(codes::P212, format!("{}: {path} is not there", one.name()), help);
    } else if let Some(why) = &dir.obstacle {
        add(codes::P212, format!("{}: {path}: {why}", one.name()), format!("let {user} write to {path}"));
    } else if dir.exists && !dir.owned && role.no_user.is_none() && user != "root" {
        let message =
            format!("{}: {path} belongs to {}, and the service runs as {user}", one.name(), dir.owner);
        add(codes::P212, message, format!("chown -R {user} {path}"));
    }
}

fn kernel(one: &Instance, node: &Preflight, problems: &mut Vec<Problem>) {
    if !KINDS.contains(&one.kind) {
        return;
    }
    let at = Some(one.node.as_str());
    if let Some(count) = node.max_map_count.filter(|count| *count < 262_144) {
        let message = format!(
            "{}: vm.max_map_count is {count}, and should be 262144: index files are mapped",
            one.name()
        );
        let help = "sysctl -w vm.max_map_count=262144, and in /etc/sysctl.d/";
        problems.push(
            Problem::new(codes::P204, at, "/proc/sys/vm/max_map_count", message, help).at_most(level(one)),
        );
    }
    let locked = EsNode::of(one).is_ok_and(|node| node.conf.flag("bootstrap.memory_lock") == Some(true));
    if let Some(swap) = node.swap.filter(|swap| *swap > 0 && !locked) {
        let message = format!("{}: {} of swap, and the heap is not locked", one.name(), size(swap));
        let help =
            "swapoff -a, or bootstrap.memory_lock: true; a heap that is swapped out looks like a dead node";
        problems.push(Problem::new(codes::P208, at, "/proc/swaps", message, help));
    }
}

fn space(topology: &Topology, node: &NodeFacts, problems: &mut Vec<Problem>) {
    let at = Some(node.node.as_str());
    let here = || topology.instances.iter().filter(|one| one.node == node.node);
    let needs = here().fold((0u64, 0u64), |sum, one| (sum.0 + one.needs.0, sum.1 + one.needs.1));
    let short = node.facts.root_bytes.is_some_and(|free| free < needs.0);
    if short || node.facts.root_inodes.is_some_and(|free| free < needs.1) {
        let (what, free) = if short {
            (format!("{} on the disk", size(needs.0)), size(node.facts.root_bytes.unwrap_or_default()))
        } else {
            (format!("{} inodes", needs.1), node.facts.root_inodes.unwrap_or_default().to_string())
        };
        let message = format!("{}: the new releases need up to {what}, and {free} is free", node.node);
        let help = "windlass gc --on-nodes removes old releases";
        problems.push(Problem::new(codes::E120, at, "windlass's root", message, help));
    }
    let mut seen = BTreeSet::new();
    for dir in node.facts.roles.values().flat_map(|role| &role.dirs) {
        let few = |free: u64, total: u64| total > 0 && free.saturating_mul(20) < total;
        let inodes = dir.free_inodes.zip(dir.total_inodes);
        let what = if few(dir.free_bytes, dir.total_bytes) {
            format!("{} of {}", size(dir.free_bytes), size(dir.total_bytes))
        } else if let Some((free, total)) = inodes.filter(|(free, total)| few(*free, *total)) {
            format!("{free} of {total} inodes")
        } else {
            continue;
        };
        // Several directories of one file system are one problem.
        if seen.insert((dir.free_bytes, dir.total_bytes)) {
            let message = format!("{}: {what} free, less than 5 %", node.node);
            let help = "make room before a service is restarted: recovery needs some";
            problems.push(Problem::new(codes::P213, at, dir.path.as_str(), message, help));
        }
    }
}

fn clocks(topology: &Topology, facts: &[NodeFacts], problems: &mut Vec<Problem>) {
    let ahead = |node: &&NodeFacts| node.ahead_us();
    let (Some(first), Some(last)) = (facts.iter().min_by_key(ahead), facts.iter().max_by_key(ahead)) else {
        return;
    };
    let apart = last.ahead_us() - first.ahead_us();
    if apart >= 1_000_000 {
        let tenths = apart / 100_000;
        problems.push(Problem::new(
            codes::P214,
            Some(&last.node),
            topology.file.as_str(),
            format!(
                "the clock of {} is {}.{} s ahead of that of {}",
                last.node,
                tenths / 10,
                tenths % 10,
                first.node
            ),
            "let chrony or ntpd keep the time on every node",
        ));
    }
}

fn systems(topology: &Topology, facts: &[NodeFacts], problems: &mut Vec<Problem>) {
    let mut by: BTreeMap<&str, BTreeMap<String, &str>> = BTreeMap::new();
    for one in &topology.instances {
        if let Some(node) = facts.iter().find(|facts| facts.node == one.node) {
            let system = format!("{} {}", node.facts.system, node.facts.machine);
            by.entry(&one.role).or_default().entry(system).or_insert(&one.node);
        }
    }
    let mut told = BTreeSet::new();
    for (role, systems) in by {
        let shown: Vec<String> = systems.iter().map(|(system, node)| format!("{node} is {system}")).collect();
        if shown.len() > 1 && told.insert(shown.clone()) {
            problems.push(Problem::new(
                codes::P215,
                None,
                topology.file.as_str(),
                format!("nodes of {role} differ: {}", shown.join(", ")),
                "a bundle's programs run on one kind of machine",
            ));
        }
    }
}
