//! Four nodes es1 to es4 on this machine, each with an address of its own, so that every service has its usual port on
//! each of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stack::stock::{self, Beats};
use crate::support::elastic::{Nodes, finished};
use crate::support::net::{Net, SAME_PORTS};
use crate::support::old_stack::{ORDER, Shape};
use crate::support::project::Project;

/// As few of each as show how they go together: two data nodes on one machine, three that may be elected.
pub(crate) const SMALL: Shape = [
    ("rack-a", &["elasticsearch-hot", "zookeeper", "redis", "filebeat"]),
    ("rack-b", &["elasticsearch-hot", "elasticsearch-warm", "zookeeper", "redis", "nginx"]),
    ("rack-a", &["elasticsearch-hot", "zookeeper", "nginx"]),
    ("rack-b", &["kafka", "kibana", "elastalert", "curator", "filebeat"]),
];

pub(crate) struct Lab {
    pub(crate) project: Project,
    pub(crate) shape: Shape,
    net: Net,
}

impl Lab {
    /// The project and its cluster file; `None` if this machine lacks something.
    pub(crate) fn new(shape: Shape, beats: Beats) -> Option<Self> {
        let project = stock::project(beats)?;
        // Services' users have to get to their releases.
        fs::set_permissions(&project.dir, fs::Permissions::from_mode(0o755)).unwrap();
        let lab = Self { project, shape, net: Net::claim() };
        lab.cluster("role", "");
        Some(lab)
    }

    /// Writes cluster.toml: rolled by role or by node, with further lines of `[vars]`.
    pub(crate) fn cluster(&self, by: &str, vars: &str) {
        let root = rustix::process::geteuid().is_root();
        let me = std::env::var("USER").unwrap_or_else(|_| rustix::process::geteuid().as_raw().to_string());
        let has = |role: &&&str| self.shape.iter().any(|(_, roles)| roles.contains(*role));
        let order: Vec<&&str> = ORDER.iter().filter(has).collect();
        // Curator does nothing before a test sets its time.
        let curator = if vars.contains("curator_at") { "" } else { "curator_at = \"99:99\"\n" };
        let (elastic, me) = if root { ("nobody", "root") } else { (me.as_str(), me.as_str()) };
        let mut text = format!(
            "schema = 1\nname = \"old-stack\"\n\n[vars]\nheap = \"256m\"\nmemory_lock = false\nkafka_heap = \"160m\"\n\
             zookeeper_heap = \"64m\"\nkafka_protocol = \"3.7\"\nkibana_heap_mb = 64\nelasticsearch_user = \"{elastic}\"\n\
             kafka_user = \"{me}\"\nzookeeper_user = \"{me}\"\nredis_user = \"{me}\"\nnginx_user = \"{me}\"\n\
             kibana_user = \"{me}\"\nbeats_user = \"{me}\"\nelastalert_user = \"{me}\"\ncurator_user = \"{me}\"\n\
             {curator}{vars}\n\n[rollout]\nby = \"{by}\"\norder = {order:?}\n\
             canary = 0\nmin_healthy = \"100ms\"\ngate_timeout = \"3m\"\nprogress_deadline = \"3m\"\n"
        );
        for (index, (zone, roles)) in self.shape.iter().enumerate() {
            let n = index + 1;
            let (address, root) = (self.address(n), self.project.path(&format!("es{n}")));
            let _ = write!(
                text,
                "\n[nodes.es{n}]\naddress = \"{address}\"\ntransport = \"local\"\nroot = \"{}\"\nzone = \"{zone}\"\n\
                 roles = {roles:?}\nvars = {{ zookeeper_id = {n}, broker_id = {index} }}\n",
                root.display()
            );
        }
        // As in docs/examples/cluster.toml: nothing here asks for them, and they are not set.
        text += "\n[secrets]\n";
        for name in ["elastic_password", "kibana_password", "redis_password"] {
            let _ = writeln!(text, "{name} = {{ env = \"WINDLASS_NOT_{}\" }}", name.to_uppercase());
        }
        // One disk for all, as full as it is.
        let _ = write!(text, "\n[lints]\nE120 = \"allow\"\nW120 = \"allow\"\n{SAME_PORTS}");
        self.project.write("cluster.toml", &text);
    }

    pub(crate) fn address(&self, n: usize) -> Ipv4Addr {
        self.net.ip(u8::try_from(n).unwrap())
    }

    /// Where a role's nodes answer on that port.
    pub(crate) fn at(&self, role: &str, port: u16) -> Vec<SocketAddr> {
        let has = self.shape.iter().enumerate().filter(|(_, (_, roles))| roles.contains(&role));
        has.map(|(index, _)| SocketAddr::from((self.address(index + 1), port))).collect()
    }

    /// Every Elasticsearch, of whatever tier.
    pub(crate) fn elastic(&self) -> Nodes {
        let tiers = [("hot", 9200), ("warm", 9201), ("master", 9202)];
        let all = tiers.iter().flat_map(|(tier, port)| self.at(&format!("elasticsearch-{tier}"), *port));
        Nodes(all.collect())
    }

    /// Changes conf that these roles render, in a way that none of them minds.
    pub(crate) fn change(&self, conf: &[&str], what: &str) {
        for name in conf {
            let name = format!("conf/{name}");
            let text = self.project.read(&name);
            self.project.write(&name, &format!("{text}\n# {what}\n"));
        }
        self.project.build();
    }

    /// Runs a rollout that has to end with that code: its events.
    pub(crate) fn rolls(&self, code: i32, arguments: &[&str]) -> Vec<Value> {
        let begun = Instant::now();
        let run = self.project.json(arguments);
        if run.code != Some(code) {
            self.logs();
            let failed = run.stdout.lines().filter(|line| line.contains("-failed\""));
            failed.for_each(|line| eprintln!("{line}"));
            eprintln!("{}", self.project.run(&["status"]).stdout);
            panic!("{arguments:?} ends with {:?}: {}", run.code, run.stderr);
        }
        let run = run.exits(code);
        println!("{arguments:?}: {:.1} s", begun.elapsed().as_secs_f64());
        let _ = finished(&run);
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What every service's process is, by `node role`.
    pub(crate) fn processes(&self) -> BTreeMap<String, (String, Option<i32>)> {
        let status = self.project.json(&["service", "status"]).ok().json();
        let rows = status["services"].as_array().unwrap();
        let row = |row: &Value| {
            let name = format!("{} {}", row["node"].as_str().unwrap(), row["role"].as_str().unwrap());
            let pid = row["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap());
            (name, (row["process"].as_str().unwrap().to_owned(), pid))
        };
        rows.iter().map(row).collect()
    }

    /// Waits until `status` says that everything is ready.
    pub(crate) fn all_ready(&self, within: Duration) {
        let until = Instant::now() + within;
        loop {
            let status = self.project.json(&["status"]).json();
            let roles =
                status["nodes"].as_array().unwrap().iter().flat_map(|node| node["roles"].as_array().unwrap());
            let not: Vec<&Value> = roles.filter(|role| role["ready"] != true).collect();
            if not.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "not ready: {not:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The end of every log, on standard error.
    pub(crate) fn logs(&self) {
        for (index, (_, roles)) in self.shape.iter().enumerate() {
            for role in *roles {
                let dir = self.project.path(&format!("es{}/roles/{role}/shared/logs", index + 1));
                for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    if entry.file_name().to_string_lossy().starts_with("gc.") {
                        continue;
                    }
                    for line in &lines[lines.len().saturating_sub(12)..] {
                        eprintln!("es{} {role} {}: {line}", index + 1, entry.file_name().display());
                    }
                }
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _stopped = self.project.command(&["service", "stop"]).output();
        // A cluster file that cannot be read any more must not leave anything running.
        for (index, (_, roles)) in self.shape.iter().enumerate() {
            let root = self.project.path(&format!("es{}", index + 1));
            for role in *roles {
                let stop = ["node", "service", "stop", role, "--root", root.to_str().unwrap()];
                let _stopped = self.project.command(&stop).output();
            }
        }
    }
}
