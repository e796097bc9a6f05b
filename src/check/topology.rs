//! What is looked at: every role on every node, with what it would be after a promotion.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};

use super::elastic::KINDS;
use super::live::Live;
use crate::inventory::SupervisorKind;
use crate::model::ProductVersion;
use crate::recipe::{Limit, ServiceKind};

/// A cluster: what every node would run.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// The cluster file, as people know it.
    pub file: String,
    /// How many nodes cluster.toml has.
    pub nodes: usize,
    /// Roles whose conf is known, on every node that has them.
    pub instances: Vec<Instance>,
    /// Roles whose conf is not known.
    pub unread: Vec<Unread>,
    /// The Elasticsearch that answered, if one did.
    pub live: Option<Live>,
    /// Roles that are asked about; others are only counted. None is all.
    pub focus: BTreeSet<String>,
}

/// A role whose conf is not known, so that nodes cannot be counted.
#[derive(Clone, Debug)]
pub struct Unread {
    /// The role.
    pub role: String,
    /// What it is, if at least that is known.
    pub kind: Option<ServiceKind>,
}

/// One role on one node.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The node's name.
    pub node: String,
    /// Where cluster.toml has it, `file:line`.
    pub node_place: String,
    /// The role.
    pub role: String,
    /// What it is.
    pub kind: ServiceKind,
    /// The machine: nodes with the same are on one.
    pub host: String,
    /// The node's address.
    pub address: String,
    /// Its failure zone.
    pub zone: Option<String>,
    /// What keeps its process.
    pub supervisor: SupervisorKind,
    /// The product's version, where it can be told.
    pub version: Option<ProductVersion>,
    /// No node has run the role yet; `None` where nodes were not asked.
    pub forming: Option<bool>,
    /// Where the release is, or would be.
    pub release: Utf8PathBuf,
    /// The role's folder for what lasts.
    pub shared: Utf8PathBuf,
    /// Persistent directories: their places below the release, and below `shared`.
    pub persist: Vec<(Option<Utf8PathBuf>, Utf8PathBuf)>,
    /// Conf files and others that say something, by their path below the release.
    pub files: Vec<ConfFile>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Limits that its recipe names.
    pub limits: BTreeMap<String, Limit>,
    /// As whom it runs.
    pub user: Option<String>,
    /// And with which group.
    pub group: Option<String>,
    /// The port that its readiness is asked at.
    pub ready_port: Option<u16>,
    /// Bytes that the release needs on the node, and files; 0 if it is there.
    pub needs: (u64, u64),
}

/// A file that says something about the role.
#[derive(Clone, Debug)]
pub struct ConfFile {
    /// Below the release.
    pub path: String,
    /// Its text; where it is rendered, as it would be.
    pub text: String,
    /// It is rendered.
    pub rendered: bool,
}

impl Instance {
    /// The file called `name` that the service reads: the one in the folder that its environment or its command
    /// names, then one that is rendered, then the one nearest to the top.
    pub(super) fn conf(&self, name: &str) -> Option<&ConfFile> {
        let words = || self.command.iter().chain(self.env.values());
        let named = |file: &&ConfFile| {
            let path = self.release.join(&file.path);
            let dir = path.parent().unwrap_or(Utf8Path::new("/")).as_str();
            words()
                .any(|word| word == path.as_str() || word.trim_end_matches('/') == dir || *word == file.path)
        };
        let of_name = || self.files.iter().filter(|file| file.path.rsplit('/').next() == Some(name));
        let depth = |file: &&ConfFile| (!file.rendered, file.path.matches('/').count(), file.path.clone());
        of_name().find(named).or_else(|| of_name().min_by_key(depth))
    }

    /// Whether a path lies in a release, so that it goes with the release; links to what lasts do not.
    pub(super) fn is_in_release(&self, path: &Utf8Path) -> bool {
        let role = self.shared.parent().unwrap_or(Utf8Path::new("/nowhere"));
        let below =
            path.strip_prefix(&self.release).or_else(|_| path.strip_prefix(role.join("current"))).ok();
        let lasts = |below: &Utf8Path| {
            self.persist.iter().any(|(at, _)| at.as_deref().is_some_and(|at| below.starts_with(at)))
        };
        match below {
            Some(below) => !lasts(below),
            None => path.starts_with(role.join("releases")),
        }
    }

    /// `node role`, as people are told.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.node, self.role)
    }
}

impl Topology {
    /// Elasticsearch and OpenSearch nodes.
    pub fn elastic(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|one| KINDS.contains(&one.kind))
    }

    /// Whether a role is asked about.
    pub(super) fn is_asked(&self, role: &str) -> bool {
        self.focus.is_empty() || self.focus.contains(role)
    }

    /// Whether a role of one of these kinds is asked about.
    pub(super) fn asks_for(&self, kinds: &[ServiceKind]) -> bool {
        let mut of_kind = self.instances.iter().filter(|one| kinds.contains(&one.kind));
        of_kind.any(|one| self.is_asked(&one.role))
    }

    /// Whether every role that may be of these kinds is known, so that its nodes can be counted.
    pub(super) fn is_complete(&self, kinds: &[ServiceKind]) -> bool {
        !self.unread.iter().any(|unread| unread.kind.is_none_or(|kind| kinds.contains(&kind)))
    }
}
