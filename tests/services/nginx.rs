//! nginx: Debian's program under a client that asks all the time.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::services::lab::{Lab, nodes_of};
use crate::support::project::{file, skip};
use crate::support::worker::Worker;

const RECIPE: &str = r#"schema = 1
version = "{{ versions.nginx }}-{{ build }}"

[[unpack]]
artifact = "nginx-{{ versions.nginx }}.tar.gz"
into = "nginx"

[[conf]]
from = "nginx"
into = "nginx/conf"
render = ["nginx.conf"]

[[persist]]
name = "logs"

[[scratch]]
at = "nginx/tmp"

[vars]
greeting = "hello"

[service]
kind = "nginx"
start = ["nginx/sbin/nginx", "-e", "stderr", "-p", "{{ current }}/nginx/", "-c", "conf/nginx.conf", "-g", "daemon off;"]
test = ["nginx/sbin/nginx", "-t", "-q", "-e", "stderr", "-p", "{{ release }}/nginx/", "-c", "conf/nginx.conf"]
reload = { signal = "HUP" }
stop = { signal = "QUIT", timeout = "20s" }

[service.ready]
http = { port = "{{ vars.http_port }}", path = "/healthy", body = "release {{ release | split('/') | last }};" }
within = "60s"
"#;

const CONF: &str = r#"worker_processes 1;
error_log {{ shared }}/logs/error.log warn;
pid {{ release }}/nginx/tmp/nginx.pid;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path {{ release }}/nginx/tmp/a;
    proxy_temp_path {{ release }}/nginx/tmp/b;
    fastcgi_temp_path {{ release }}/nginx/tmp/c;
    uwsgi_temp_path {{ release }}/nginx/tmp/d;
    scgi_temp_path {{ release }}/nginx/tmp/e;
    server {
        listen {{ node.address }}:{{ vars.http_port }};
        location = /healthy { return 200 "release {{ release | split("/") | last }};\n"; }
        location / { return 200 "{{ vars.greeting }}\n"; }
    }
}
"#;

fn lab() -> Option<Lab> {
    let program = Path::new("/usr/sbin/nginx");
    if !program.is_file() {
        skip("nginx is not installed");
        return None;
    }
    let lab = Lab::new("nginx", 2, &[("http", 8080)]);
    let project = &lab.project;
    for version in ["1.22", "1.23"] {
        let members = [
            file(&format!("nginx-{version}/sbin/nginx"), 0o755, fs::read(program).unwrap()),
            file(&format!("nginx-{version}/VERSION"), 0o644, version),
        ];
        project.artifact(&format!("nginx-{version}.tar.gz"), &members);
    }
    project.write("windlass.toml", "schema = 1\nname = \"lab\"\n[versions]\nnginx = \"1.22\"\n");
    project.write("recipes/nginx.toml", RECIPE);
    project.write("conf/nginx/nginx.conf", CONF);
    Some(lab)
}

fn get(server: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(answer)),
    }
}

/// Starts a client that asks all the time; it returns how often it was answered, and what failed.
fn asking(server: SocketAddr) -> Worker<(usize, Vec<String>)> {
    let worker = Worker::start("answers", move |pace| {
        let (mut answered, mut failures) = (0, Vec::new());
        while !pace.is_over() {
            match get(server, "/") {
                Ok(_) => answered += 1,
                Err(error) => failures.push(error.to_string()),
            }
            // A failure ends the wait too; the test looks at it afterwards.
            pace.count();
            // Without a pause the clients would take the processor from what is rolled out.
            std::thread::sleep(Duration::from_millis(2));
        }
        (answered, failures)
    });
    worker.goes_on(1, 1);
    worker
}

/// Ends a client once it has asked some more: no request may have failed.
fn assert_all_answered(asking: Worker<(usize, Vec<String>)>) {
    asking.goes_on(10, 21);
    let (answered, failures) = asking.stop();
    assert!(failures.is_empty() && answered > 20, "{answered} answers, {failures:?}");
    println!("{answered} answers");
}

fn pids(lab: &Lab) -> Vec<serde_json::Value> {
    let status = lab.project.json(&["service", "status"]).ok().json();
    status["services"].as_array().unwrap().iter().map(|one| one["pid"].clone()).collect()
}

#[test]
fn another_conf_is_read_without_a_failed_request() {
    let Some(lab) = lab() else { return };
    lab.project.build();
    let first = lab.rollout(0, &["promote"]);
    assert_eq!(nodes_of(&first, "start").len(), 2);
    let before = pids(&lab);
    let server = lab.at("n1", "http");
    assert_eq!(get(server, "/").unwrap(), "hello\n");

    let clients: Vec<_> = lab.all("http").into_iter().map(asking).collect();
    lab.project.edit("conf/nginx/nginx.conf", "{{ vars.greeting }}", "{{ vars.greeting }} again");
    lab.project.build();
    let events = lab.rollout(0, &["promote"]);
    assert_eq!((nodes_of(&events, "reload").len(), nodes_of(&events, "stop").len()), (2, 0));
    assert_eq!(events.last().unwrap()["nodes"][0]["downtime_ms"], 0);
    assert_eq!(get(server, "/").unwrap(), "hello again\n");
    assert_eq!(pids(&lab), before);

    // Nothing is left to do.
    assert!(nodes_of(&lab.rollout(0, &["promote"]), "reload").is_empty());
    clients.into_iter().for_each(assert_all_answered);

    // Another program needs a restart, and so does a rollback.
    lab.project.run(&["set", "nginx", "1.23"]).ok();
    lab.project.build();
    let events = lab.rollout(0, &["promote"]);
    assert_eq!((nodes_of(&events, "reload").len(), nodes_of(&events, "stop").len()), (0, 2));
    assert_ne!(pids(&lab), before);
    lab.rollout(0, &["rollback"]);
    assert_eq!(get(server, "/").unwrap(), "hello again\n");
}

#[test]
fn a_bad_conf_is_refused_before_anything_moves() {
    let Some(lab) = lab() else { return };
    lab.project.build();
    lab.rollout(0, &["promote"]);
    let before = pids(&lab);
    lab.project.edit("conf/nginx/nginx.conf", "access_log off;", "access_log of the king;");
    lab.project.build();
    let run = lab.project.run(&["promote"]).exits(1);
    assert!(
        run.stderr.contains("the test of 2-1.22-2 fails: nginx/sbin/nginx exits with 1"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("nginx.conf:6"), "{}", run.stderr);
    let status = lab.project.json(&["status"]).ok().json();
    for node in status["nodes"].as_array().unwrap() {
        assert_eq!(node["roles"][0]["release"], "1-1.22-1", "{node}");
        assert_eq!(node["roles"][0]["ready"], true, "{node}");
    }
    assert_eq!(pids(&lab), before);
}

#[test]
fn a_conf_that_is_not_taken_goes_back_and_keeps_serving() {
    let Some(lab) = lab() else { return };
    lab.project.build();
    lab.rollout(0, &["promote"]);
    let before = pids(&lab);
    // The test passes; the running master cannot bind it, since the other node has the port.
    let taken = lab.at("n2", "http");
    let line = format!("server {{ listen {taken}; return 200 stolen; }}\n    access_log off;");
    lab.project.edit("recipes/nginx.toml", "test = ", "# test = ");
    lab.project.build();
    lab.rollout(0, &["promote"]);
    lab.project.edit("conf/nginx/nginx.conf", "access_log off;", &line);
    lab.project.build();
    // A limit in the recipe would have nginx restarted. The prior release answers all the time and needs none.
    lab.cluster("gate_timeout = \"5s\"\n", "");
    let client = asking(lab.at("n1", "http"));
    let events = lab.rollout(3, &["promote", "--nodes", "n1"]);
    assert_all_answered(client);
    assert_eq!(events.last().unwrap()["outcome"], "rolled-back");
    assert_eq!(get(lab.at("n1", "http"), "/").unwrap(), "hello\n");
    assert_eq!(before.len(), 2);
}
