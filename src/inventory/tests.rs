//! Tests of the module as a whole: texts in, a cluster or the text of its errors out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::model::Role;
use crate::recipe::{Diagnostics, Source};

/// The example of the design, word for word.
const DESIGN: &str = r#"schema = 1
name   = "prod"
root   = "/opt/windlass"                         # on every node
lists  = "conf"                                  # conf/<role>.list add nodes to roles, as found

[ssh]                                            # ~/.ssh/config is read first, these win
user = "deploy"
port = 22
identity = "~/.ssh/id_ed25519"                   # else the agent, else the usual files
known_hosts = "~/.ssh/known_hosts"               # strict; `accept_new = true` to trust on first use
jump = "bastion.example.net"

[nodes.es1]                                      # also port, user, identity, root, supervisor: override the above
address = "192.168.199.102"                      # or transport = "local"
zone = "rack-a"
roles = ["elasticsearch-hot", "elasticsearch-warm", "kafka"]
vars = { heap = "2g" }

[supervisor]
kind = "systemd"                                 # or "supervisord", or "pidfile"

[rollout]
by = "role"                                      # or "node": all changed roles of a node together
order = ["zookeeper", "kafka", "elasticsearch-warm", "elasticsearch-hot", "kibana"]
max_unavailable = 1                              # nodes of a role down at a time (or "25%"), all in one zone
canary = 1                                       # the first wave; then `pause_after_canary`
pause_after_canary = false
gate_timeout = "10m"
min_healthy = "10s"
progress_deadline = "10m"
max_failures = 0
on_failure = "rollback-node"                     # or "rollback-all", "halt"
confirm_within = "15m"                           # dead-man switch on the node; "0" turns it off
keep = 3                                         # releases kept per role and node

[secrets]
elastic_password = { env = "ELASTIC_PASSWORD" }  # or file = "...", or command = ["pass", "show", "x"]
"#;

fn read(text: &str, lists: &[(&str, &str)]) -> Result<Cluster, Diagnostics> {
    let lists: BTreeMap<String, Arc<Source>> = lists
        .iter()
        .map(|(file, text)| ((*file).to_owned(), Source::new(&format!("conf/{file}"), text)))
        .collect();
    read_cluster(&Source::new("cluster.toml", text), &lists)
}

fn problems(text: &str, lists: &[(&str, &str)]) -> String {
    read(text, lists).unwrap_err().to_string()
}

#[test]
fn the_example_of_the_design_is_read() {
    let cluster = read(
        DESIGN,
        &[("zookeeper.list", "# three later\n\nes1 # name\n"), ("kibana.list", "192.168.199.102")],
    )
    .unwrap();
    assert_eq!(cluster.rollout, Rollout { order: cluster.rollout.order.clone(), ..Rollout::default() });
    assert_eq!(cluster.rollout.order.len(), 5);
    let node = cluster.find("192.168.199.102").unwrap();
    assert_eq!((node.name.as_str(), node.roles.len(), node.root.as_str()), ("es1", 5, "/opt/windlass"));
    let Reach::Ssh(ssh) = &node.reach else { panic!("{node:?}") };
    assert_eq!((ssh.user.as_deref(), ssh.port, ssh.accept_new), (Some("deploy"), Some(22), None));
    assert_eq!(ssh.jump.as_deref(), Some("bastion.example.net"));
    assert_eq!((node.supervisor, node.zone.as_deref()), (SupervisorKind::Systemd, Some("rack-a")));
    assert_eq!(node.vars["heap"], "2g");
    assert_eq!(cluster.secrets["elastic_password"].from, SecretFrom::Env("ELASTIC_PASSWORD".to_owned()));
}

#[test]
fn nodes_override_what_holds_for_all() {
    let cluster = read(
        r#"schema = 1
name = "demo"
[ssh]
user = "a"
accept_new = true
[nodes.one]
transport = "local"
root = "/tmp/one"
supervisor = "supervisord"
supervisor_config = "/etc/sv.conf"
[nodes.two]
user = "b"
port = 2222
identity = "k"
[rollout]
max_unavailable = "25%"
confirm_within = "0"
[vars]
heap = "4g"
[secrets]
x = { command = ["pass", "show", "x"] }
[lints]
even-masters = "allow"
"#,
        &[],
    )
    .unwrap();
    let [one, two] = cluster.nodes.as_slice() else { panic!("{cluster:?}") };
    assert_eq!((&one.reach, one.address.as_str()), (&Reach::Local, "127.0.0.1"));
    assert_eq!((one.supervisor, two.supervisor), (SupervisorKind::Supervisord, SupervisorKind::Pidfile));
    assert_eq!((&one.supervisor_config, &two.supervisor_config), (&Some("/etc/sv.conf".into()), &None));
    let expected = SshSettings {
        user: Some("b".to_owned()),
        port: Some(2222),
        identity: Some("k".into()),
        accept_new: Some(true),
        ..SshSettings::default()
    };
    assert_eq!((&two.reach, two.address.as_str()), (&Reach::Ssh(expected), "two"));
    assert_eq!(cluster.rollout.max_unavailable, MaxUnavailable::Percent(25));
    assert_eq!(cluster.rollout.confirm_within, None);
    assert_eq!(cluster.vars["heap"], "4g");
    assert_eq!(cluster.lints["even-masters"].level, LintLevel::Allow);
}

#[test]
fn every_problem_is_told_at_once() {
    let text = r#"schema = 1
nam = "prod"
root = "opt"

[ssh]
port = 70000

[nodes.es1]
adress = "10.0.0.1"
roles = ["Kafka"]
transport = "telnet"

[nodes.es2]
transport = "local"
user = "x"

[rollout]
by = "zone"
order = ["kafka"]
max_unavailable = "0%"
min_healthy = "20m"
on_failure = "rollback"

[secrets]
a = { env = "A", file = "b" }
b = { command = [] }

[lints]
x = "deny"
"#;
    insta::assert_snapshot!(problems(text, &[("nginx.list", "es1\nes22 es3\nes33\n"), ("Bad.list", "")]));
}

#[test]
fn two_names_for_one_place_are_refused() {
    let text = "schema = 1\nname = \"x\"\n[nodes.a]\naddress = \"h\"\n[nodes.b]\naddress = \"h\"\n";
    assert!(problems(text, &[]).contains("node `b` is the same place as node `a`"));
    let text = format!("{text}root = \"/b\"\n");
    assert!(read(&text, &[]).is_ok());
    assert!(problems(&text, &[("x.list", "h")]).contains("name one of them: a, b"));
}

#[test]
fn selection_knows_names_addresses_and_near_misses() {
    let cluster = read(DESIGN, &[("zookeeper.list", "es1"), ("kibana.list", "es1")]).unwrap();
    let roles = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Role>>();
    let selected = cluster.select(&roles(&["kafka", "kibana"]), &["192.168.199.102".to_owned()]).unwrap();
    assert_eq!(selected.len(), 1);
    assert_eq!(selected[0].roles, roles(&["kafka", "kibana"]).iter().collect::<Vec<_>>());
    assert_eq!(cluster.select(&[], &[]).unwrap()[0].roles.len(), 5);
    let errors = cluster.select(&roles(&["kafak"]), &["es2".to_owned()]).unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["no node runs role `kafak`", "there is no node `es2`"]);
    assert_eq!(errors[0].help()[0], "did you mean `kafka`?");
}

#[test]
fn loading_finds_the_lists() {
    let folder = tempfile::tempdir().unwrap();
    let folder = camino::Utf8Path::from_path(folder.path()).unwrap();
    std::fs::create_dir(folder.join("conf")).unwrap();
    for role in ["zookeeper", "kibana"] {
        std::fs::write(folder.join(format!("conf/{role}.list")), "es1\n").unwrap();
    }
    let path = folder.join("cluster.toml");
    assert!(matches!(load(&path), Err(LoadError::NoCluster { .. })));
    std::fs::write(&path, DESIGN).unwrap();
    assert_eq!(load(&path).unwrap().roles().len(), 5);
    std::fs::write(folder.join("conf/kibana.list"), "es2\n").unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert!(error.contains("conf/kibana.list:1:1"), "{error}");
}
