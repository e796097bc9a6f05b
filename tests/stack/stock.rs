//! The stock recipes and their conf, in a project whose artifacts are the real services where they can be had, and
//! stand-ins of the same form where they cannot.
//!
//! Changed in the stock files is only: what artifacts are called; the analyzer plugin, which is in no registry; limits
//! and capabilities, which a test may not give; and that no service listens on 127.0.0.1 beside its node's address,
//! because the nodes here share that.

use std::fs;
use std::path::Path;

use crate::support::elastic::artifacts;
use crate::support::fetch;
use crate::support::kafka;
use crate::support::project::{Project, copy_tree, file, have, skip};
use crate::support::python::{self, CURATOR, ELASTALERT};
use crate::support::redis::program;

pub(crate) const ELASTICSEARCH: &str = "6.7.0";
const JRE: &str = "11.0.13.1";
/// The oldest that the module proxy has with all it needs.
pub(crate) const BEATS: &str = "7.17.28";

/// Kafka's own script is not in the Java registry.
const KAFKA_START: &str = "#!/bin/sh
exec \"$JAVA_HOME/bin/java\" $KAFKA_HEAP_OPTS $KAFKA_OPTS -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
-Dlog4j.configuration=\"file:$(dirname \"$1\")/log4j.properties\" -Dkafka.logs.dir=\"$LOG_DIR\" \
-cp \"$(dirname \"$0\")/../libs/*\" kafka.Kafka \"$@\"
";

/// Nor is ZooKeeper's. Debian's jar names the jars that it needs.
const ZOOKEEPER_START: &str = "#!/bin/sh
exec \"$JAVA_HOME/bin/java\" $SERVER_JVMFLAGS -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote -Dzookeeper.log.dir=\"$ZOO_LOG_DIR\" \
-cp \"$(dirname \"$0\")/../lib/*\" org.apache.zookeeper.server.quorum.QuorumPeerMain \"$ZOOCFGDIR/zoo.cfg\"
";

/// A server that answers where Kibana and the beats do, and is up when the Elasticsearch that its conf names is.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import http.server, json, re, socketserver, sys, urllib.request
text = "".join(open(sys.argv[at + 1]).read() for at, word in enumerate(sys.argv) if word == "-c")
def of(*keys):
    for key in keys:
        found = re.search(r'^' + re.escape(key) + r':\s*"?([^"\n]+)"?', text, re.M)
        if found: return found.group(1)
hosts = re.findall(r'"(http://[^"]+)"', text)
def up(url):
    try: return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError: return False
class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        good = "server.port" not in text or any(up(url) for url in hosts)
        body = json.dumps({"status": {"overall": {"state": "green" if good else "red"}}}).encode()
        self.send_response(200 if good else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer): daemon_threads = True
Server((of("server.host", "http.host"), int(of("server.port", "http.port"))), Answer).serve_forever()
"#;

/// nginx in front of the nodes that hold the newest data, for clients that write.
const SITE: &str = r#"upstream elastic {
{%- for n in nodes_with("elasticsearch-hot") %}
    server {{ n.address }}:{{ vars.hot_http_port }} max_fails=1 fail_timeout=1s;
{%- endfor %}
}
server {
    listen {{ node.address }}:8080;
    location / {
        proxy_pass http://elastic;
        proxy_connect_timeout 1s;
        proxy_next_upstream error timeout http_502 http_503;
    }
}
"#;

/// What runs as Filebeat, Metricbeat and Heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beats {
    /// Servers that answer on the beats' ports.
    StandIns,
    /// The beats themselves, built from their module the first time, which takes minutes and 4 GB. One that cannot
    /// be built is reported as skipped, and has a stand-in.
    Real,
}

/// A project with all artifacts; `None` if this machine lacks one, which is reported.
pub(crate) fn project(beats: Beats) -> Option<Project> {
    if ["java", "redis-server", "redis-cli", "python3"].iter().any(|name| !have(name)) {
        return None;
    }
    let zookeeper = Path::new("/usr/share/java/zookeeper.jar");
    let nginx = Path::new("/usr/sbin/nginx");
    if let Some(lacks) = [zookeeper, nginx].iter().find(|path| !path.is_file()) {
        skip(&format!("{} is not installed", lacks.display()));
        return None;
    }
    let project = Project::empty();
    artifacts(&project, ELASTICSEARCH)?;
    let Some(jars) = kafka::jars() else {
        skip("Kafka's jars cannot be had");
        return None;
    };
    stock(&project);
    let mut broker = kafka::packed(&jars, "kafka_2.13-3.7.2/libs");
    // The same jars hold ZooKeeper, but what runs is Debian's, as people have it who install that.
    broker.push(file("kafka_2.13-3.7.2/bin/kafka-server-start.sh", 0o755, KAFKA_START));
    project.artifact("kafka_2.13-3.7.2.tgz", &broker);
    let members = [
        file("zookeeper-3.8.0/bin/zkServer.sh", 0o755, ZOOKEEPER_START),
        file("zookeeper-3.8.0/lib/zookeeper.jar", 0o644, fs::read(zookeeper).unwrap()),
    ];
    project.artifact("zookeeper-3.8.0.tar.gz", &members);
    let server = program("redis-server");
    let members = [
        file("redis-7.0/bin/redis-server", 0o755, server),
        file("redis-7.0/bin/redis-cli", 0o755, program("redis-cli")),
    ];
    project.artifact("redis-7.0-linux-x86_64.tar.gz", &members);
    let members = [file("nginx-1.22/sbin/nginx", 0o755, fs::read(nginx).unwrap())];
    project.artifact("nginx-1.22-linux-x86_64.tar.gz", &members);
    let members = [file("kibana-6.7.0/bin/kibana", 0o755, STAND_IN)];
    project.artifact("kibana-6.7.0-linux-x86_64.tar.gz", &members);
    let plugin = [file("kibana/elastalert-kibana-plugin/package.json", 0o644, "{}\n")];
    project.zip("elastalert-kibana-plugin-1.0.3-6.7.0.zip", &plugin);
    if beats == Beats::StandIns {
        println!("{}: stand-ins", BUILT.join(", "));
    }
    for name in BUILT {
        let program = if beats == Beats::Real { real_beat(name) } else { None };
        let program = program.unwrap_or_else(|| STAND_IN.into());
        let members = [file(&format!("{name}-{BEATS}/{name}"), 0o755, program)];
        project.artifact(&format!("{name}-{BEATS}-linux-x86_64.tar.gz"), &members);
    }
    let artifacts = [
        (python::curator()?, format!("elasticsearch-curator-{CURATOR}")),
        (python::elastalert()?, format!("elastalert-{ELASTALERT}")),
    ];
    for (archive, name) in artifacts {
        fs::copy(archive, project.path(&format!("install/{name}-linux-x86_64.tar.gz"))).unwrap();
    }
    Some(project)
}

/// The beats that can be built without more than Go; Packetbeat needs the headers of libpcap.
const BUILT: [&str; 3] = ["filebeat", "metricbeat", "heartbeat"];

/// Whether a beat was built.
pub(crate) fn has_beat(beat: &str) -> bool {
    fetch::has(&format!("{beat}-{BEATS}"), ".built")
}

/// A beat itself, built from its module.
fn real_beat(beat: &str) -> Option<Vec<u8>> {
    let script = format!(
        "set -e; exec >&2; dir=$(GOFLAGS=-mod=mod go mod download -json github.com/elastic/beats/v7@v{BEATS} | \
         sed -n 's/.*\"Dir\": \"\\(.*\\)\".*/\\1/p')\n\
         cp -r \"$dir\" src; chmod -R u+w src; cd src\n\
         CGO_ENABLED=0 go build -p 2 -trimpath -ldflags '-s -w' -o ../program ./{beat}\n\
         cd ..; mv program {beat}-{BEATS}.built"
    );
    let command = ["bash", "-eo", "pipefail", "-c", &script];
    fs::read(fetch::fetch_within(1800, &format!("{beat}-{BEATS}"), ".built", &command)?).ok()
}

fn stock(project: &Project) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    copy_tree(&repository.join("conf"), &project.path("conf"));
    let roles = [
        "_beat",
        "_cluster",
        "_elasticsearch",
        "_jdk",
        "curator",
        "elastalert",
        "elasticsearch-hot",
        "elasticsearch-master",
        "elasticsearch-warm",
        "filebeat",
        "heartbeat",
        "kafka",
        "kibana",
        "metricbeat",
        "nginx",
        "redis",
        "zookeeper",
    ];
    for role in roles {
        let name = format!("recipes/{role}.toml");
        // Whoever tests may not be allowed to raise limits.
        let text = fs::read_to_string(repository.join(&name)).unwrap();
        let kept = text
            .lines()
            .filter(|line| !line.starts_with("limits = ") && !line.starts_with("capabilities = "));
        project.write(&name, &(kept.collect::<Vec<_>>().join("\n") + "\n"));
    }
    project.write(
        "windlass.toml",
        &format!(
            "schema = 1\nname = \"old-stack\"\n[versions]\nelasticsearch = \"{ELASTICSEARCH}\"\njdk = \"{JRE}\"\n\
             kafka = \"3.7.2\"\nscala = \"2.13\"\nzookeeper = \"3.8.0\"\nredis = \"7.0\"\nnginx = \"1.22\"\n\
             kibana = \"6.7.0\"\nelastalert_plugin = \"1.0.3\"\nbeats = \"{BEATS}\"\ncurator = \"{CURATOR}\"\n\
             elastalert = \"{ELASTALERT}\"\n"
        ),
    );
    // What artifacts are called.
    let jdk = "artifact = \"jdk-{{ versions.jdk }}_linux-x64_bin.tar.gz\"\n";
    let jre = "artifact = \"jre-{{ versions.jdk }}.whl\"\nformat = \"zip\"\nstrip = 2\ninclude = [\"**\"]\n";
    project.edit("recipes/_jdk.toml", jdk, jre);
    let elastic = "recipes/_elasticsearch.toml";
    project.edit(
        elastic,
        "elasticsearch-{{ versions.elasticsearch }}.tar.gz",
        "elasticsearch-{{ versions.elasticsearch }}.zip",
    );
    let text = project.read(elastic);
    let (before, after) = text.split_once("[[unpack]]\nartifact = \"elasticsearch-analysis-ik").unwrap();
    let after = after.split_once("\n\n").unwrap().1;
    project.write(elastic, &format!("{before}{after}"));
    // One machine's 127.0.0.1 is all nodes'.
    project.edit(
        "conf/elasticsearch/elasticsearch.yml",
        "[{{ node.address | tojson }}, \"_local_\"]",
        "{{ node.address | tojson }}",
    );
    project.edit(
        "conf/redis/redis.conf",
        "{{ \"\" if node.address == \"127.0.0.1\" else \" 127.0.0.1\" }}",
        "",
    );
    project.edit("conf/nginx/nginx.conf", "        listen 127.0.0.1:{{ vars.nginx_status_port }};\n", "");
    project.edit(
        "conf/nginx/sites/kibana.conf",
        "listen {{ vars.nginx_port }}",
        "listen {{ node.address }}:{{ vars.nginx_port }}",
    );
    let own = "clientPort={{ vars.zookeeper_port }}\nclientPortAddress={{ node.address }}\nadmin.enableServer=false\n";
    project.edit("conf/zookeeper/zoo.cfg", "clientPort={{ vars.zookeeper_port }}\n", own);
    // A small heap, and a disk as full as it is.
    let append = |name: &str, line: &str| project.write(name, &format!("{}\n{line}\n", project.read(name)));
    append("conf/kafka/server.properties", "log.cleaner.dedupe.buffer.size=2097152");
    let disk = "cluster.routing.allocation.disk.threshold_enabled: false";
    append("conf/elasticsearch/elasticsearch.yml", disk);
    // The way in, and quicker starts.
    project.write("conf/nginx/sites/elastic.conf", SITE);
    project.edit(
        "recipes/nginx.toml",
        "\"sites/kibana.conf\"]",
        "\"sites/kibana.conf\", \"sites/elastic.conf\"]",
    );
    append(
        "conf/elasticsearch/jvm.options",
        "-XX:TieredStopAtLevel=1\n-XX:+UnlockDiagnosticVMOptions\n-XX:-BytecodeVerificationRemote",
    );
}
