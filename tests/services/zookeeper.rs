//! `ZooKeeper`: three servers of Debian's jar, a client that writes through all of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::services::lab::{Lab, nodes_of};
use crate::services::zookeeper_client::{SESSION_MS, children, writer};
use crate::support::project::{file, have, skip};

const RECIPE: &str = r#"schema = 1
version = "{{ versions.zookeeper }}-{{ build }}"

[[unpack]]
artifact = "zookeeper-{{ versions.zookeeper }}.tar.gz"
into = "zookeeper"

[[conf]]
from = "zookeeper"
into = "zookeeper/conf"
render = ["zoo.cfg", "myid"]

[[persist]]
name = "data"

[service]
kind = "zookeeper"
start = ["zookeeper/bin/serve", "{{ shared }}/data", "zookeeper/conf"]
stop = { signal = "TERM", timeout = "20s" }

[service.api]
port = "{{ vars.client_port }}"

[service.ready]
tcp = "{{ vars.client_port }}"
within = "60s"
"#;

const SERVE: &str = "#!/bin/sh
cp \"$2/myid\" \"$1/myid\"
exec java -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote -cp zookeeper/lib/zookeeper.jar \
org.apache.zookeeper.server.quorum.QuorumPeerMain \"$2/zoo.cfg\"
";

const CONF: &str = "tickTime=500
initLimit=100
syncLimit=100
maxSessionTimeout=60000
dataDir={{ shared }}/data
clientPort={{ vars.client_port }}
clientPortAddress={{ node.address }}
admin.enableServer=false
4lw.commands.whitelist=srvr,mntr
{% for n in nodes_with('zookeeper') -%}
server.{{ n.vars.id }}={{ n.address }}:{{ n.vars.peer_port }}:{{ n.vars.election_port }}
{% endfor -%}
";

fn lab() -> Option<Lab> {
    let jar = Path::new("/usr/share/java/zookeeper.jar");
    if !jar.is_file() || !have("java") {
        skip("ZooKeeper is not installed");
        return None;
    }
    let lab = Lab::new("zookeeper", 3, &[("client", 2181), ("peer", 2888), ("election", 3888)]);
    let project = &lab.project;
    for version in ["3.8.0", "3.8.1"] {
        let members = [
            file(&format!("zookeeper-{version}/bin/serve"), 0o755, SERVE),
            file(&format!("zookeeper-{version}/lib/zookeeper.jar"), 0o644, fs::read(jar).unwrap()),
            file(&format!("zookeeper-{version}/VERSION"), 0o644, version),
        ];
        project.artifact(&format!("zookeeper-{version}.tar.gz"), &members);
    }
    project.write("windlass.toml", "schema = 1\nname = \"lab\"\n[versions]\nzookeeper = \"3.8.0\"\n");
    project.write("recipes/zookeeper.toml", RECIPE);
    assert!(CONF.contains(&format!("maxSessionTimeout={SESSION_MS}\n")));
    project.write("conf/zookeeper/zoo.cfg", CONF);
    project.write("conf/zookeeper/myid", "{{ vars.id }}\n");
    Some(lab)
}

/// A server's mode; `None` if it serves no one, as without a quorum.
fn mode(server: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
}

/// The node that leads, once one does.
fn leader(lab: &Lab) -> String {
    let leads = |node: &&String| mode(lab.at(node, "client")).as_deref() == Some("leader");
    let until = Instant::now() + Duration::from_mins(2);
    loop {
        if let Some(node) = lab.nodes.iter().find(leads) {
            return node.clone();
        }
        assert!(Instant::now() < until, "no server leads");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_leader_goes_last_and_no_session_or_write_is_lost() {
    let Some(lab) = lab() else { return };
    lab.project.build();
    let first = lab.rollout(0, &["promote"]);
    assert_eq!(first.last().unwrap()["outcome"], "succeeded");
    let leader = leader(&lab);

    let writer = writer(lab.all("client"));
    writer.goes_on(10, 10);
    lab.project.run(&["set", "zookeeper", "3.8.1"]).ok();
    lab.project.build();
    let events = lab.rollout(0, &["promote"]);
    writer.goes_on(10, 20);
    let seen = writer.stop();
    assert_eq!(events.last().unwrap()["outcome"], "succeeded");
    let stopped = nodes_of(&events, "stop");
    assert_eq!((stopped.len(), stopped.last()), (3, Some(&leader)), "{stopped:?}");
    println!(
        "{} writes, {} reconnects, longest pause {} ms",
        seen.written.len(),
        seen.reconnects,
        seen.gap.as_millis()
    );
    assert_eq!(seen.expired, 0, "{seen:?}");
    for server in lab.all("client") {
        let there: BTreeSet<String> = children(server).into_iter().collect();
        let lost: Vec<_> = seen.written.iter().filter(|name| !there.contains(*name)).collect();
        assert!(lost.is_empty(), "lost on {server}: {lost:?}");
    }
}

#[test]
fn nobody_leaves_while_a_member_is_away() {
    let Some(lab) = lab() else { return };
    lab.project.build();
    lab.rollout(0, &["promote"]);
    let leader = leader(&lab);
    let mut followers = lab.nodes.iter().filter(|node| **node != leader);
    let (away, other) = (followers.next().unwrap(), followers.next().unwrap());
    lab.project.run(&["service", "stop", "--nodes", away]).ok();

    // Stopping the other follower would end the quorum: nothing is touched.
    lab.cluster("gate_timeout = \"3s\"\n", "");
    lab.project.run(&["set", "zookeeper", "3.8.1"]).ok();
    lab.project.build();
    let run = lab.project.run(&["promote", "--nodes", other]).exits(1);
    assert!(run.stderr.contains("may not be stopped now"), "{}", run.stderr);
    assert!(run.stderr.contains("a quorum needs 2"), "{}", run.stderr);
    assert_eq!(mode(lab.at(other, "client")).as_deref(), Some("follower"));
    assert_eq!(mode(lab.at(&leader, "client")).as_deref(), Some("leader"));
}

#[test]
fn a_leader_leaves_and_a_quorum_stays() {
    let Some(lab) = lab() else { return };
    lab.project.build();
    lab.rollout(0, &["promote"]);
    let gone = leader(&lab);
    let stay: Vec<&String> = lab.nodes.iter().filter(|node| **node != gone).collect();
    let writer = writer(stay.iter().map(|node| lab.at(node, "client")).collect());
    writer.goes_on(10, 10);
    let run = lab.project.run(&["leave", &gone]).exits(0);
    assert!(run.stderr.contains("server.N"), "{}", run.stderr);
    writer.goes_on(10, 20);
    let seen = writer.stop();
    assert_eq!(seen.expired, 0, "{seen:?}");
    let there: BTreeSet<String> = children(lab.at(&leader(&lab), "client")).into_iter().collect();
    let lost: Vec<_> = seen.written.iter().filter(|name| !there.contains(*name)).collect();
    assert!(!seen.written.is_empty() && lost.is_empty(), "{lost:?}");
    assert!(!lab.project.read("cluster.toml").contains(&format!("[nodes.{gone}]")));
    // Neither of the two that are left can be spared.
    let refused = lab.project.run(&["leave", stay[0]]).exits(1);
    assert!(refused.stderr.contains("a quorum needs 2"), "{}", refused.stderr);
    assert!(mode(lab.at(stay[0], "client")).is_some());
}
