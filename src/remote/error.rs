//! Why something did not work on a node, as the controller sees it.

use std::io;

use camino::Utf8PathBuf;

use crate::agent::{ErrorLine, Owner};
use crate::model::{NodeName, Span, causes};
use crate::transport::{ErrorKind, TransportError};

/// Why something did not work on a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The node could not be reached, or the connection broke.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The agent there said no.
    #[error("{node}: {}", line.message)]
    Agent {
        /// Which node.
        node: NodeName,
        /// What it said.
        line: Box<ErrorLine>,
    },
    /// Somebody else holds the node's lock, or took it meanwhile.
    #[error("{node}: {}", line.message)]
    Locked {
        /// Which node.
        node: NodeName,
        /// Who; unknown if they were just writing it down.
        owner: Option<Box<Owner>>,
        /// What the agent said.
        line: Box<ErrorLine>,
    },
    /// The agent cannot be run there.
    #[error("{node}: {why}")]
    Start {
        /// Which node.
        node: NodeName,
        /// Why not.
        why: StartFailure,
    },
    /// The agent ended in the middle.
    #[error("{node}: the agent ended ({how}){}", after(said))]
    Ended {
        /// Which node.
        node: NodeName,
        /// Its exit.
        how: String,
        /// What it wrote to stderr last.
        said: String,
    },
    /// The agent does not answer.
    #[error("{node}: the agent has not answered for {within}")]
    Silent {
        /// Which node.
        node: NodeName,
        /// For how long it was waited.
        within: Span,
    },
    /// The lock went with a connection, and was not taken again.
    #[error("{node}: its lock was lost with a connection")]
    Unlocked {
        /// Which node.
        node: NodeName,
    },
    /// What came back is no answer.
    #[error("{node}: the agent's answer cannot be understood: {what}")]
    Protocol {
        /// Which node.
        node: NodeName,
        /// What is wrong with it.
        what: String,
    },
    /// The program for nodes cannot be read here.
    #[error("could not read the agent's program {path}")]
    Binary {
        /// The file.
        path: Utf8PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{path} is not a program for Linux")]
    NoProgram {
        /// The file.
        path: Utf8PathBuf,
    },
}

/// Why the agent cannot be run on a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartFailure {
    /// The node is of another kind than the program.
    #[error("the agent's program is for {program}, and this node is {node}")]
    Machine {
        /// What the program is for.
        program: &'static str,
        /// What the node says that it is.
        node: String,
    },
    /// The program needs a newer libc, or another one.
    #[error("the agent's program needs another libc than this node has{}", after(said))]
    Libc {
        /// What the loader said.
        said: String,
    },
    /// The folder is mounted `noexec`.
    #[error("programs in {folder} cannot be run: it is mounted noexec, or its mode says so")]
    NoExec {
        /// The folder.
        folder: Utf8PathBuf,
    },
    /// The root cannot be made, or not be written to.
    #[error("{folder} cannot be written to{}", after(said))]
    NotWritable {
        /// The folder.
        folder: Utf8PathBuf,
        /// What the node's shell said.
        said: String,
    },
    /// There is no room for the program.
    #[error("there is no room for the agent's program in {folder}{}", after(said))]
    Full {
        /// The folder.
        folder: Utf8PathBuf,
        /// What the node's shell said.
        said: String,
    },
    /// Others could exchange the program.
    #[error("others than its user can write to {folder}")]
    Foreign {
        /// The folder.
        folder: Utf8PathBuf,
    },
    /// It was sent, and is not what was sent.
    #[error("{path} is not what was uploaded: its sha256 is another one")]
    Changed {
        /// The file on the node.
        path: Utf8PathBuf,
    },
    /// Something else.
    #[error("the agent does not run there: {how}{}", after(said))]
    Other {
        /// How its start ended.
        how: String,
        /// What was written to stderr.
        said: String,
    },
}

fn after(said: &str) -> String {
    match said.trim() {
        "" => String::new(),
        said => format!(": {}", said.replace('\n', "; ")),
    }
}

const ANOTHER: &str = "build windlass for this node, or take the static build, and name its file with \
                       `agent = \"...\"` in [nodes.X] or at the top of cluster.toml, or with WINDLASS_AGENT";

impl RemoteError {
    /// From a line of the agent.
    pub(super) fn agent(node: &NodeName, line: ErrorLine) -> Self {
        let (node, line) = (node.clone(), Box::new(line));
        match line.kind.as_str() {
            "locked" | "fenced" => Self::Locked { node, owner: line.owner.clone(), line },
            _ => Self::Agent { node, line },
        }
    }

    /// One word for programs.
    pub fn kind(&self) -> &str {
        match self {
            Self::Transport(error) => match error.kind() {
                ErrorKind::Config => "ssh-config",
                ErrorKind::HostKey => "host-key",
                ErrorKind::Authentication => "authentication",
                ErrorKind::Unreachable => "unreachable",
                ErrorKind::Lost => "lost",
                ErrorKind::Request => "transport",
            },
            Self::Agent { line, .. } | Self::Locked { line, .. } => &line.kind,
            Self::Start { .. } => "agent-start",
            Self::Ended { .. } => "agent-ended",
            Self::Silent { .. } => "agent-silent",
            Self::Unlocked { .. } => "unlocked",
            Self::Protocol { .. } => "protocol",
            Self::Binary { .. } | Self::NoProgram { .. } => "agent-program",
        }
    }

    /// The node, where it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Transport(error) => Some(error.node()),
            Self::Agent { node, .. }
            | Self::Locked { node, .. }
            | Self::Start { node, .. }
            | Self::Ended { node, .. }
            | Self::Silent { node, .. }
            | Self::Unlocked { node }
            | Self::Protocol { node, .. } => Some(node.as_str()),
            Self::Binary { .. } | Self::NoProgram { .. } => None,
        }
    }

    /// What it came from, the nearest first.
    pub fn causes(&self) -> Vec<String> {
        if let Self::Agent { line, .. } | Self::Locked { line, .. } = self {
            return line.causes.clone();
        }
        causes(self)
    }

    /// What a person might do about it, a line each.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Transport(error) => error.help(),
            Self::Agent { line, .. } | Self::Locked { line, .. } => line.help.clone(),
            Self::Start { why, .. } => why.help(),
            Self::Ended { .. } => vec!["the node's own log may say who ended it".to_owned()],
            Self::Silent { .. } => vec![
                "the node is up, but its disk may hang: look for processes in state D there".to_owned(),
                "what it was asked for may still be done".to_owned(),
            ],
            Self::Unlocked { .. } => {
                vec!["`windlass resume` goes on, once the node can be reached".to_owned()]
            }
            Self::Protocol { .. } => {
                vec!["does a start-up file of the node's shell write to stdout?".to_owned()]
            }
            Self::Binary { .. } | Self::NoProgram { .. } => {
                vec![
                    "`agent` in cluster.toml, or WINDLASS_AGENT, names a windlass built for nodes".to_owned(),
                ]
            }
        }
    }

    /// The exit code: 5 for a lock that somebody else holds, 2 for what the operator wrote, else 1.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Locked { .. } => 5,
            Self::Transport(error) if error.kind() == ErrorKind::Config => 2,
            Self::NoProgram { .. } => 2,
            Self::Transport(_)
            | Self::Agent { .. }
            | Self::Start { .. }
            | Self::Ended { .. }
            | Self::Silent { .. }
            | Self::Unlocked { .. }
            | Self::Protocol { .. }
            | Self::Binary { .. } => 1,
        }
    }

    /// Whether trying again may help: the way to the node broke, not what was asked for.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Transport(error) => matches!(error.kind(), ErrorKind::Lost | ErrorKind::Unreachable),
            Self::Ended { .. } | Self::Silent { .. } | Self::Unlocked { .. } => true,
            Self::Agent { .. }
            | Self::Locked { .. }
            | Self::Start { .. }
            | Self::Protocol { .. }
            | Self::Binary { .. }
            | Self::NoProgram { .. } => false,
        }
    }
}

impl StartFailure {
    fn help(&self) -> Vec<String> {
        match self {
            Self::Machine { .. } | Self::Libc { .. } | Self::Other { .. } => vec![ANOTHER.to_owned()],
            Self::NoExec { folder } => vec![
                format!("`findmnt -T {folder}` shows the mount; `mount -o remount,exec` changes it"),
                "or choose another `root` for this node in cluster.toml".to_owned(),
            ],
            Self::NotWritable { folder, .. } => vec![
                format!("make {folder} on the node, owned by the user that windlass logs in as"),
                "or choose another `root` for this node in cluster.toml".to_owned(),
            ],
            Self::Full { .. } => {
                vec!["make room on the node: `windlass gc --on-nodes`, or by hand".to_owned()]
            }
            Self::Foreign { folder } => {
                vec![format!("`ls -ld {folder}`; `chmod go-w` or `chown` it, once you know what is in it")]
            }
            Self::Changed { .. } => {
                vec!["did the file here change during the upload? try again".to_owned()]
            }
        }
    }
}
