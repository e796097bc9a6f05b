//! Which nodes and roles a command is about: `--role` and `--nodes`.

use super::cluster::{Cluster, Node};
use crate::model::{Role, nearest};

/// A node and those of its roles that were asked for.
#[derive(Clone, Debug)]
pub struct Selected<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its roles, by name; at least one, unless the node has none and was asked for by name.
    pub roles: Vec<&'a Role>,
}

/// Why nothing can be selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// No node runs the role.
    #[error("no node runs role `{role}`")]
    Role {
        /// The role.
        role: String,
        /// Roles with names like it.
        near: Vec<String>,
        /// All roles.
        valid: Vec<String>,
    },
    /// There is no such node.
    #[error("there is no node `{node}`")]
    Node {
        /// The name or address.
        node: String,
        /// Names like it.
        near: Vec<String>,
        /// All names.
        valid: Vec<String>,
    },
    /// Both exist, but not together.
    #[error("none of the nodes {} runs {}", .nodes.join(", "), .roles.join(" or "))]
    Nothing {
        /// The nodes asked for.
        nodes: Vec<String>,
        /// The roles asked for.
        roles: Vec<String>,
    },
}

impl SelectionError {
    /// What to write instead, a line each.
    pub fn help(&self) -> Vec<String> {
        let (near, valid, kind) = match self {
            Self::Role { near, valid, .. } => (near, valid, "roles"),
            Self::Node { near, valid, .. } => (near, valid, "nodes"),
            Self::Nothing { .. } => return vec!["leave out --nodes or --role".to_owned()],
        };
        let mut help = Vec::new();
        if !near.is_empty() {
            help.push(format!("did you mean `{}`?", near.join("` or `")));
        }
        help.push(format!("valid {kind}: {}", valid.join(", ")));
        help
    }
}

impl Cluster {
    /// The nodes and roles asked for, by name; an empty list asks for all.
    ///
    /// All unknown names are told at once. Nodes may be given by name or address.
    pub fn select(&self, roles: &[Role], nodes: &[String]) -> Result<Vec<Selected<'_>>, Vec<SelectionError>> {
        let mut errors: Vec<SelectionError> = Vec::new();
        let known = self.roles();
        errors.extend(roles.iter().filter(|role| !known.contains(role)).map(|role| SelectionError::Role {
            role: role.to_string(),
            near: near(role.as_str(), known.iter().map(|role| role.as_str())),
            valid: known.iter().map(ToString::to_string).collect(),
        }));
        let mut wanted: Vec<&Node> = Vec::new();
        for name in nodes {
            match self.find(name) {
                Some(node) => wanted.push(node),
                None => errors.push(SelectionError::Node {
                    node: name.clone(),
                    near: near(name, self.nodes.iter().map(|node| node.name.as_str())),
                    valid: self.nodes.iter().map(|node| node.name.to_string()).collect(),
                }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let is_wanted = |node: &&Node| nodes.is_empty() || wanted.iter().any(|one| one.name == node.name);
        let selected: Vec<Selected<'_>> = self
            .nodes
            .iter()
            .filter(is_wanted)
            .map(|node| Selected { node, roles: of_node(node, roles) })
            .filter(|selected| roles.is_empty() || !selected.roles.is_empty())
            .collect();
        if selected.is_empty() && !roles.is_empty() {
            return Err(vec![SelectionError::Nothing {
                nodes: wanted.iter().map(|node| node.name.to_string()).collect(),
                roles: roles.iter().map(ToString::to_string).collect(),
            }]);
        }
        Ok(selected)
    }
}

fn of_node<'a>(node: &'a Node, roles: &[Role]) -> Vec<&'a Role> {
    node.roles.iter().filter(|role| roles.is_empty() || roles.contains(role)).collect()
}

fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    nearest(wanted, names).into_iter().map(str::to_owned).collect()
}
