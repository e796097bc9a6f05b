//! A project with one role on several local nodes of 127.0.0.1, each with ports of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;

use serde_json::Value;

use crate::support::project::Project;

/// Nodes `n1`, `n2`, ... of this machine, all with one role.
pub(crate) struct Lab {
    pub(crate) project: Project,
    role: String,
    /// Ports by node, each with its name.
    pub(crate) ports: BTreeMap<String, BTreeMap<String, u16>>,
}

/// Ports that nobody has at this moment, all different.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|one| one.local_addr().unwrap().port()).collect()
}

impl Lab {
    /// `count` nodes with `role`, and a var `<name>_port` for each name.
    pub(crate) fn new(role: &str, count: usize, names: &[&str]) -> Self {
        let mut free = free_ports(count * names.len()).into_iter();
        let ports = (1..=count)
            .map(|n| {
                let of_node = names.iter().map(|name| ((*name).to_owned(), free.next().unwrap()));
                (format!("n{n}"), of_node.collect())
            })
            .collect();
        let lab = Self { project: Project::empty(), role: role.to_owned(), ports };
        lab.cluster("", "");
        lab
    }

    /// Writes cluster.toml with these further lines of [rollout], and these before it.
    pub(crate) fn cluster(&self, rollout: &str, more: &str) {
        let mut text = format!(
            "schema = 1\nname = \"lab\"\n{more}\n[rollout]\nmin_healthy = \"100ms\"\nprogress_deadline = \"2m\"\n"
        );
        if !rollout.contains("gate_timeout") {
            text.push_str("gate_timeout = \"90s\"\n");
        }
        text.push_str(rollout);
        for (index, (node, ports)) in self.ports.iter().enumerate() {
            let vars: Vec<String> =
                ports.iter().map(|(name, port)| format!("{name}_port = {port}")).collect();
            let vars = vars.join(", ");
            let root = self.project.path(node);
            let _ = write!(
                text,
                "\n[nodes.{node}]\ntransport = \"local\"\naddress = \"127.0.0.1\"\nroot = \"{}\"\nroles = [\"{}\"]\n\
                 vars = {{ id = {}, {vars} }}\n",
                root.display(),
                self.role,
                index + 1,
            );
        }
        // Three nodes on one machine.
        text.push_str("\n[lints]\nE119 = \"allow\"\n");
        self.project.write("cluster.toml", &text);
    }

    /// The port of a name on a node.
    pub(crate) fn port(&self, node: &str, name: &str) -> u16 {
        self.ports[node][name]
    }

    /// The ports of a name, in the nodes' order.
    pub(crate) fn ports_of(&self, name: &str) -> Vec<u16> {
        self.ports.values().map(|ports| ports[name]).collect()
    }

    /// Runs a rollout that has to end with this code; its events.
    pub(crate) fn rollout(&self, code: i32, arguments: &[&str]) -> Vec<Value> {
        let run = self.project.json(arguments).exits(code);
        let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.last().unwrap()["event"], "rollout-finished", "{}", run.stdout);
        events
    }
}

/// The nodes for which a step was begun, in that order.
pub(crate) fn nodes_of(events: &[Value], step: &str) -> Vec<String> {
    let of_step = |event: &&Value| event["event"] == "step-started" && event["step"] == step;
    events.iter().filter(of_step).map(|event| event["node"].as_str().unwrap().to_owned()).collect()
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _stopped = self.project.command(&["service", "stop"]).output();
        if std::thread::panicking() {
            for node in self.ports.keys() {
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
