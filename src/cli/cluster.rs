//! What every command that goes to nodes needs: the cluster, who is meant, and how nodes are reached.

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::context::Context;
use super::error::{Failure, exit};
use crate::agent::Claim;
use crate::inventory::{self, Cluster, Selected};
use crate::model::{Cancel, Cancelled, Role};
use crate::remote::{AgentBinary, RemoteError, Secrets};
use crate::transport::{Ask, Connector, SshOptions};

/// Which cluster, and which part of it.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// The cluster file [default: cluster.toml in the project's folder]
    #[arg(long, value_name = "FILE", env = "WINDLASS_CLUSTER", help_heading = "Nodes")]
    pub cluster: Option<Utf8PathBuf>,
    /// Only these roles
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', help_heading = "Nodes")]
    pub roles: Vec<Role>,
    /// Only these nodes, by name or address
    #[arg(long, value_name = "NODE", value_delimiter = ',', help_heading = "Nodes")]
    pub nodes: Vec<String>,
}

/// A cluster, read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) cluster: Cluster,
    pub(super) secrets: Secrets,
    pub(super) connector: Connector,
    pub(super) agent: AgentBinary,
    /// Where the cluster file is: certificates that it names are relative to it.
    pub(super) folder: Utf8PathBuf,
}

impl ClusterArgs {
    /// Where the cluster file is.
    pub(super) fn path(&self, context: &Context) -> Result<Utf8PathBuf, Failure> {
        match &self.cluster {
            Some(path) => Ok(path.clone()),
            None => Ok(context.folder()?.join("cluster.toml")),
        }
    }

    /// Reads the cluster file; nothing is connected to yet.
    pub(super) fn load(&self, context: &Context) -> Result<Loaded, Failure> {
        let path = self.path(context)?;
        let cluster = inventory::load(&path)?;
        let folder = path.parent().unwrap_or(Utf8Path::new("")).to_owned();
        let secrets = Secrets::new(&cluster, &folder);
        // Passphrases are asked for on the terminal, where there is one.
        let connector = Connector::new(SshOptions { ask: Ask::Terminal, ..SshOptions::default() });
        Ok(Loaded { cluster, secrets, connector, agent: agent()?, folder })
    }

    /// The nodes and roles that are meant.
    pub(super) fn select<'a>(&self, cluster: &'a Cluster) -> Result<Vec<Selected<'a>>, Failure> {
        cluster.select(&self.roles, &self.nodes).map_err(|errors| {
            let message: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let failure = Failure::new(exit::INVALID, "usage", message.join("; "));
            errors.iter().flat_map(inventory::SelectionError::help).fold(failure, Failure::help)
        })
    }
}

/// What runs on nodes that name no program of their own: `$WINDLASS_AGENT`, or this program.
fn agent() -> Result<AgentBinary, RemoteError> {
    match std::env::var("WINDLASS_AGENT") {
        Ok(path) if !path.is_empty() => AgentBinary::at(Utf8Path::new(&path)),
        _ => AgentBinary::own(),
    }
}

/// Who asks nodes for something, and for which rollout.
pub(super) fn claim(rollout: Option<String>) -> Claim {
    Claim { rollout, ..super::node::by_hand() }
}

/// A runtime for what speaks to nodes.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(exit::FAILED, "io", "could not start threads").cause(error.to_string()))
}

/// Runs `work` on threads of its own until it is done, or until a signal asks for the stop.
pub(super) fn run<T>(cancel: &Cancel, work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            done = work => Ok(done),
            () = asked_to_stop(cancel) => Err(Cancelled.into()),
        }
    });
    // A secret's command or a slow disk must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Ready once a signal asked for the stop.
pub(super) async fn asked_to_stop(cancel: &Cancel) {
    while !cancel.is_set() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
