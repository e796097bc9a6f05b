//! A node that speaks TLS and wants to know who asks: with a password one of 7.17.28, whose test distribution has that
//! module; with an API key, which no test distribution makes, one of 7.17.0 behind a real nginx that asks for it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::elastic::{Killed, artifacts, finished, jre};
use crate::lab::{JVM_OPTIONS, RECIPE};
use crate::long::wanted;
use crate::project::{Project, Run, have, skip};

const VERSION: &str = "7.17.28";
const PASSWORD: &str = "correct-horse";
/// Of that password.
const HASH: &str = "$2a$10$abcdefghijklmnopqrstuuf4yQswfQRuOxajohDXdzREFVDuc.Vdy";

/// An API key, as its header has it, and one of nobody.
const KEY: &str = "V2luZGxhc3M6YS1rZXktdGhhdC1pcy1zaG93bi10by1ub2JvZHk=";
const OTHER_KEY: &str = "V2luZGxhc3M6YS1rZXktdGhhdC1ub2JvZHkta25vd3MhISE=";

const API: &str = "tls = true\nca = \"certs/ca.pem\"\nserver_name = \"es.test\"\nuser = \"windlass\"\n\
                   password = \"es_password\"\n";

struct Stop<'a>(&'a Project);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let root = self.0.path("n1");
        let args = ["node", "service", "stop", "elasticsearch", "--root", root.to_str().unwrap()];
        let _stopped = self.0.command(&args).output();
    }
}

/// An authority, and a certificate of it for `es.test`.
fn certificates(dir: &Path) {
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

/// Ports that nobody has.
fn free(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|one| one.local_addr().unwrap().port()).collect()
}

/// What `check` finds out about the live cluster: W100 if it was not looked at.
fn looked(project: &Project) -> String {
    let found = project.json(&["check"]);
    let shown = format!("{}{}", found.stdout, found.stderr);
    assert!(![PASSWORD, KEY].iter().any(|secret| shown.contains(secret)), "a secret is shown");
    let problems = found.json()["problems"].clone();
    let live = |problem: &&Value| problem["place"] == "_cluster" || problem["code"] == "W122";
    problems.as_array().unwrap().iter().filter(live).map(Value::to_string).collect()
}

/// `curl`, with the password in a file: as whoever checks by hand would.
fn send(project: &Project, port: u16, method: &str, path: &str, body: &str) -> Value {
    project.write("curlrc", &format!("user = \"windlass:{PASSWORD}\"\n"));
    let ca = project.path("certs/ca.pem");
    let run = Run::of(
        Command::new("curl")
            .args(["-sS", "-K", project.path("curlrc").to_str().unwrap(), "--cacert", ca.to_str().unwrap()])
            .args(["--resolve", &format!("es.test:{port}:127.0.0.1"), "-X", method])
            .args(["-H", "Content-Type: application/json", "-d", body])
            .arg(format!("https://es.test:{port}{path}")),
    );
    serde_json::from_str(&run.ok().stdout).unwrap()
}

/// It sees a filter that was set while the cluster ran. (This distribution makes no API keys: it lacks an analyzer.)
fn check_looks_at_it(project: &Project, ports: &[u16]) {
    let filter = r#"{"persistent":{"cluster.routing.allocation.exclude._name":"gone-long-ago"}}"#;
    assert_eq!(send(project, ports[0], "PUT", "/_cluster/settings", filter)["acknowledged"], true);
    let seen = looked(project);
    assert!(seen.contains("gone-long-ago") && !seen.contains("W100"), "{seen}");
}

#[test]
fn long_tls_and_passwords() {
    if !wanted() || !have("openssl") || !have("curl") {
        return;
    }
    let project = Project::empty();
    if artifacts(&project, VERSION).is_none() {
        return;
    }
    fs::set_permissions(&project.dir, fs::Permissions::from_mode(0o755)).unwrap();
    certificates(&project.path("certs"));
    let ports = free(2);
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
               path.logs: {{ shared }}/logs\nnetwork.host: 127.0.0.1\nhttp.port: {{ vars.http_port }}\n\
               transport.port: {{ vars.transport_port }}\ndiscovery.type: single-node\n\
               cluster.routing.allocation.disk.threshold_enabled: false\n\
               xpack.security.enabled: true\nxpack.security.http.ssl.enabled: true\n\
               xpack.security.http.ssl.key: http.key\nxpack.security.http.ssl.certificate: http.pem\n";
    project.write("conf/elasticsearch/elasticsearch.yml", yml);
    let cluster = |password: &str| {
        let dir = project.dir.display();
        project.write("password", password);
        project.write(
            "cluster.toml",
            &format!(
                "schema = 1\nname = \"secured\"\n[secrets]\nes_password = {{ file = \"password\" }}\n\
                 http_key = {{ file = \"certs/http.key\" }}\n[rollout]\nmin_healthy = \"1s\"\n\
                 gate_timeout = \"2m\"\n[nodes.n1]\naddress = \"127.0.0.1\"\ntransport = \"local\"\n\
                 root = \"{dir}/n1\"\nroles = [\"elasticsearch\"]\n\
                 vars = {{ http_port = {}, transport_port = {} }}\n",
                ports[0], ports[1]
            ),
        );
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
    check_looks_at_it(&project, &ports);
    cluster("wrong");
    ready(false);
    let seen = looked(&project);
    assert!(seen.contains("does not know who asks") && !seen.contains("\"wrong\""), "{seen}");
    cluster(PASSWORD);

    // Another name than the certificate has is not spoken with.
    with_api(&API.replace("es.test", "other.test"));
    project.build();
    let text = project.read("cluster.toml");
    project.write("cluster.toml", &text.replace("\"2m\"", "\"40s\""));
    let failed = project.json(&["promote"]).exits(3);
    assert!(failed.stdout.contains("TLS as `other.test`"), "{}", failed.stdout);
    ready(true);
}

/// nginx as the door of an Elasticsearch: TLS, and 401 to whoever does not show exactly that key.
struct Door {
    _process: Killed,
}

impl Door {
    fn start(project: &Project, door: u16, http: u16) -> Self {
        let dir = project.path("door");
        fs::create_dir_all(dir.join("tmp")).unwrap();
        let at = dir.display();
        let refusal = r#"{"error":{"type":"security_exception","reason":"missing authentication credentials"},"status":401}"#;
        let conf = format!(
            "daemon off;\nmaster_process off;\nworker_processes 1;\nerror_log {at}/error.log;\npid {at}/pid;\n\
             events {{ worker_connections 64; }}\nhttp {{\n  log_format asked '$status $request';\n\
             access_log {at}/access.log asked;\n  client_max_body_size 10m;\n\
             client_body_temp_path {at}/tmp/a; proxy_temp_path {at}/tmp/b; fastcgi_temp_path {at}/tmp/c;\n\
             uwsgi_temp_path {at}/tmp/d; scgi_temp_path {at}/tmp/e;\n\
             server {{\n    listen 127.0.0.1:{door} ssl;\n    ssl_certificate {certs}/http.pem;\n\
             ssl_certificate_key {certs}/http.key;\n    default_type application/json;\n    location / {{\n\
             if ($http_authorization != \"ApiKey {KEY}\") {{ return 401 '{refusal}'; }}\n\
             proxy_pass http://127.0.0.1:{http};\n    }}\n  }}\n}}\n",
            certs = project.path("certs").display(),
        );
        fs::write(dir.join("nginx.conf"), conf).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command
            .arg("-e")
            .arg(dir.join("error.log"))
            .arg("-p")
            .arg(&dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"));
        let started = Self { _process: Killed(command.spawn().unwrap()) };
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", door)).is_err() {
            assert!(Instant::now() < until, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        started
    }
}

/// Every file below the project's folder that has the key, but those that a person has put it into.
fn files_with_the_key(project: &Project) -> Vec<PathBuf> {
    let parts = [KEY.as_bytes(), b"a-key-that-is-shown-to-nobody"];
    let has = |bytes: &[u8]| parts.iter().any(|part| bytes.windows(part.len()).any(|window| window == *part));
    let mut found = Vec::new();
    for folder in ["out", "n1", "recipes", "conf"] {
        for entry in walkdir::WalkDir::new(project.path(folder)).into_iter().filter_map(Result::ok) {
            // What vendors ship has it not, and is long.
            let small = entry.metadata().is_ok_and(|found| found.is_file() && found.len() < 4 << 20);
            if small && fs::read(entry.path()).is_ok_and(|bytes| has(&bytes)) {
                found.push(entry.into_path());
            }
        }
    }
    found
}

#[test]
fn an_api_key_through_tls_is_used_everywhere_and_shown_nowhere() {
    if !have("openssl") {
        return;
    }
    if !Path::new("/usr/sbin/nginx").is_file() {
        skip("nginx is not installed");
        return;
    }
    let project = Project::empty();
    let version = "7.17.0";
    if artifacts(&project, version).is_none() {
        return;
    }
    fs::set_permissions(&project.dir, fs::Permissions::from_mode(0o755)).unwrap();
    certificates(&project.path("certs"));
    let ports = free(3);
    let (http, transport, door) = (ports[0], ports[1], ports[2]);
    let recipe = RECIPE.replace(
        "[service.api]\nport = \"{{ vars.http_port }}\"",
        "[service.api]\nport = \"{{ vars.door_port }}\"",
    );
    let api = "tls = true\nca = \"certs/ca.pem\"\nserver_name = \"es.test\"\napi_key = \"es_key\"\n";
    project.write("recipes/elasticsearch.toml", &format!("{recipe}{api}"));
    project.write(
        "windlass.toml",
        &format!(
            "schema = 1\nname = \"x\"\n[versions]\nelasticsearch = \"{version}\"\njre = \"{}\"\n",
            jre(version)
        ),
    );
    project.write("conf/elasticsearch/jvm.options", JVM_OPTIONS);
    let yml = |more: &str| {
        let text = "cluster.name: keyed\nnode.name: {{ node.name }}\npath.data: {{ shared }}/data\n\
                    path.logs: {{ shared }}/logs\nnetwork.host: 127.0.0.1\nhttp.port: {{ vars.http_port }}\n\
                    transport.port: {{ vars.transport_port }}\ndiscovery.type: single-node\n\
                    cluster.routing.allocation.disk.threshold_enabled: false\n";
        project.write("conf/elasticsearch/elasticsearch.yml", &format!("{text}{more}"));
        project.build();
    };
    let cluster = |key: &str, within: &str| {
        let dir = project.dir.display();
        project.write("key", key);
        project.write(
            "cluster.toml",
            &format!(
                "schema = 1\nname = \"keyed\"\n[secrets]\nes_key = {{ file = \"key\" }}\n\
                 [rollout]\nmin_healthy = \"500ms\"\ngate_timeout = \"{within}\"\n[nodes.n1]\naddress = \"127.0.0.1\"\n\
                 transport = \"local\"\nroot = \"{dir}/n1\"\nroles = [\"elasticsearch\"]\n\
                 vars = {{ http_port = {http}, transport_port = {transport}, door_port = {door} }}\n"
            ),
        );
    };
    let _stop = Stop(&project);
    let _door = Door::start(&project, door, http);
    let mut shown = String::new();
    let mut run = |arguments: &[&str], code: i32| {
        let run = project.json(arguments).exits(code);
        shown += &format!("{}{}", run.stdout, run.stderr);
        run
    };
    cluster(KEY, "2m");
    yml("");
    assert_eq!(finished(&run(&["promote"], 0))["outcome"], "succeeded");
    let ready = run(&["status"], 0);
    assert_eq!(ready.json()["nodes"][0]["roles"][0]["ready"], true, "{}", ready.stdout);
    let asked = || project.read("door/access.log");
    assert!(!asked().contains("401 "), "it is shown with every question: {}", asked());

    // Whoever has another key is told what to do, and nothing is stopped.
    yml("http.max_content_length: 90mb\n");
    cluster(OTHER_KEY, "2s");
    let pid = |run: &Run| run.json()["nodes"][0]["roles"][0]["pid"].clone();
    let before = pid(&run(&["status"], 0));
    let refused = run(&["promote"], 1);
    assert!(refused.stdout.contains("elasticsearch of n1 does not know who asks"), "{}", refused.stdout);
    assert!(refused.stdout.contains("or an `api_key`, with the privileges"), "{}", refused.stdout);
    assert_eq!(pid(&run(&["status"], 0)), before, "it was not stopped");
    assert!(looked(&project).contains("does not know who asks"));
    assert!(!asked().lines().any(|line| line.starts_with("200 PUT")), "{}", asked());

    // With the right one it is drained, stopped, started and given its settings back.
    cluster(KEY, "2m");
    let done = run(&["promote"], 0);
    assert_eq!(finished(&done)["outcome"], "succeeded", "{}", done.stdout);
    assert_ne!(pid(&run(&["status"], 0)), before);
    let puts = asked().lines().filter(|line| line.starts_with("200 PUT /_cluster/settings")).count();
    assert_eq!(puts, 2, "replicas are held back, and let go: {}", asked());
    assert!(asked().contains("200 POST /_flush"), "{}", asked());
    let settings =
        crate::elastic::http(([127, 0, 0, 1], http).into(), "GET", "/_cluster/settings", "").unwrap().1;
    assert_eq!(settings, serde_json::json!({"persistent": {}, "transient": {}}));
    run(&["history"], 0);

    assert!(!shown.contains(KEY) && !shown.contains(OTHER_KEY), "a key is shown");
    assert_eq!(files_with_the_key(&project), Vec::<PathBuf>::new());
}
