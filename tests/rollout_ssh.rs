//! The main path once more, over a real sshd.

use crate::support::rollout::{Lab, Mode};
use crate::support::sshd::Sshd;

#[test]
fn over_ssh_a_cluster_moves_on_goes_back_and_is_down_for_hardly_longer_than_its_service() {
    if !std::path::Path::new("/usr/sbin/sshd").exists() {
        crate::support::tools::skip("rollout over ssh: there is no sshd");
        return;
    }
    let servers = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(&servers.path().canonicalize().unwrap().join("sshd"));
    let known = servers.path().join("known_hosts");
    std::fs::write(&known, sshd.known_hosts()).unwrap();
    let user = std::process::Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap().trim().to_owned();
    let (address, port, key) = (sshd.address(), sshd.port, sshd.client_key());
    let lab = Lab::with(3, &["web"], "", |_, _| {
        format!("address = \"{address}\"\nport = {port}\nuser = {user:?}\nidentity = {key:?}\n")
    });
    let ssh = format!("[ssh]\nknown_hosts = {known:?}");
    lab.cluster("", &ssh);
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["1", "1", "1"]);
    lab.build("2", Mode::Good);
    let lines = lab.lines(0, &["promote"]);
    assert_eq!(lab.answers(), ["2", "2", "2"]);
    // How long that takes is measured in benches/. Here, that a node does nothing else while its service is down.
    for node in ["n1", "n2", "n3"] {
        let steps: Vec<(&str, &str)> = lines
            .iter()
            .filter(|line| line["node"] == node && line["step"].is_string())
            .filter(|line| line["event"] == "step-started" || line["event"] == "step-done")
            .map(|line| (line["event"].as_str().unwrap(), line["step"].as_str().unwrap()))
            .collect();
        let stop = steps.iter().position(|step| *step == ("step-started", "stop")).unwrap();
        let both = |step| [("step-started", step), ("step-done", step)];
        let down = ["stop", "start", "ready"].map(both).concat();
        assert_eq!(steps[stop..stop + down.len()], down, "{node}: {steps:?}");
        assert!(steps[..stop].contains(&("step-done", "activate")), "{node}: {steps:?}");
    }
    for node in lines.last().unwrap()["nodes"].as_array().unwrap() {
        let (down, tool) =
            (node["downtime_ms"].as_u64().unwrap(), node["tool_downtime_ms"].as_u64().unwrap());
        eprintln!("{}: down for {down} ms, {tool} ms of it the tool's", node["node"]);
        assert!(down >= tool && down > 0, "{node}");
    }
    lab.build("3", Mode::Sick("1500ms"));
    let finished = lab.finished(3, &["promote"]);
    assert_eq!(finished["nodes"][0]["state"], "rolled-back");
    assert_eq!(lab.answers(), ["2", "2", "2"]);
    let begun = std::time::Instant::now();
    lab.expect(0, &["rollback", "--now"]);
    eprintln!("rollback --now of 3 nodes over ssh took {:?}", begun.elapsed());
    lab.until("all answer with the first", || lab.answers() == ["1", "1", "1"]);
    assert_eq!(lab.json(0, &["status"])["nodes"][2]["roles"][0]["version"], "1");
}
