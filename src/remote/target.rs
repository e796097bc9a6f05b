//! From a node of cluster.toml to what the transport connects to.

use crate::inventory::{Node, Reach};
use crate::transport::{SshTarget, Target, Via};

/// What the transport needs to know of a node.
pub fn target(node: &Node) -> Target {
    let via = match &node.reach {
        Reach::Local => Via::Local,
        Reach::Ssh(ssh) => Via::Ssh(SshTarget {
            host: node.address.clone(),
            port: ssh.port,
            user: ssh.user.clone(),
            identity: ssh.identity.clone(),
            jump: ssh.jump.clone(),
            known_hosts: ssh.known_hosts.clone(),
            accept_new: ssh.accept_new,
        }),
    };
    Target { node: node.name.to_string(), via }
}
