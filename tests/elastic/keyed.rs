//! An API key, which no distribution for tests makes: a real nginx asks for it before a real Elasticsearch of 7.17.0,
//! over TLS with an authority of its own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::elastic::lab::{HTTP, JVM_OPTIONS, RECIPE, lone};
use crate::elastic::secured::{Stop, certificates, looked};
use crate::support::elastic::{Killed, artifacts, finished, http, jre};
use crate::support::net::Net;
use crate::support::project::{Project, Run, have, skip};

/// An API key as its header has it, and an unknown one.
pub(crate) const KEY: &str = "V2luZGxhc3M6YS1rZXktdGhhdC1pcy1zaG93bi10by1ub2JvZHk=";
const OTHER_KEY: &str = "V2luZGxhc3M6YS1rZXktdGhhdC1ub2JvZHkta25vd3MhISE=";

/// Where nginx listens.
const DOOR: u16 = 9443;

/// nginx as the door of an Elasticsearch: TLS, and 401 without exactly that key.
struct Door {
    _process: Killed,
}

impl Door {
    fn start(project: &Project, door: SocketAddr, behind: SocketAddr) -> Self {
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
             server {{\n    listen {door} ssl;\n    ssl_certificate {certs}/http.pem;\n\
             ssl_certificate_key {certs}/http.key;\n    default_type application/json;\n    location / {{\n\
             if ($http_authorization != \"ApiKey {KEY}\") {{ return 401 '{refusal}'; }}\n\
             proxy_pass http://{behind};\n    }}\n  }}\n}}\n",
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
        let until = Instant::now() + Duration::from_mins(2);
        while TcpStream::connect(door).is_err() {
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
    let net = Net::claim();
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
                    path.logs: {{ shared }}/logs\nnetwork.host: {{ node.address }}\nhttp.port: {{ vars.http_port }}\n\
                    transport.port: {{ vars.transport_port }}\ndiscovery.type: single-node\n\
                    cluster.routing.allocation.disk.threshold_enabled: false\n";
        project.write("conf/elasticsearch/elasticsearch.yml", &format!("{text}{more}"));
        project.build();
    };
    let cluster = |key: &str, within: &str| {
        project.write("key", key);
        let secrets = "es_key = { file = \"key\" }\n";
        lone(&project, &net, "elasticsearch", secrets, within, &format!(", door_port = {DOOR}"));
    };
    let _stop = Stop(&project);
    let _door = Door::start(&project, net.at(1, DOOR), net.at(1, HTTP));
    let mut shown = String::new();
    let mut run = |arguments: &[&str], code: i32| {
        let run = project.json(arguments).exits(code);
        shown.extend([run.stdout.as_str(), &run.stderr]);
        run
    };
    cluster(KEY, "3m");
    yml("");
    assert_eq!(finished(&run(&["promote"], 0))["outcome"], "succeeded");
    let ready = run(&["status"], 0);
    assert_eq!(ready.json()["nodes"][0]["roles"][0]["ready"], true, "{}", ready.stdout);
    let asked = || project.read("door/access.log");
    assert!(!asked().contains("401 "), "it is shown with every question: {}", asked());

    // With another key the error says what to do, and nothing is stopped.
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
    cluster(KEY, "3m");
    let done = run(&["promote"], 0);
    assert_eq!(finished(&done)["outcome"], "succeeded", "{}", done.stdout);
    assert_ne!(pid(&run(&["status"], 0)), before);
    let puts = asked().lines().filter(|line| line.starts_with("200 PUT /_cluster/settings")).count();
    assert_eq!(puts, 2, "replicas are held back, and let go: {}", asked());
    assert!(asked().contains("200 POST /_flush"), "{}", asked());
    let settings = http(net.at(1, HTTP), "GET", "/_cluster/settings", "").unwrap().1;
    assert_eq!(settings, serde_json::json!({"persistent": {}, "transient": {}}));
    run(&["history"], 0);

    assert!(!shown.contains(KEY) && !shown.contains(OTHER_KEY), "a key is shown");
    assert_eq!(files_with_the_key(&project), Vec::<PathBuf>::new());
}
