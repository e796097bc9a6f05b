//! Why an operation on a node failed: one word for programs, a sentence and help for people.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::activate::{ActivateError, shown};
use super::bundles::BundleError;
use super::journal::JournalError;
use super::layout::LayoutError;
use super::lock::{LockError, Owner};
use super::names::ReleaseName;
use super::objects::ObjectError;
use super::stage_error::StageError;
use super::supervise::{ExecError, SuperviseError, UnitError};
use super::wire::WireError;
use crate::fs::{IoError, SwapError};
use crate::model::{Role, causes};

/// Why an operation on a node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The role was never staged here.
    #[error("role {role} is not on this node (root {root})")]
    NoRole {
        /// Which.
        role: Role,
        /// Where it was looked for.
        root: Utf8PathBuf,
    },
    /// There is no root.
    #[error("there is no windlass root at {0}")]
    NoRoot(Utf8PathBuf),
    /// Somebody else changes the role right now.
    #[error("role {role} is being changed by another process on this node")]
    Busy {
        /// Which.
        role: Role,
    },
    /// There is nothing to go back to.
    #[error("role {role} has no prior release: none before the current one was ever confirmed")]
    NoPrior {
        /// Which.
        role: Role,
    },
    /// The data was opened by a newer version.
    #[error(
        "{release} of {role} has version {product}, and {opened} has opened the data: the older one cannot read it"
    )]
    NoReturn {
        /// Which role.
        role: Role,
        /// What should be gone back to.
        release: ReleaseName,
        /// Its version of the product.
        product: String,
        /// The version that has opened the data.
        opened: String,
    },
    /// A person changed the link.
    #[error("{path} points at {}, but the journal says {}", shown(link.as_ref()), shown(journal.as_ref()))]
    LinkMoved {
        /// The link.
        path: Utf8PathBuf,
        /// Where it points.
        link: Option<ReleaseName>,
        /// Where it should.
        journal: Option<ReleaseName>,
    },
    /// The link is not one of ours.
    #[error("{link} points at `{target}`, which is no release")]
    LinkElsewhere {
        /// The link.
        link: Utf8PathBuf,
        /// Where it points.
        target: String,
    },
    /// The release has no service.
    #[error("role {role} runs nothing: its recipe has no [service]")]
    NoService {
        /// Which.
        role: Role,
    },
    /// Nothing is current.
    #[error("role {role} has no current release")]
    NoCurrent {
        /// Which.
        role: Role,
    },
    /// What came in is no request.
    #[error("the request is not valid: {0}")]
    Request(String),
    /// A mistake of windlass's own.
    #[error("this should not happen: {0}")]
    Internal(String),
    /// See there.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// See there.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// See there.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// See there.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// See there.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// See there.
    #[error(transparent)]
    Activate(#[from] ActivateError),
    /// See there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// See there.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// See there.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// See there.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// See there.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// See there.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// An error as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLine {
    /// One word for programs.
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// What it came from, the nearest first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(default)]
    pub help: Vec<String>,
    /// Who holds the node's lock, where that is what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<Owner>>,
}

impl AgentError {
    /// One word for programs; part of the protocol.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoRole { .. } => "no-role",
            Self::NoRoot(_) => "no-root",
            Self::Busy { .. } => "busy",
            Self::NoPrior { .. } => "no-prior",
            Self::NoReturn { .. } => "no-return",
            Self::LinkMoved { .. } | Self::LinkElsewhere { .. } => "link-moved",
            Self::NoService { .. } => "no-service",
            Self::NoCurrent { .. } => "no-current",
            Self::Request(_) => "request",
            Self::Internal(_) => "internal",
            Self::Layout(_) => "root",
            Self::Object(error) | Self::Bundle(BundleError::Object(error)) => object_kind(error),
            Self::Bundle(BundleError::Absent(_)) => "no-bundle",
            Self::Bundle(_) => "bundle",
            Self::Journal(_) => "journal",
            Self::Stage(error) => error.kind(),
            Self::Activate(error) => match error {
                ActivateError::NotStaged { .. } => "not-staged",
                ActivateError::Bad { .. } => "bad-release",
                ActivateError::Moved { .. } => "not-current",
                ActivateError::Swap { .. } => "swap",
                ActivateError::SyncParent { .. } => "unsynced",
                ActivateError::Guard(_) => "guard",
            },
            Self::Lock(error) => match error {
                LockError::Held { .. } => "locked",
                LockError::Lost { .. } => "fenced",
                LockError::Io(_) => "io",
            },
            Self::Supervise(_) | Self::Unit(_) | Self::Exec(_) => "service",
            Self::Wire(_) => "wire",
            Self::Swap(_) => "swap",
            Self::Io(error) => io_kind(error),
        }
    }

    /// What a person might do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::NoRole { .. } | Self::NoRoot(_) => {
                vec!["--root or $WINDLASS_ROOT names another root".to_owned()]
            }
            Self::NoPrior { .. } => {
                vec!["name a release: `windlass node rollback ROLE --to RELEASE`".to_owned()]
            }
            Self::NoReturn { role, .. } => vec![
                "roll forward: put right what is wrong with the newer one, and promote that".to_owned(),
                format!(
                    "or restore a snapshot into an empty data folder, and then go back with --force: \
                     `windlass rollback --role {role} --force`"
                ),
            ],
            Self::LinkMoved { path, journal, .. } => vec![match journal {
                Some(release) => format!("put it back: `ln -sfn releases/{release} {path}`"),
                None => format!("put it back: `rm {path}`"),
            }],
            Self::Layout(error) => error.help(),
            Self::Journal(error) => error.help(),
            Self::Lock(error) => error.help(),
            Self::Stage(error) => error.help(),
            Self::Supervise(error) => error.help(),
            Self::Object(ObjectError::Io(error))
            | Self::Bundle(BundleError::Io(error) | BundleError::Object(ObjectError::Io(error)))
            | Self::Io(error) => error.help(),
            Self::Object(_) | Self::Bundle(_) => vec!["push the bundle again".to_owned()],
            Self::Busy { .. }
            | Self::LinkElsewhere { .. }
            | Self::NoService { .. }
            | Self::NoCurrent { .. }
            | Self::Request(_)
            | Self::Internal(_)
            | Self::Activate(_)
            | Self::Unit(_)
            | Self::Exec(_)
            | Self::Wire(_)
            | Self::Swap(_) => Vec::new(),
        }
    }

    /// The exit code: 5 for a lock that somebody else holds, 2 for a wrong request, else 1.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Lock(LockError::Held { .. } | LockError::Lost { .. }) => 5,
            Self::Request(_) => 2,
            _ => 1,
        }
    }

    /// With all its causes, in one line.
    pub fn full(&self) -> String {
        let line = self.line();
        std::iter::once(line.message).chain(line.causes).collect::<Vec<_>>().join(": ")
    }

    /// As it goes over the wire.
    pub fn line(&self) -> ErrorLine {
        let causes = causes(self);
        let owner = match self {
            Self::Lock(LockError::Held { owner } | LockError::Lost { owner }) => owner.clone().map(Box::new),
            _ => None,
        };
        ErrorLine {
            kind: self.kind().to_owned(),
            message: self.to_string(),
            causes,
            help: self.help(),
            owner,
        }
    }
}

fn object_kind(error: &ObjectError) -> &'static str {
    match error {
        ObjectError::Content { .. } => "digest",
        ObjectError::Absent(_) => "no-object",
        ObjectError::Io(error) => io_kind(error),
    }
}

pub(super) fn io_kind(error: &IoError) -> &'static str {
    match error.source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "no-space",
        _ => "io",
    }
}
