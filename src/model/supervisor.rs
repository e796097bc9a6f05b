//! What keeps a node's services up.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

/// What keeps processes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SupervisorKind {
    /// Units of systemd.
    Systemd,
    /// Programs of supervisord.
    Supervisord,
    /// The embedded one.
    #[default]
    Pidfile,
}

impl SupervisorKind {
    /// Every kind by its name in cluster.toml.
    pub const ALL: [(&'static str, Self); 3] =
        [("systemd", Self::Systemd), ("supervisord", Self::Supervisord), ("pidfile", Self::Pidfile)];

    /// Its name in cluster.toml.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("pidfile", |(name, _)| name)
    }
}

/// What keeps a node's processes up, and where that is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervision {
    /// Which.
    pub kind: SupervisorKind,
    /// supervisord's own configuration on the node, absolute; `None` is the running one's, or else the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Utf8PathBuf>,
}

impl Supervision {
    /// Whether it is the embedded one, which needs no mention.
    pub fn is_pidfile(&self) -> bool {
        self.kind == SupervisorKind::Pidfile
    }
}
