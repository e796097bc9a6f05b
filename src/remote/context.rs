//! What a node's templates see, from cluster.toml.

use std::collections::BTreeMap;

use crate::agent::{ClusterContext, Context, NodeContext, NodeStatus};
use crate::inventory::{Cluster, Node};
use crate::model::{Role, Supervision};
use crate::recipe::ServiceKind;

/// What templates see on `node`; `forming` says that no node has run the role yet.
pub fn context(cluster: &Cluster, node: &Node, forming: bool) -> Context {
    let mut vars = cluster.vars.clone();
    vars.extend(node.vars.clone());
    let mut nodes: BTreeMap<String, Vec<NodeContext>> = BTreeMap::new();
    for other in &cluster.nodes {
        for role in &other.roles {
            nodes.entry(role.to_string()).or_default().push(seen(other));
        }
    }
    let cluster = ClusterContext { name: cluster.name.clone(), forming };
    let supervisor = Supervision { kind: node.supervisor, config: node.supervisor_config.clone() };
    Context { vars, node: seen(node), cluster, nodes, supervisor }
}

/// A node, as templates see it.
fn seen(node: &Node) -> NodeContext {
    NodeContext {
        name: node.name.to_string(),
        address: node.address.clone(),
        zone: node.zone.clone(),
        vars: node.vars.clone(),
    }
}

/// Whether a node runs the role, or has run it: where none has, the role is forming.
fn has_run(status: &NodeStatus, role: &Role) -> bool {
    let good = |role: &crate::agent::RoleStatus| role.staged.iter().any(|staged| staged.good);
    status.roles.iter().any(|one| one.role == *role && (one.release.is_some() || good(one)))
}

/// The same of what the role is part of: nodes of a new role join a cluster that others have formed. That one of
/// them was once confirmed says that it has.
pub fn has_formed(status: &NodeStatus, role: &Role, kind: Option<ServiceKind>) -> bool {
    let is_good = |one: &crate::agent::RoleStatus| one.staged.iter().any(|staged| staged.good);
    let joint = kind.filter(|kind| kind.is_joint());
    has_run(status, role)
        || joint.is_some_and(|kind| status.roles.iter().any(|one| one.kind == Some(kind) && is_good(one)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::read_cluster;
    use crate::recipe::Source;

    #[test]
    fn a_nodes_vars_win_and_peers_are_sorted() {
        let text = r#"
schema = 1
name = "prod"
vars = { heap = "1g", port = 9200 }
[nodes.b]
address = "10.0.0.2"
roles = ["kafka"]
vars = { heap = "2g" }
[nodes.a]
address = "10.0.0.1"
zone = "rack-a"
roles = ["kafka", "nginx"]
"#;
        let cluster = read_cluster(&Source::new("cluster.toml", text), &BTreeMap::new()).unwrap();
        let context = context(&cluster, cluster.find("b").unwrap(), true);
        assert_eq!((&context.vars["heap"], &context.vars["port"]), (&"2g".into(), &9200.into()));
        assert_eq!(context.node.vars.len(), 1);
        let peers: Vec<&str> = context.nodes["kafka"].iter().map(|node| node.address.as_str()).collect();
        assert_eq!((peers, context.nodes["nginx"].len()), (vec!["10.0.0.1", "10.0.0.2"], 1));
        assert!(context.cluster.forming && context.cluster.name == "prod");
    }
}
