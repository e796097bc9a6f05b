//! Why a bundle did not get to a node, or could not be staged there.

use crate::fs::IoError;
use crate::model::{NodeName, Role, causes};
use crate::remote::{RemoteError, SecretError};
use crate::store::StoreError;

/// Why a bundle did not get to a node, or could not be staged there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The node, or the way there.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The controller's own store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret that the bundle names has no value.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The system refused, here.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The node found contents that are not what their tables say.
    #[error("{role} on {node}: {source}")]
    Damaged {
        /// Which node found out.
        node: NodeName,
        /// Of which role.
        role: Role,
        /// What it said.
        source: Box<RemoteError>,
    },
    /// Whether the role is forming cannot be known.
    #[error("{role}: a template asks whether the role is forming, and not all of its nodes answer")]
    Forming {
        /// Which role.
        role: Role,
        /// The first that does not.
        source: Box<RemoteError>,
    },
    /// The node's answers do not fit what it was sent.
    #[error("{node}: the push went wrong: {what}")]
    Protocol {
        /// Which node.
        node: NodeName,
        /// What it said out of turn.
        what: String,
    },
    /// A mistake of windlass's own.
    #[error("this should not happen: {0}")]
    Internal(String),
}

impl PushError {
    /// One word for programs.
    pub fn kind(&self) -> &str {
        match self {
            Self::Remote(error) => error.kind(),
            Self::Store(_) => "store",
            Self::Secret(_) => "secret",
            Self::Io(_) => "io",
            Self::Damaged { .. } => "damaged",
            Self::Forming { .. } => "forming",
            Self::Protocol { .. } => "protocol",
            Self::Internal(_) => "internal",
        }
    }

    /// What it came from, the nearest first.
    pub fn causes(&self) -> Vec<String> {
        match self {
            Self::Remote(error) => error.causes(),
            Self::Forming { source, .. } => {
                std::iter::once(source.to_string()).chain(source.causes()).collect()
            }
            Self::Damaged { source, .. } => source.causes(),
            other => causes(other),
        }
    }

    /// What a person might do about it, a line each.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Remote(error) => error.help(),
            Self::Store(error) => error.help(),
            Self::Secret(error) => error.help(),
            Self::Io(error) => error.help(),
            Self::Damaged { role, .. } => vec![
                format!(
                    "`windlass verify {role}` reads the bundle again; build it anew if that finds something"
                ),
                "nothing of it was used on the node".to_owned(),
            ],
            Self::Forming { source, .. } => source.help(),
            Self::Protocol { .. } | Self::Internal(_) => Vec::new(),
        }
    }

    /// The exit code: 5 for a lock that somebody else holds, 2 for what the operator wrote, else 1.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Remote(error) => error.exit(),
            Self::Secret(_) => 2,
            Self::Store(_)
            | Self::Io(_)
            | Self::Damaged { .. }
            | Self::Forming { .. }
            | Self::Protocol { .. }
            | Self::Internal(_) => 1,
        }
    }
}
