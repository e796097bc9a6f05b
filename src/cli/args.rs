//! Every argument of every command.

use std::ffi::OsString;

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::cluster::ClusterArgs;
use crate::model::{BundlePath, ByteSize, Role, Version};

/// Vendor tarballs and conf become immutable bundles, moved node by node, with a way back.
///
/// Run it in a project's folder, the one with windlass.toml, or anywhere below it.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, max_term_width = 100, subcommand_required = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The project's folder [default: this one, or the nearest above with a windlass.toml]
    #[arg(short = 'C', long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub dir: Option<Utf8PathBuf>,
    /// How the result is written to stdout
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Everywhere")]
    pub format: Format,
    /// No progress and no remarks on stderr
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub quiet: bool,
    /// More remarks on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Everywhere")]
    pub verbose: u8,
}

/// How the result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Human,
    /// For programs: one JSON object
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new project of the stock recipes for what is in install/
    Init(Init),
    /// Raise a version in windlass.toml
    Set(Set),
    /// Record the digests of all artifacts in windlass.lock
    Lock(Lock),
    /// Build bundles from recipes, artifacts and conf into out/
    Build(Build),
    /// List the bundles in out/
    Ls(Ls),
    /// Show what a bundle holds and what it shares with others
    Inspect(Inspect),
    /// Show what differs between two bundles
    Diff(Diff),
    /// Write a bundle's tree into a folder, every file checked
    Unpack(Unpack),
    /// Hash bundles in out/ again and name what is wrong
    Verify(Verify),
    /// Find what is wrong with conf, topology and nodes before anything is touched
    Check(Check),
    /// Show what a promotion would do, and change nothing
    Plan(Plan),
    /// Bring bundles to nodes and make them ready; nothing that runs is touched
    Push(Push),
    /// Bring nodes to bundles, wave by wave, and back if a gate does not hold
    Promote(Promote),
    /// Bring nodes back to their prior release
    Rollback(Rollback),
    /// Go on with the last rollout
    Resume(Resume),
    /// Start services anew, wave by wave
    Restart(Restart),
    /// Show what runs on nodes
    Status(Status),
    /// Show past rollouts, or the nodes' journals
    History(History),
    /// Write a rollout as one HTML file to stdout
    Report(Report),
    /// Start, stop, restart or look at services, without waves and gates
    Service(Service),
    /// Hash the releases on nodes again and name what changed
    Drift(Drift),
    /// Drain a node's data away, stop it for good, and take it out of cluster.toml
    Leave(Leave),
    /// Remove old bundles and unused blobs from out/, or old releases from nodes
    Gc(Gc),
    /// Show all of the above on this machine, in a temporary folder
    Demo(Demo),
    /// The demo's service
    #[command(hide = true)]
    DemoService(DemoService),
    /// What runs on a node: called by a controller, or by hand
    Node(super::node::Node),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page
    Man,
}

/// `windlass init`
#[derive(Debug, Args)]
pub struct Init {
    /// Take everything that is recognised, in its newest version, without asking
    #[arg(short, long)]
    pub yes: bool,
    /// The project's name [default: the folder's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// `windlass set`
#[derive(Debug, Args)]
pub struct Set {
    /// A product in [versions]
    pub product: String,
    /// Its new version
    pub version: String,
}

/// `windlass lock`
#[derive(Debug, Args)]
pub struct Lock {
    /// Accept this artifact as it is now, although it differs from its entry
    #[arg(long, value_name = "NAME")]
    pub update: Vec<BundlePathArgument>,
}

/// `windlass build`
#[derive(Debug, Args)]
pub struct Build {
    /// Roles to build [default: all]
    #[arg(value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Roles to build, as an option
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    pub more_roles: Vec<String>,
    /// Refuse artifacts that are not in windlass.lock
    #[arg(long)]
    pub locked: bool,
    /// The build number in versions [default: counted]
    #[arg(id = "build", long = "build", env = "WINDLASS_BUILD", value_name = "N")]
    pub number: Option<u64>,
    /// Threads; 0 is one a core [default: windlass.toml's, or 0]
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// zstd level, 1 to 19 [default: windlass.toml's, or 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: Option<i32>,
    /// Memory to stay within, at least 64 MiB [default: windlass.toml's, or 512 MiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Refuse archives that unpack to more [default: windlass.toml's, or 16 GiB]
    #[arg(long, value_name = "SIZE")]
    pub max_unpacked: Option<ByteSize>,
}

/// `windlass ls`
#[derive(Debug, Args)]
pub struct Ls {
    /// Only these roles
    #[arg(value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Only these roles, as an option
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    pub more_roles: Vec<String>,
}

/// `windlass inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// `role:version`, `role` (its newest) or `sha256:...`
    #[arg(value_name = "REF")]
    pub reference: String,
    /// List every file too
    #[arg(long)]
    pub files: bool,
}

/// `windlass diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// The older bundle
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The newer bundle
    #[arg(value_name = "TO")]
    pub to: String,
    /// Names and sizes only, no text
    #[arg(long)]
    pub stat: bool,
}

/// `windlass unpack`
#[derive(Debug, Args)]
pub struct Unpack {
    /// `role:version`, `role` (its newest) or `sha256:...`
    #[arg(value_name = "REF")]
    pub reference: String,
    /// A folder that is empty or not there yet
    #[arg(value_name = "DIR")]
    pub into: Utf8PathBuf,
}

/// `windlass verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Bundles [default: all]
    #[arg(value_name = "REF")]
    pub references: Vec<String>,
}

/// `windlass gc`
#[derive(Debug, Args)]
pub struct Gc {
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Bundles to keep of each role, the newest first; on nodes, good releases [default: 3; on nodes,
    /// `keep` of cluster.toml]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Collect on nodes, not in out/
    #[arg(long)]
    pub on_nodes: bool,
    /// Which nodes, with --on-nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass check`
#[derive(Debug, Args)]
pub struct Check {
    /// Say why a code matters, and what to change
    #[arg(long, value_name = "CODE")]
    pub explain: Option<String>,
    /// Connect to no node: conf alone is looked at
    #[arg(long)]
    pub offline: bool,
    /// Which nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// Bundles: `role:version`, `role` or `sha256:...` [default: the newest of each role]
    #[arg(value_name = "REF")]
    pub references: Vec<String>,
    /// Save the plan, for `windlass promote FILE.json`
    #[arg(long, value_name = "FILE.json")]
    pub save: Option<Utf8PathBuf>,
    /// Take releases that were marked bad
    #[arg(long)]
    pub force: bool,
    /// Which nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass promote`
#[derive(Debug, Args)]
pub struct Promote {
    /// A plan that was saved (FILE.json), or bundles [default: the newest of each role]
    #[arg(value_name = "PLAN|REF")]
    pub references: Vec<String>,
    /// Take releases that were marked bad
    #[arg(long)]
    pub force: bool,
    /// Nodes that are pushed to at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub parallel: usize,
    /// Which nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass rollback`
#[derive(Debug, Args)]
pub struct Rollback {
    /// The version to go back to; it must still be on the nodes [default: each node's prior release]
    #[arg(long, value_name = "VERSION")]
    pub to: Option<Version>,
    /// All nodes at once, without waves and gates
    #[arg(long)]
    pub now: bool,
    /// Even where a newer version has opened the data: it was put back from a snapshot
    #[arg(long)]
    pub force: bool,
    /// Which nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass resume`
#[derive(Debug, Args)]
pub struct Resume {
    /// Take releases that were marked bad meanwhile
    #[arg(long)]
    pub force: bool,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass restart`
#[derive(Debug, Args)]
pub struct Restart {
    /// Which nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass leave`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass leave es4                        all that es4 runs, then its entry in cluster.toml
  windlass leave es4 --role kafka           one of its roles; the others stay
  windlass leave es4 --keep-entry --yes     without asking, and cluster.toml as it is
  windlass leave es4 --dead                 es4 is gone already: the others forget it

Whatever fails, and Ctrl-C, puts everything back: the node stays. Data on the node is never deleted.")]
pub struct Leave {
    /// The node, by name or address
    #[arg(value_name = "NODE")]
    pub node: String,
    /// The node is gone already: it is not connected to, and the others forget it
    #[arg(long)]
    pub dead: bool,
    /// Leave cluster.toml and the host lists as they are
    #[arg(long)]
    pub keep_entry: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// The cluster file [default: cluster.toml in the project's folder]
    #[arg(long, value_name = "FILE", env = "WINDLASS_CLUSTER", help_heading = "Nodes")]
    pub cluster: Option<Utf8PathBuf>,
    /// Only these of its roles
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', help_heading = "Nodes")]
    pub roles: Vec<Role>,
}

/// `windlass status`
#[derive(Debug, Args)]
pub struct Status {
    /// Which nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass history`
#[derive(Debug, Args)]
pub struct History {
    /// One rollout, event by event
    #[arg(value_name = "ROLLOUT")]
    pub rollout: Option<String>,
    /// What the nodes' own journals say
    #[arg(long, conflicts_with = "rollout")]
    pub on_nodes: bool,
    /// Which nodes, with --on-nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass report`
#[derive(Debug, Args)]
pub struct Report {
    /// Which rollout, as `windlass history` lists them [default: the last]
    #[arg(value_name = "ROLLOUT")]
    pub rollout: Option<String>,
}

/// `windlass service`
#[derive(Debug, Args)]
pub struct Service {
    /// What to do.
    #[command(subcommand)]
    pub what: ServiceWhat,
}

/// What to do with services.
#[derive(Debug, Subcommand)]
pub enum ServiceWhat {
    /// Start them from the current releases
    Start(ClusterArgs),
    /// Stop them
    Stop(ClusterArgs),
    /// Stop and start them, all nodes at once; `windlass restart` goes wave by wave
    Restart(ClusterArgs),
    /// Tell them to read their conf again, as [service] reload in their recipes says
    Reload(ClusterArgs),
    /// Say whether they run
    Status(ClusterArgs),
}

/// `windlass drift`
#[derive(Debug, Args)]
pub struct Drift {
    /// Put back what changed or is missing, from what is on the nodes; extra files stay
    #[arg(long)]
    pub heal: bool,
    /// Which nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `windlass push`
#[derive(Debug, Args)]
pub struct Push {
    /// Bundles, `role:version`, `role` or `sha256:...` [default: the newest of each role]
    #[arg(value_name = "REF")]
    pub references: Vec<String>,
    /// Which cluster, and which part of it
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Nodes at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parallel)]
    pub parallel: usize,
}

fn parallel(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=512) => Ok(number),
        _ => Err("a number from 1 to 512".to_owned()),
    }
}

/// `windlass demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep the temporary folder, to play with
    #[arg(long)]
    pub keep: bool,
    /// Reach the nodes over an sshd that the demo starts, not as folders of this machine
    #[arg(long)]
    pub ssh: bool,
}

/// `windlass demo-service`: what the demo's service runs.
#[derive(Debug, Args)]
pub struct DemoService {
    /// Its conf
    pub conf: Utf8PathBuf,
    /// The folder with its files
    pub home: Utf8PathBuf,
}

/// `windlass completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// A path below install/, with or without the `install/`.
#[derive(Clone, Debug)]
pub struct BundlePathArgument(pub BundlePath);

impl std::str::FromStr for BundlePathArgument {
    type Err = crate::model::PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        BundlePath::new(text.strip_prefix("install/").unwrap_or(text)).map(Self)
    }
}

impl Arguments {
    /// Parses; an error in JSON mode can only be told by looking at the arguments by hand.
    pub(super) fn wants_json(arguments: &[OsString]) -> bool {
        let texts: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        texts.iter().any(|text| text == "--format=json")
            || texts.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json")
    }
}
