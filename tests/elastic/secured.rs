//! A node with TLS and passwords: Elasticsearch 7.17.28, whose test distribution has that module.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::elastic::keyed::KEY;
use crate::elastic::lab::{HTTP, JVM_OPTIONS, RECIPE, SECRETS, lone};
use crate::support::elastic::{artifacts, finished, jre};
use crate::support::net::Net;
use crate::support::project::{Project, Run, have};

const VERSION: &str = "7.17.28";
pub(crate) const PASSWORD: &str = "correct-horse";
/// Of that password.
pub(crate) const HASH: &str = "$2a$10$abcdefghijklmnopqrstuuf4yQswfQRuOxajohDXdzREFVDuc.Vdy";

pub(crate) const API: &str = "tls = true\nca = \"certs/ca.pem\"\nserver_name = \"es.test\"\nuser = \"windlass\"\n\
                   password = \"es_password\"\n";

pub(crate) struct Stop<'a>(pub(crate) &'a Project);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let root = self.0.path("n1");
        for role in ["elasticsearch", "opensearch"] {
            let args = ["node", "service", "stop", role, "--root", root.to_str().unwrap()];
            let _stopped = self.0.command(&args).output();
        }
    }
}

/// An authority, and a certificate of it for `es.test`.
pub(crate) fn certificates(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("san"), "subjectAltName=DNS:es.test\n").unwrap();
    let openssl = |line: &str| {
        Run::of(Command::new("openssl").args(line.split(' ')).current_dir(dir)).ok();
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
    openssl("req -newkey rsa:2048 -nodes -subj /CN=es.test -keyout http.key -out http.csr");
    openssl(
        "x509 -req -in http.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out http.pem",
    );
}

/// What `check` finds out about the live cluster: W100 if it was not looked at.
pub(crate) fn looked(project: &Project) -> String {
    let found = project.json(&["check"]);
    let shown = format!("{}{}", found.stdout, found.stderr);
    assert!(![PASSWORD, KEY].iter().any(|secret| shown.contains(secret)), "a secret is shown");
    let problems = found.json()["problems"].clone();
    let live = |problem: &&Value| problem["place"] == "_cluster" || problem["code"] == "W122";
    problems.as_array().unwrap().iter().filter(live).map(Value::to_string).collect()
}

/// Sends a request with `curl` and the password in a file, as an operator would.
pub(crate) fn send(project: &Project, server: SocketAddr, method: &str, path: &str, body: &str) -> Value {
    let (address, port) = (server.ip(), server.port());
    project.write("curlrc", &format!("user = \"windlass:{PASSWORD}\"\n"));
    let ca = project.path("certs/ca.pem");
    let run = Run::of(
        Command::new("curl")
            .args(["-sS", "-K", project.path("curlrc").to_str().unwrap(), "--cacert", ca.to_str().unwrap()])
            .args(["--resolve", &format!("es.test:{port}:{address}"), "-X", method])
            .args(["-H", "Content-Type: application/json", "-d", body])
            .arg(format!("https://es.test:{port}{path}")),
    );
    serde_json::from_str(&run.ok().stdout).unwrap()
}

/// `check` sees a filter that was set while the cluster ran. (This distribution makes no API keys: it lacks an
/// analyzer.)
fn check_looks_at_it(project: &Project, server: SocketAddr) {
    let filter = r#"{"persistent":{"cluster.routing.allocation.exclude._name":"gone-long-ago"}}"#;
    assert_eq!(send(project, server, "PUT", "/_cluster/settings", filter)["acknowledged"], true);
    let seen = looked(project);
    assert!(seen.contains("gone-long-ago") && !seen.contains("W100"), "{seen}");
}

#[test]
#[ignore = "long: one node of Elasticsearch 7.17.28 started four times, about 3 min"]
fn long_tls_and_passwords() {
    if !have("openssl") || !have("curl") {
        return;
    }
    let project = Project::empty();
    if artifacts(&project, VERSION).is_none() {
        return;
    }
    fs::set_permissions(&project.dir, fs::Permissions::from_mode(0o755)).unwrap();
    certificates(&project.path("certs"));
    let net = Net::claim();
    let render = "render = [\"elasticsearch.yml\", \"jvm.options\"";
    let recipe = RECIPE.replace(render, &format!("{render}, \"http.key\""));
    let with_api = |api: &str| project.write("recipes/elasticsearch.toml", &format!("{recipe}{api}"));
    with_api(API);
    project.write(
        "windlass.toml",
        &format!(
            "schema = 1\nname = \"x\"\n[versions]\nelasticsearch = \"{VERSION}\"\njre = \"{}\"\n",
            jre(VERSION)
        ),
    );
    project.write("conf/elasticsearch/jvm.options", JVM_OPTIONS);
    project.write("conf/elasticsearch/http.key", "{{ secret('http_key') }}\n");
    project.write("conf/elasticsearch/users", &format!("windlass:{HASH}\n"));
    project.write("conf/elasticsearch/users_roles", "superuser:windlass\n");
    fs::copy(project.path("certs/http.pem"), project.path("conf/elasticsearch/http.pem")).unwrap();
    let yml = "cluster.name: secured\nnode.name: {{ node.name }}\npath.data: {{ shared }}/data\n\
               path.logs: {{ shared }}/logs\nnetwork.host: {{ node.address }}\nhttp.port: {{ vars.http_port }}\n\
               transport.port: {{ vars.transport_port }}\ndiscovery.type: single-node\n\
               cluster.routing.allocation.disk.threshold_enabled: false\n\
               xpack.security.enabled: true\nxpack.security.http.ssl.enabled: true\n\
               xpack.security.http.ssl.key: http.key\nxpack.security.http.ssl.certificate: http.pem\n";
    project.write("conf/elasticsearch/elasticsearch.yml", yml);
    let cluster = |password: &str| {
        project.write("password", password);
        lone(&project, &net, "elasticsearch", SECRETS, "3m", "");
    };
    let _stop = Stop(&project);
    cluster(PASSWORD);
    project.build();
    let done = project.json(&["promote"]).ok();
    assert_eq!(finished(&done)["outcome"], "succeeded");
    let restart = project.json(&["restart"]).ok();
    assert!(!(done.stdout + &restart.stdout).contains(PASSWORD));
    let ready = |wanted: bool| {
        let status = project.json(&["status"]).ok();
        assert_eq!(status.json()["nodes"][0]["roles"][0]["ready"], wanted, "{}", status.stdout);
    };
    ready(true);
    check_looks_at_it(&project, net.at(1, HTTP));
    cluster("wrong");
    ready(false);
    let seen = looked(&project);
    assert!(seen.contains("does not know who asks") && !seen.contains("\"wrong\""), "{seen}");
    cluster(PASSWORD);

    // A certificate of another name is refused. Only the release that expects that name is given up soon.
    let ready_within = "\n[service.ready]\ntcp = \"{{ vars.http_port }}\"\nwithin = \"2m\"\n";
    with_api(&format!("{}{ready_within}", API.replace("es.test", "other.test")));
    project.build();
    let failed = project.json(&["promote"]).exits(3);
    assert!(failed.stdout.contains("TLS as `other.test`"), "{}", failed.stdout);
    ready(true);
}
