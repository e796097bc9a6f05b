//! Why a node could not be reached or used.
//!
//! Every error names the node and the address. None holds a command line, a passphrase or key material:
//! commands may carry secrets.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;

use crate::model::Span;

/// What failed, on which node, at which address.
#[derive(Debug)]
pub struct TransportError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    node: String,
    address: String,
    reason: Reason,
}

/// What failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// A line of the client configuration cannot be followed.
    #[error("{file}:{line}: {what}")]
    Config {
        /// The file.
        file: Utf8PathBuf,
        /// The line in it, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A file that was asked for cannot be read.
    #[error("could not read {file}")]
    File {
        /// The file.
        file: Utf8PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Neither `$HOME` nor `/etc/passwd` tells where `~` is.
    #[error("the home directory is not known, and `{path}` needs it")]
    NoHome {
        /// What needs it.
        path: String,
    },
    /// The configuration of the way there is no good.
    #[error("{0}")]
    Route(String),
    /// The name has no address.
    #[error("`{host}` has no address")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// No TCP connection.
    #[error("could not connect")]
    Connect {
        /// Why not.
        source: io::Error,
    },
    /// Nothing came back in time.
    #[error("{doing} took longer than {}", Span(*.after))]
    Timeout {
        /// What took so long.
        doing: &'static str,
        /// The time that it had.
        after: Duration,
    },
    /// No SSH session could be agreed on.
    #[error("the SSH handshake failed")]
    Handshake {
        /// Why.
        source: russh::Error,
    },
    /// The host shows another key than the one on record.
    #[error("the host key changed: {file}:{line} has {expected}, the host shows {algorithm} {found}")]
    HostKeyChanged {
        /// The key's algorithm.
        algorithm: String,
        /// The fingerprint on record.
        expected: String,
        /// The fingerprint shown.
        found: String,
        /// The file that has the record.
        file: Utf8PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// No record of this host.
    #[error("the host key is not known: {algorithm} {fingerprint}")]
    HostKeyUnknown {
        /// The key's algorithm.
        algorithm: String,
        /// The fingerprint shown.
        fingerprint: String,
        /// The line that would make it known.
        entry: String,
        /// The file that the line belongs to.
        file: Utf8PathBuf,
        /// Keys of other algorithms that are on record, with their place.
        others: Vec<String>,
    },
    /// The host shows a key that is marked as revoked.
    #[error("the host shows a revoked key: {fingerprint}, revoked at {file}:{line}")]
    HostKeyRevoked {
        /// The fingerprint shown.
        fingerprint: String,
        /// The file that revokes it.
        file: Utf8PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// The host shows a certificate that does not hold.
    #[error("the host's certificate does not hold: {0}")]
    HostCertificate(String),
    /// The key was accepted but could not be recorded.
    #[error("could not record the host key in {file}")]
    Record {
        /// The file.
        file: Utf8PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An identity file is of no use.
    #[error("the identity {file} cannot be used: {what}")]
    Identity {
        /// The file.
        file: Utf8PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A passphrase is needed and nobody is there to be asked.
    #[error("the identity {file} needs a passphrase, and there is no terminal to ask on")]
    NeedsPassphrase {
        /// The file.
        file: Utf8PathBuf,
    },
    /// The server took none of the identities.
    #[error("the server refused `{user}`: {}", if .tried.is_empty() { "there was no identity to try".to_owned() } else { format!("tried {}", .tried.join(", ")) })]
    Refused {
        /// The user.
        user: String,
        /// The identities, with fingerprints.
        tried: Vec<String>,
        /// Identities that could not be tried, and why.
        unusable: Vec<String>,
        /// What the server would take.
        methods: Vec<String>,
    },
    /// A jump host on the way failed.
    #[error("could not get through the jump host")]
    Jump {
        /// Its own error.
        source: TransportError,
    },
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The server would not open another session.
    #[error("the server opens no further session, and none became free for {}", Span(*.after))]
    Sessions {
        /// How long one was waited for.
        after: Duration,
    },
    /// The server would not open a channel or run a command in it.
    #[error("the server would not {what}")]
    Channel {
        /// What was asked for.
        what: String,
        /// Its answer.
        source: Option<russh::Error>,
    },
    /// A command of this machine could not be started, or a local port not be reached.
    #[error("could not {what}")]
    Local {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A file did not arrive.
    #[error("could not upload to {path}: {what}")]
    Upload {
        /// The path on the node.
        path: String,
        /// What the node's shell said, or how it ended.
        what: String,
    },
    /// What was to be sent could not be read.
    #[error("could not read what was to be sent to {path}")]
    Source {
        /// The path on the node.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// What sort of failure it is: for exit codes and for what a rollout makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file of the operator is wrong: nothing was contacted.
    Config,
    /// The host is not the one expected; nothing was sent to it.
    HostKey,
    /// The host did not let us in.
    Authentication,
    /// The host did not answer.
    Unreachable,
    /// The connection broke after it stood; what ran may still run.
    Lost,
    /// The host is there and said no to one request.
    Request,
}

impl TransportError {
    pub(super) fn new(node: &str, address: &str, reason: Reason) -> Self {
        Self(Box::new(Inner { node: node.to_owned(), address: address.to_owned(), reason }))
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// The address, as `host:port`, or `local`.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// What failed.
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// What sort of failure it is; that of the jump host where one failed.
    pub fn kind(&self) -> ErrorKind {
        match &self.0.reason {
            Reason::Config { .. } | Reason::File { .. } | Reason::NoHome { .. } | Reason::Route(_) => {
                ErrorKind::Config
            }
            Reason::Resolve { .. }
            | Reason::Connect { .. }
            | Reason::Timeout { .. }
            | Reason::Handshake { .. } => ErrorKind::Unreachable,
            Reason::HostKeyChanged { .. }
            | Reason::HostKeyUnknown { .. }
            | Reason::HostKeyRevoked { .. }
            | Reason::HostCertificate(_)
            | Reason::Record { .. } => ErrorKind::HostKey,
            Reason::Identity { .. } | Reason::NeedsPassphrase { .. } | Reason::Refused { .. } => {
                ErrorKind::Authentication
            }
            // What a jump host refuses is the way on: the node is not reached.
            Reason::Jump { source } if source.kind() == ErrorKind::Request => ErrorKind::Unreachable,
            Reason::Jump { source } => source.kind(),
            Reason::Lost(_) => ErrorKind::Lost,
            Reason::Sessions { .. }
            | Reason::Channel { .. }
            | Reason::Local { .. }
            | Reason::Upload { .. }
            | Reason::Source { .. } => ErrorKind::Request,
        }
    }

    /// What the operator can do about it, a line each.
    pub fn help(&self) -> Vec<String> {
        self.0.reason.help()
    }
}

impl Reason {
    fn help(&self) -> Vec<String> {
        match self {
            Self::HostKeyChanged { file, line, .. } => vec![
                "somebody may be listening in, or the host was installed anew: find out which".to_owned(),
                format!("if it was installed anew, remove line {line} of {file} and connect again"),
            ],
            Self::HostKeyUnknown { entry, file, others, .. } => {
                let mut help = Vec::new();
                if !others.is_empty() {
                    help.push(format!("on record for this host: {}", others.join(", ")));
                }
                help.push("compare the fingerprint with `ssh-keygen -lf` run on the host itself".to_owned());
                help.push(format!("if it is the host's, add this line to {file}: {entry}"));
                if others.is_empty() {
                    help.push(
                        "or set `accept_new = true` below [ssh] to trust hosts on first use".to_owned(),
                    );
                }
                help
            }
            Self::HostKeyRevoked { .. } => vec!["the host needs a new key".to_owned()],
            Self::NeedsPassphrase { file } => vec![format!("add it to an agent: ssh-add {file}")],
            Self::Refused { tried, unusable, methods, .. } => refused_help(tried, unusable, methods),
            Self::Timeout { .. } | Self::Connect { .. } => {
                vec!["is the address right, the host up, and sshd's port open to here?".to_owned()]
            }
            Self::Resolve { .. } => {
                vec!["give `address` as an IP address, or add the name to DNS or /etc/hosts".to_owned()]
            }
            Self::Sessions { .. } => {
                vec!["raise MaxSessions in the node's sshd_config (10 is its default)".to_owned()]
            }
            Self::Jump { source } => source.help(),
            Self::NoHome { .. } => vec!["set HOME".to_owned()],
            Self::Config { .. }
            | Self::File { .. }
            | Self::Route(_)
            | Self::Handshake { .. }
            | Self::HostCertificate(_)
            | Self::Record { .. }
            | Self::Identity { .. }
            | Self::Lost(_)
            | Self::Channel { .. }
            | Self::Local { .. }
            | Self::Upload { .. }
            | Self::Source { .. } => Vec::new(),
        }
    }
}

fn refused_help(tried: &[String], unusable: &[String], methods: &[String]) -> Vec<String> {
    let mut help: Vec<String> = unusable.iter().map(|why| format!("not tried: {why}")).collect();
    if tried.is_empty() {
        help.push("name one with `identity` below [ssh], or start an agent and `ssh-add` a key".to_owned());
    } else {
        help.push("add one of these public keys to the user's authorized_keys on the node".to_owned());
    }
    if tried.len() > 4 {
        help.push("sshd stops listening after a few keys: name the right one with `identity`".to_owned());
    }
    if !methods.is_empty() && !methods.iter().any(|method| method == "publickey") {
        help.push(format!("the server takes only {}", methods.join(", ")));
    }
    help
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.0.node, self.0.address, self.0.reason)
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.reason.source()
    }
}
