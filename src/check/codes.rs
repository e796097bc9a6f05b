//! Every code: its usual level, its title, and its reasoning, which stands in `docs/check.md` once for all.

use super::problem::Level;
use crate::model::nearest;

/// What `--explain` prints; the documentation and the program cannot differ.
const REASONS: &str = include_str!("../../docs/check.md");

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its name: `E101`, `W104`, `P201`.
    pub name: &'static str,
    /// What it is worth unless cluster.toml says otherwise.
    pub level: Level,
    /// What it is about, in a few words.
    pub title: &'static str,
}

macro_rules! codes {
    ($($name:ident $level:ident $title:literal,)*) => {
        $(
            #[doc = concat!("`", $title, "`")]
            pub(super) const $name: Code =
                Code { name: stringify!($name), level: Level::$level, title: $title };
        )*
        /// All codes, in their order.
        pub(super) const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    E100 Error "conf that cannot be read",
    W100 Warn "something was not looked at",
    E101 Error "no master-eligible node",
    W102 Warn "two master-eligible nodes",
    W103 Warn "one master-eligible node of several nodes",
    W104 Warn "an even number of master-eligible nodes, or more than three",
    E105 Error "fewer than two nodes that can be elected",
    E106 Error "voting_only without the master role",
    W106 Warn "too many voting-only nodes",
    E107 Error "minimum_master_nodes is not a majority",
    W107 Warn "minimum_master_nodes is not read any more",
    E108 Error "initial_master_nodes missing, wrong, or not the same everywhere",
    E109 Error "initial_master_nodes on a cluster that has formed",
    E110 Error "no seed hosts",
    W110 Warn "seed hosts miss masters",
    E111 Error "two zones with as many masters each",
    W111 Warn "two zones: only the loss of one is survived",
    W112 Warn "masters are not in exactly three zones",
    W113 Warn "several zones without allocation awareness",
    W114 Warn "all data in one place",
    W115 Warn "a role on one node",
    E116 Error "indices without a replica",
    W116 Warn "more replicas than nodes for them",
    E117 Error "copies of a shard may share a host",
    E118 Error "data or logs in a place that does not last, or in one that another node uses",
    E119 Error "the same name, port or path twice; or another cluster's name",
    E120 Error "too little free space for the new release",
    W120 Warn "disk watermarks",
    E121 Error "total_shards_per_node leaves no room after a failure",
    W122 Warn "an allocation filter that names no node",
    E123 Error "node.roles beside the older settings",
    W124 Warn "clients at a dedicated master",
    E125 Error "the same id twice",
    E126 Error "an even number of voters, or fewer than three",
    W126 Warn "one voter, on a cluster of one node",
    E127 Error "min.insync.replicas not below the replication factor",
    W127 Warn "a replication factor under three",
    P201 Error "too few open files",
    P202 Error "too few threads",
    P203 Error "address space or file size limited",
    P204 Error "vm.max_map_count too low",
    P205 Error "memory cannot be locked",
    P206 Error "Xms is not Xmx",
    P207 Error "serial collector or client JVM",
    P208 Warn "swap",
    P209 Error "a JDK that the product does not run on",
    P210 Error "a plugin for another version",
    P211 Error "a port is taken",
    P212 Error "a data directory that the service cannot use",
    P213 Warn "little free space or few inodes",
    P214 Warn "clocks differ",
    P215 Warn "systems differ",
    P216 Error "a limit that cannot be set",
    P217 Error "the service's user is missing",
}

/// The code of that name.
pub fn find(name: &str) -> Option<Code> {
    ALL.iter().copied().find(|code| code.name == name)
}

/// What to write instead of a name that is no code's.
pub fn near(name: &str) -> Vec<&'static str> {
    let upper = name.to_ascii_uppercase();
    let digits = upper.trim_start_matches(|c: char| !c.is_ascii_digit());
    let same: Vec<&str> =
        ALL.iter().map(|code| code.name).filter(|code| !digits.is_empty() && code[1..] == *digits).collect();
    if same.is_empty() { nearest(&upper, ALL.iter().map(|code| code.name)) } else { same }
}

/// The reasoning behind a code: its section of `docs/check.md`, without the heading's marks.
pub fn explain(code: Code) -> String {
    let is_heading = |line: &str| line.starts_with("## ") || line.starts_with("### ");
    let names = |line: &str| {
        line.split([' ', ',', ':', '`']).any(|word| word == code.name) && line.starts_with("### ")
    };
    let lines: Vec<&str> = REASONS.lines().collect();
    let Some(at) = lines.iter().position(|line| names(line)) else {
        return format!("{}: {}\n", code.name, code.title);
    };
    let body = lines[at + 1..].iter().take_while(|line| !is_heading(line));
    let text: Vec<&str> =
        std::iter::once(lines[at].trim_start_matches("### ")).chain(body.copied()).collect();
    text.join("\n").trim_end().to_owned() + "\n"
}
