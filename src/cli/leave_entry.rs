//! The last step of `windlass leave`: cluster.toml and the host lists without the node.
//!
//! # Invariants
//!
//! * The lists are written before cluster.toml: between the two it is still a valid one.

use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};

use super::error::{Failure, exit};
use crate::fs::{IoResultExt as _, replace};
use crate::inventory::{Cluster, list_without, lists_of, without_node, without_roles};
use crate::model::{NodeName, Role};

/// What shall be taken out.
pub(super) struct Entry<'a> {
    /// The cluster file.
    pub(super) path: Utf8PathBuf,
    pub(super) cluster: &'a Cluster,
    pub(super) node: &'a NodeName,
    /// Only these roles of it; `None` is the node.
    pub(super) roles: Option<&'a BTreeSet<Role>>,
}

/// Files with what shall be in them.
pub(super) type Files = Vec<(Utf8PathBuf, String)>;

impl Entry<'_> {
    /// Which files change, and to what; nothing is written.
    pub(super) fn files(&self) -> Result<Files, Failure> {
        let old = std::fs::read_to_string(&self.path).at("read", &self.path)?;
        let mut files = Files::new();
        if let Some(lists) = lists_of(&old) {
            let folder = self.path.parent().unwrap_or(Utf8Path::new("")).join(lists);
            for entry in folder.read_dir_utf8().at("read", &folder)? {
                let path = entry.at("read", &folder)?.path().to_owned();
                if self.is_meant(&path) {
                    let text = std::fs::read_to_string(&path).at("read", &path)?;
                    let new = list_without(&text, self.cluster, self.node);
                    if new != text {
                        files.push((path, new));
                    }
                }
            }
        }
        let new = match self.roles {
            None => without_node(&old, self.node),
            Some(roles) => without_roles(&old, self.node, roles),
        };
        let new = new.map_err(|error| {
            let failure = Failure::new(exit::FAILED, "cluster", error.to_string());
            error.help().into_iter().fold(failure, Failure::help)
        })?;
        if new != old {
            files.push((self.path.clone(), new));
        }
        Ok(files)
    }

    fn is_meant(&self, path: &Utf8Path) -> bool {
        let role = path.file_stem().filter(|_| path.extension() == Some("list"));
        role.is_some_and(|role| {
            !role.starts_with('.')
                && self.roles.is_none_or(|roles| roles.iter().any(|one| one.as_str() == role))
        })
    }

    /// Takes it out; the files that changed.
    pub(super) fn take_out(&self) -> Result<Vec<Utf8PathBuf>, Failure> {
        let files = self.files()?;
        for (path, text) in &files {
            replace(path, text.as_bytes())?;
        }
        Ok(files.into_iter().map(|(path, _)| path).collect())
    }
}
