//! A project with one role on several local nodes, each with an address of its own, so that all have the service's
//! usual ports.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::elastic::tell_steps;
use crate::support::net::{Net, SAME_PORTS};
use crate::support::project::Project;

/// Nodes `n1`, `n2`, ... on this machine, all with one role.
pub(crate) struct Lab {
    pub(crate) project: Project,
    pub(crate) net: Net,
    /// Their names.
    pub(crate) nodes: Vec<String>,
    role: String,
    /// The service's ports, each with its name.
    ports: Vec<(&'static str, u16)>,
}

impl Lab {
    /// `count` nodes with `role`, and a var `<name>_port` for each port.
    pub(crate) fn new(role: &str, count: usize, ports: &[(&'static str, u16)]) -> Self {
        let nodes = (1..=count).map(|n| format!("n{n}")).collect();
        let lab = Self {
            project: Project::empty(),
            net: Net::claim(),
            nodes,
            role: role.to_owned(),
            ports: ports.to_vec(),
        };
        lab.cluster("", "");
        lab
    }

    /// Writes cluster.toml with further lines of `[rollout]`, and lines before it.
    pub(crate) fn cluster(&self, rollout: &str, more: &str) {
        let mut text = format!(
            "schema = 1\nname = \"lab\"\n{more}\n[rollout]\nmin_healthy = \"100ms\"\nprogress_deadline = \"2m\"\n"
        );
        if !rollout.contains("gate_timeout") {
            text.push_str("gate_timeout = \"90s\"\n");
        }
        text.push_str(rollout);
        let ports: Vec<String> =
            self.ports.iter().map(|(name, port)| format!("{name}_port = {port}")).collect();
        let ports = ports.join(", ");
        for (n, node) in (1..).zip(&self.nodes) {
            let (address, root) = (self.net.ip(n), self.project.path(node));
            let _ = write!(
                text,
                "\n[nodes.{node}]\ntransport = \"local\"\naddress = \"{address}\"\nroot = \"{}\"\nroles = [\"{}\"]\n\
                 vars = {{ id = {n}, {ports} }}\n",
                root.display(),
                self.role,
            );
        }
        let _ = write!(text, "\n[lints]\n{SAME_PORTS}");
        self.project.write("cluster.toml", &text);
    }

    /// Where a node listens on the port of that name.
    pub(crate) fn at(&self, node: &str, name: &str) -> SocketAddr {
        let (_, port) = self.ports.iter().find(|(known, _)| *known == name).unwrap();
        let n = self.nodes.iter().position(|known| known == node).unwrap();
        self.net.at(u8::try_from(n + 1).unwrap(), *port)
    }

    /// The same of all nodes, in their order.
    pub(crate) fn all(&self, name: &str) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| self.at(node, name)).collect()
    }

    /// Runs a rollout, which has to exit with `code`, and returns its events.
    pub(crate) fn rollout(&self, code: i32, arguments: &[&str]) -> Vec<Value> {
        let run = self.project.json(arguments).exits(code);
        tell_steps(&run.stdout);
        let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.last().unwrap()["event"], "rollout-finished", "{}", run.stdout);
        events
    }
}

/// The nodes for which a step was started, in that order.
pub(crate) fn nodes_of(events: &[Value], step: &str) -> Vec<String> {
    let of_step = |event: &&Value| event["event"] == "step-started" && event["step"] == step;
    events.iter().filter(of_step).map(|event| event["node"].as_str().unwrap().to_owned()).collect()
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _stopped = self.project.command(&["service", "stop"]).output();
        if std::thread::panicking() {
            for node in &self.nodes {
                let logs = self.project.path(&format!("{node}/roles/{}/shared/logs", self.role));
                for entry in std::fs::read_dir(logs).into_iter().flatten().flatten() {
                    let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    let tail = text.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
                    eprintln!("--- {}\n{}", entry.path().display(), &text[tail..]);
                }
            }
        }
    }
}
