//! A real systemd, booted in namespaces, and nodes whose services are its units.

use serde_json::json;

use crate::lab::{Lab, Mode};
use crate::machine::Machine;

/// A lab whose commands run in a machine with systemd, its nodes' roots outside of /tmp.
fn lab(count: usize, more: &str) -> Option<(Machine, Lab)> {
    let mut lab = Lab::new(count, "");
    let machine = Machine::boot(&lab.dir)?;
    lab.through.clone_from(&machine.enter);
    cluster(&lab, &format!("[supervisor]\nkind = \"systemd\"\n{more}"));
    Some((machine, lab))
}

fn cluster(lab: &Lab, more: &str) {
    lab.cluster("", more);
    let path = lab.dir.join("cluster.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let root = format!("root = \"{}/", lab.dir.display());
    std::fs::write(&path, text.replace(&root, "root = \"/run/lab/")).unwrap();
}

#[test]
fn a_promotion_and_the_way_back() {
    let Some((machine, lab)) = lab(2, "") else { return };
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["1", "1"]);
    println!("{}", machine.run(&["systemctl", "list-units", "--no-pager", "windlass*"]));
    println!(
        "{}",
        machine.run(&["sh", "-c", "cat /etc/systemd/system/windlass*.service; ls -l /etc/systemd/system"])
    );
    lab.build("2", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["2", "2"]);
    let status = lab.json(0, &["status"]);
    let role = &status["nodes"][0]["roles"][0];
    assert_eq!((&role["release"], &role["process"]), (&json!("2-2"), &json!("running")));
    lab.expect(0, &["rollback"]);
    assert_eq!(lab.answers(), ["1", "1"]);
    lab.build("3", Mode::Dies);
    lab.expect(3, &["promote"]);
    assert_eq!(lab.answers(), ["1", "1"]);
    lab.expect(0, &["service", "stop"]);
    assert_eq!(lab.answers(), ["-", "-"]);
    let left = machine.run(&["sh", "-c", "find /etc/systemd/system -name 'windlass*'"]);
    assert_eq!(left, "");
}
