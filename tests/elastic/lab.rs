//! A project with Elasticsearch, or `OpenSearch`, of several versions, and a cluster of three nodes on this machine,
//! each with an address of its own: a hot and a warm one with data, and a dedicated master. All three are eligible.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::elastic::opensearch;
use crate::support::elastic::{Killed, Nodes, artifacts_of, finished, jre};
use crate::support::net::{Net, SAME_PORTS};
use crate::support::project::Project;
use crate::support::sshd::Sshd;

pub(crate) const TIERS: [&str; 3] = ["hot", "warm", "master"];

pub(crate) const RECIPE: &str = r#"schema = 1
version = "{{ versions.elasticsearch }}-{{ build }}"

[[unpack]]
artifact = "elasticsearch-{{ versions.elasticsearch }}.zip"
into = "elasticsearch"

[[unpack]]
artifact = "jre-{{ versions.jre }}.whl"
format = "zip"
into = "jre"
strip = 2
include = ["**"]

[[conf]]
from = "elasticsearch"
into = "elasticsearch/config"
render = ["elasticsearch.yml", "jvm.options"]

[[persist]]
name = "data"

[[scratch]]                         # it writes its keystore there
at = "elasticsearch/config"

[[scratch]]
at = "tmp"

[vars]
user = "nobody"
heap = "320m"

[service]
kind = "elasticsearch"
user = "{{ vars.user }}"
start = ["elasticsearch/bin/elasticsearch"]
stop = { signal = "TERM", timeout = "60s" }

[service.env]
JAVA_HOME = "{{ release }}/jre"
ES_JAVA_HOME = "{{ release }}/jre"
ES_PATH_CONF = "{{ release }}/elasticsearch/config"
ES_TMPDIR = "{{ release }}/tmp"

[service.api]
port = "{{ vars.http_port }}"
"#;

const ROLE: &str = "schema = 1\nextends = \"_elasticsearch\"\n";

const COMMON_YML: &str = "cluster.name: {{ cluster.name }}
node.name: {{ node.name }}
node.attr.box_type: {{ vars.tier }}
path.data: {{ shared }}/data
path.logs: {{ shared }}/logs
network.host: {{ node.address }}
http.port: {{ vars.http_port }}
cluster.routing.allocation.disk.threshold_enabled: false
";

pub(crate) const JVM_OPTIONS: &str = "-Xms{{ vars.heap }}
-Xmx{{ vars.heap }}
-XX:+UseSerialGC
-XX:TieredStopAtLevel=1
-XX:+UnlockDiagnosticVMOptions
-XX:-BytecodeVerificationRemote
-Djava.awt.headless=true
-Dfile.encoding=UTF-8
-Djna.nosys=true
-Dio.netty.noUnsafe=true
-Dio.netty.noKeySetOptimization=true
-Dio.netty.recycler.maxCapacityPerThread=0
-Dlog4j.shutdownHookEnabled=false
-Dlog4j2.disable.jmx=true
-Djava.io.tmpdir={{ release }}/tmp
";

/// A text about Elasticsearch, said of a product.
pub(crate) fn of(product: &str, text: &str) -> String {
    if product == "elasticsearch" {
        return text.to_owned();
    }
    text.replace("elasticsearch", product).replace("\nES_", &format!("\n{}_", product.to_uppercase()))
}

/// A project and a cluster.
pub(crate) struct Lab {
    pub(crate) project: Project,
    /// `elasticsearch` or `opensearch`.
    product: &'static str,
    net: Net,
    /// The tier of each node.
    tiers: Vec<&'static str>,
    /// Lines for `[rollout]`.
    rollout: String,
    sshd: Option<Sshd>,
}

/// `[secrets]` of a service with a password and TLS.
pub(crate) const SECRETS: &str =
    "es_password = { file = \"password\" }\nhttp_key = { file = \"certs/http.key\" }\n";

/// Where every node answers.
pub(crate) const HTTP: u16 = 9200;
const TRANSPORT: u16 = 9300;

/// The cluster file of one node with one role, at the first address of a network.
pub(crate) fn lone(project: &Project, net: &Net, role: &str, secrets: &str, gate_timeout: &str, vars: &str) {
    let address = net.ip(1);
    let dir = project.dir.display();
    project.write(
        "cluster.toml",
        &format!(
            "schema = 1\nname = \"lone\"\n[secrets]\n{secrets}[rollout]\nmin_healthy = \"200ms\"\n\
             gate_timeout = \"{gate_timeout}\"\n[nodes.n1]\naddress = \"{address}\"\ntransport = \"local\"\n\
             root = \"{dir}/n1\"\nroles = [\"{role}\"]\n\
             vars = {{ http_port = {HTTP}, transport_port = {TRANSPORT}{vars} }}\n\n[lints]\n{SAME_PORTS}"
        ),
    );
}

impl Lab {
    /// A project that has these versions, `None` where one cannot be had.
    pub(crate) fn new(versions: &[&str]) -> Option<Self> {
        Self::of("elasticsearch", versions)
    }

    /// The same, of `opensearch` too.
    pub(crate) fn of(product: &'static str, versions: &[&str]) -> Option<Self> {
        let project = Project::empty();
        for version in versions {
            artifacts_of(&project, product, version)?;
        }
        // The service's user has to get to its release.
        fs::set_permissions(&project.dir, fs::Permissions::from_mode(0o755)).unwrap();
        project.write(&format!("recipes/_{product}.toml"), &of(product, RECIPE));
        for tier in TIERS {
            project.write(&format!("recipes/{product}-{tier}.toml"), &of(product, ROLE));
        }
        let lab = Self {
            project,
            product,
            net: Net::claim(),
            tiers: TIERS.to_vec(),
            rollout: String::new(),
            sshd: None,
        };
        lab.write_cluster();
        Some(lab)
    }

    /// The same, with every node behind a real sshd, which listens on all their addresses.
    pub(crate) fn over_ssh(mut self) -> Self {
        let addresses = [1, 2, 3].map(|n| self.net.ip(n));
        let listen = addresses.map(|address| format!("ListenAddress {address}\n")).concat();
        let sshd = Sshd::start_with(&self.project.path("sshd"), &listen);
        let key = fs::read_to_string(sshd.host_key().with_extension("pub")).unwrap();
        let known = addresses.map(|address| format!("[{address}]:{} {key}", sshd.port)).concat();
        self.project.write("known_hosts", &known);
        self.sshd = Some(sshd);
        self.write_cluster();
        self
    }

    /// Adds a node to cluster.toml.
    pub(crate) fn grow(&mut self, tier: &'static str) {
        self.tiers.push(tier);
        self.write_cluster();
    }

    pub(crate) fn rollout(&mut self, lines: &str) {
        lines.clone_into(&mut self.rollout);
        self.write_cluster();
    }

    fn write_cluster(&self) {
        let root = rustix::process::geteuid().is_root();
        let me = std::env::var("USER").unwrap_or_else(|_| rustix::process::geteuid().as_raw().to_string());
        let user = if root { "nobody" } else { &me };
        let dir = self.project.dir.display();
        let ssh = self.sshd.as_ref().map_or(String::new(), |sshd| {
            format!(
                "[ssh]\nport = {}\nidentity = \"{}\"\nknown_hosts = \"{dir}/known_hosts\"\n",
                sshd.port,
                sshd.client_key().display()
            )
        });
        let transport = if self.sshd.is_some() { "" } else { "transport = \"local\"\n" };
        let mut text = format!(
            "schema = 1\nname = \"real\"\n{ssh}\n[vars]\nuser = \"{user}\"\nhttp_port = {HTTP}\n\
             transport_port = {TRANSPORT}\n\n[rollout]\nmin_healthy = \"200ms\"\n\
             gate_timeout = \"3m\"\nprogress_deadline = \"3m\"\ncanary = 0\n{}\n",
            self.rollout
        );
        for (n, tier) in (1..).zip(&self.tiers) {
            let node = format!(
                "\n[nodes.n{n}]\naddress = \"{}\"\nroot = \"{dir}/n{n}\"\n{transport}\
                 roles = [\"{}-{tier}\"]\n\
                 vars = {{ tier = \"{tier}\", data = {} }}\n",
                self.net.ip(n),
                self.product,
                *tier != "master",
            );
            text += &node;
        }
        // The machine may be short of space; from 7 on the conf always names the first masters.
        let _ = write!(text, "\n[lints]\nE109 = \"allow\"\nE120 = \"allow\"\n{SAME_PORTS}");
        self.project.write("cluster.toml", &text);
    }

    /// Builds a version, with further lines of conf.
    pub(crate) fn build(&self, version: &str, more: &str) {
        let jre = jre(version);
        self.project.write(
            "windlass.toml",
            &format!(
                "schema = 1\nname = \"real\"\n[versions]\n{} = \"{version}\"\njre = \"{jre}\"\n",
                self.product
            ),
        );
        let all = (1..).zip(&self.tiers).map(|(n, _)| self.net.at(n, TRANSPORT));
        let seeds: Vec<String> = all.map(|address| format!("\"{address}\"")).collect();
        let seeds = seeds.join(", ");
        let six = version.starts_with("6.");
        let own = if self.product == "opensearch" {
            opensearch::yml(version, &seeds)
        } else if six {
            format!(
                "transport.tcp.port: {{{{ vars.transport_port }}}}\nnode.master: true\n\
                 node.data: {{{{ vars.data }}}}\ndiscovery.zen.ping.unicast.hosts: [{seeds}]\n\
                 discovery.zen.minimum_master_nodes: 2\ndiscovery.zen.ping_timeout: 1s\n\
                 bootstrap.system_call_filter: false\n"
            )
        } else {
            let secured = if version == "7.17.0" { "" } else { "xpack.security.enabled: false\n" };
            // As people's conf has it who only ever formed the cluster once.
            let initial = if version.starts_with("9.") {
                ""
            } else {
                "{% if cluster.forming %}cluster.initial_master_nodes: [n1, n2, n3]\n{% endif %}"
            };
            format!(
                "transport.port: {{{{ vars.transport_port }}}}\n\
                 node.roles: [master{{% if vars.data %}}, data, ingest{{% endif %}}]\n\
                 discovery.seed_hosts: [{seeds}]\n{initial}{secured}"
            )
        };
        let conf = |name: &str| of(self.product, &format!("conf/elasticsearch/{name}"));
        self.project.write(&conf("elasticsearch.yml"), &format!("{COMMON_YML}{own}{more}"));
        let own = match self.product {
            "opensearch" => opensearch::jvm_options(version),
            _ if six => "-Djava.locale.providers=COMPAT\n",
            _ => "",
        };
        self.project.write(&conf("jvm.options"), &format!("{JVM_OPTIONS}{own}"));
        self.project.build();
    }

    /// Runs a command that has to end with that code, and gives the last line of its rollout.
    pub(crate) fn rolls(&self, code: i32, args: &[&str]) -> Value {
        let run = self.project.json(args);
        if run.code != Some(code) {
            self.logs();
        }
        finished(&run.exits(code))
    }

    fn logs(&self) {
        for (index, tier) in self.tiers.iter().enumerate() {
            let n = index + 1;
            let dir = self.project.path(&format!("n{n}/roles/{}-{tier}/shared/logs", self.product));
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(25).collect();
                for line in tail.iter().rev() {
                    eprintln!("n{n} {}: {line}", entry.file_name().display());
                }
            }
        }
    }

    /// The nodes' HTTP.
    pub(crate) fn nodes(&self) -> Nodes {
        Nodes((1..).zip(&self.tiers).map(|(n, _)| self.net.at(n, HTTP)).collect::<Vec<SocketAddr>>())
    }

    /// Asks a node.
    pub(crate) fn ask(&self, node: usize, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        self.nodes().ask(node, method, path, body)
    }

    /// Sends a GET to the first node that answers, until the answer is a 2xx.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.nodes().get(path)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        self.nodes().send(method, path, body)
    }

    /// The versions that answer.
    pub(crate) fn versions(&self) -> Vec<String> {
        let nodes = self.get("/_nodes?filter_path=nodes.*.version,nodes.*.name");
        let mut versions: Vec<(String, String)> = nodes["nodes"]
            .as_object()
            .unwrap()
            .values()
            .map(|one| (one["name"].as_str().unwrap().into(), one["version"].as_str().unwrap().into()))
            .collect();
        versions.sort();
        versions.into_iter().map(|(_, version)| version).collect()
    }

    /// Every setting of the cluster, of both scopes.
    pub(crate) fn settings(&self) -> Value {
        self.get("/_cluster/settings?flat_settings=true")
    }

    /// An index with a replica, its shards on both data nodes.
    pub(crate) fn index(&self) {
        let body = json!({"settings": {"number_of_shards": 3, "number_of_replicas": 1}});
        self.send("PUT", "/docs", &body);
        self.get("/_cluster/health?wait_for_status=green&timeout=20s");
    }

    /// Starts a command; what it says goes to a file.
    pub(crate) fn spawn(&self, args: &[&str]) -> Killed {
        let said = fs::File::create(self.project.path("said")).unwrap();
        let mut command = self.project.command(args);
        command.args(["--format", "json"]).stdout(said.try_clone().unwrap()).stderr(said);
        Killed(command.spawn().unwrap())
    }

    /// Waits until `holds`.
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_mins(2);
        while !holds() {
            assert!(Instant::now() < until, "never: {what}: {}", self.project.read("said"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills a command as soon as it has changed who may be given shards.
    pub(crate) fn kill_in_the_middle(&self, args: &[&str]) {
        let child = self.spawn(args);
        self.until("a setting is changed", || {
            let is_set = |node| {
                let settings = self.ask(node, "GET", "/_cluster/settings?flat_settings=true", "");
                settings.is_some_and(|(_, body)| body.to_string().contains("\"primaries\""))
            };
            (0..3).any(is_set)
        });
        child.kill();
    }

    /// The pid of a node's service.
    pub(crate) fn pid(&self, node: usize) -> i32 {
        let status = self.project.json(&["status"]).json();
        let pid = status["nodes"][node]["roles"][0]["pid"].as_i64().unwrap();
        i32::try_from(pid).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (index, tier) in self.tiers.iter().enumerate() {
            let root = self.project.path(&format!("n{}", index + 1));
            let role = format!("{}-{tier}", self.product);
            let args = ["node", "service", "stop", &role, "--root", root.to_str().unwrap()];
            let _stopped = self.project.command(&args).output();
        }
    }
}
