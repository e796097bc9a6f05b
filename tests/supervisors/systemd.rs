//! A real systemd, booted in namespaces, and nodes whose services are its units.

use std::path::Path;
use std::process::Command;

use camino::Utf8PathBuf;
use serde_json::json;
use windlass::agent::Root;
use windlass::agent::supervise::{Unit, unit_text};

use crate::supervisors::contract;
use crate::supervisors::machine::Machine;
use crate::support::rollout::{Lab, Mode};

/// A lab whose commands run in a machine with systemd, its nodes' roots outside of /tmp.
fn lab(count: usize, more: &str) -> Option<(Machine, Lab)> {
    let mut lab = Lab::foreign(count);
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

fn set_up() -> Option<(Machine, Lab)> {
    let (machine, lab) = lab(1, "")?;
    contract::set_up(&lab);
    Some((machine, lab))
}

#[test]
fn words_environment_and_limits_arrive_as_written() {
    let Some((machine, lab)) = set_up() else { return };
    contract::arrives_as_written(&lab, false, std::slice::from_ref(&machine.units));
    let said = machine.run(&[
        "sh",
        "-c",
        "systemd-analyze verify /etc/systemd/system/windlass-web*.service; echo $?",
    ]);
    let said: Vec<&str> = said.lines().filter(|line| !line.contains("Special user nobody")).collect();
    assert_eq!(said, ["0"]);
}

#[test]
fn starting_stopping_and_reloading() {
    let Some((_machine, lab)) = set_up() else { return };
    contract::starts_and_stops(&lab);
}

#[test]
fn what_ends_is_up_again_and_what_flaps_has_failed() {
    let Some((machine, lab)) = set_up() else { return };
    let state = ["systemctl", "show", "--property", "ActiveState", "windlass-web*.service"];
    contract::flaps(&lab, || machine.run(&state).contains("ActiveState=failed"));
}

#[test]
fn after_a_reboot_it_is_as_it_was_left() {
    let Some((mut machine, mut lab)) = lab(1, "") else { return };
    let reboot = |machine: &mut Machine, lab: &mut Lab| {
        machine.power_off();
        assert_eq!(lab.answers(), ["-"]);
        *machine = Machine::boot(&lab.dir).unwrap();
        lab.through.clone_from(&machine.enter);
    };
    let role = |lab: &Lab| lab.json(0, &["status"])["nodes"][0]["roles"][0].clone();
    for version in ["1", "2"] {
        lab.build(version, Mode::Good);
        lab.expect(0, &["promote"]);
    }
    for (wanted, release) in [("2", "2-2"), ("1", "1-1")] {
        if wanted == "1" {
            lab.expect(0, &["rollback"]);
        }
        reboot(&mut machine, &mut lab);
        lab.until("it is up by itself", || lab.answers() == [wanted]);
        let role = role(&lab);
        assert_eq!((&role["process"], &role["release"]), (&json!("running"), &json!(release)), "{role}");
        let service = lab.json(0, &["service", "status"]);
        assert_eq!(service["services"][0]["release"], release);
    }
    lab.expect(0, &["service", "stop"]);
    reboot(&mut machine, &mut lab);
    assert_eq!(role(&lab)["process"], "stopped");
    assert_eq!(lab.answers(), ["-"]);
}

#[test]
fn a_root_with_an_awkward_name() {
    let mut lab = Lab::foreign(1);
    let Some(machine) = Machine::boot(&lab.dir) else { return };
    lab.through.clone_from(&machine.enter);
    let name = "od d 100% $n [x]* ;y #é";
    let at = |name: &str| {
        cluster(&lab, "[supervisor]\nkind = \"systemd\"\n");
        let path = lab.dir.join("cluster.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"/run/lab/n1\"", &format!("'/run/lab/{name}'"))).unwrap();
    };
    at(name);
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["1"]);
    lab.expect(0, &["service", "stop"]);
    // What systemd cannot take is said, and nothing is left.
    at("quote\"d");
    let said = lab.expect(1, &["promote"]);
    assert!(said.contains("cannot hold the path") && said.contains("choose a root"), "{said}");
    assert_eq!(machine.run(&["sh", "-c", "find /etc/systemd/system -name 'windlass*'"]), "");
}

#[test]
fn names_that_systemd_takes_no_variables_of_are_refused() {
    let Some((_machine, lab)) = lab(1, "") else { return };
    let path = lab.dir.join("recipes/web.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("env = { ", "env = { \"node.name\" = \"x\", ")).unwrap();
    lab.build("1", Mode::Good);
    let said = lab.expect(1, &["promote"]);
    assert!(said.contains("node.name") && said.contains("systemd"), "{said}");
}

#[test]
fn without_systemd_it_is_said_before_anything_is_stopped() {
    if Path::new("/run/systemd/system").exists() {
        return crate::support::tools::skip("a machine without systemd: this one has it");
    }
    let lab = Lab::foreign(1);
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    cluster_here(&lab);
    let said = lab.expect(1, &["promote"]);
    assert!(said.contains("systemd does not run on this node") && said.contains("pidfile"), "{said}");
    assert_eq!(lab.answers(), ["1"]);
}

fn cluster_here(lab: &Lab) {
    lab.cluster("", "[supervisor]\nkind = \"systemd\"\n");
}

/// Also where none can be booted: what systemd's own checker says about units.
#[test]
fn systemd_finds_nothing_wrong_with_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        crate::support::tools::skip("systemd-analyze verify: there is no systemd-analyze here");
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = Utf8PathBuf::from_path_buf(temporary.path().canonicalize().unwrap()).unwrap();
    let root = Root::create(&dir.join("ro ot%"), 0o700).unwrap();
    let role = root.role(&"kafka".parse().unwrap());
    role.create().unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_windlass"), role.runner()).unwrap();
    let release = "3-1.0".parse().unwrap();
    let unit = json!({
        "format": 1, "kind": "kafka", "user": "daemon", "group": "nogroup", "supervisor": { "kind": "systemd" },
        "capabilities": ["CAP_IPC_LOCK"], "command": std::iter::once("/bin/true").chain(contract::HOSTILE).collect::<Vec<_>>(),
        "env": {}, "signal": "TERM", "timeout_ms": 180_000, "cwd": role.release(&release), "log": role.log(),
        "limits": { "nofile": 65535, "memlock": "unlimited", "as": "unlimited", "core": 0, "cpu": 7, "data": 1,
            "fsize": 1, "locks": 1, "msgqueue": 1, "nice": 20, "nproc": 1, "rss": 1, "rtprio": 1, "rttime": 1,
            "sigpending": 1, "stack": 1 },
        "ready": null,
    });
    let unit: Unit = serde_json::from_value(unit).unwrap();
    for system in [true, false] {
        let text = unit_text(&role, &release, &unit, system).unwrap();
        let both = ["Restart=always", "KillSignal=SIGTERM", "TimeoutStopSec=180000ms", "LimitNOFILE=65535"];
        // A user's own manager gives nobody another user, and hides nothing.
        let rights = ["User=daemon", "Group=nogroup", "NoNewPrivileges=yes", "ProtectSystem=full"];
        for line in both.iter().chain(rights.iter().filter(|_| system)) {
            assert!(text.lines().any(|one| one == *line), "{line}: {text}");
        }
        let file = dir.join("windlass-kafka.service");
        std::fs::write(&file, text).unwrap();
        let scope = if system { "--system" } else { "--user" };
        let out = Command::new("systemd-analyze")
            .args(["verify", "--man=no", scope, file.as_str()])
            .env("SYSTEMD_UNIT_PATH", format!("{dir}:/lib/systemd/system"))
            .env("XDG_RUNTIME_DIR", dir.as_str())
            .output()
            .unwrap();
        let said = crate::support::rollout::text(&out);
        // What other units of this machine are like is not asked here.
        let own: Vec<&str> = said.lines().filter(|line| line.contains("windlass-kafka")).collect();
        assert!(own.is_empty(), "{own:?}");
    }
}

/// An agent that is not root has its user's own manager, if that outlives the user's log-in.
#[test]
fn a_plain_users_own_manager() {
    const USER: &str = r"
        set -e
        mkdir -p /run/lab/home /run/user/4242
        { cat /etc/passwd; echo 'hauler:x:4242:4242::/run/lab/home:/bin/sh'; } > /run/passwd
        mount --bind /run/passwd /etc/passwd
        mkdir -p /var/lib/systemd
        mount -t tmpfs tmpfs /var/lib/systemd
        for dir in home n1; do mkdir -p /run/lab/$dir; chown -R 4242:4242 /run/lab/$dir; done
        chown 4242:4242 /run/user/4242
        chmod 700 /run/user/4242
        chmod 755 /run/lab
        mkdir -p /run/lab/home/.config/systemd/user
        printf '[Unit]\nDescription=all\nDefaultDependencies=no\n' > /run/lab/home/.config/systemd/user/default.target
        for unit in basic shutdown network-online local-fs remote-fs time-sync; do
            cp /run/lab/home/.config/systemd/user/default.target /run/lab/home/.config/systemd/user/$unit.target
        done
        chown -R 4242:4242 /run/lab/home
        printf '[Service]\nType=notify\nUser=hauler\nDelegate=yes\nEnvironment=XDG_RUNTIME_DIR=/run/user/4242 SYSTEMD_UNIT_PATH=/run/lab/home/.config/systemd/user HOME=/run/lab/home\nExecStart=/lib/systemd/systemd --user\n' > /run/lab/units/user@4242.service
        systemctl daemon-reload
        systemctl start user@4242.service
    ";
    let Some((machine, mut lab)) = lab(1, "") else { return };
    lab.build("1", Mode::Good);
    let said = machine.run(&["sh", "-c", USER]);
    if !said.is_empty() {
        crate::support::tools::skip(&format!("systemd of a user's own: {said}"));
        return;
    }
    let give =
        "cd /run/lab && chown 4242 . && chown -R 4242 install recipes conf out windlass.* cluster.toml";
    assert_eq!(machine.run(&["sh", "-c", give]), "");
    for word in [
        "setpriv",
        "--reuid=4242",
        "--regid=4242",
        "--clear-groups",
        "env",
        "-u",
        "XDG_RUNTIME_DIR",
        "HOME=/run/lab/home",
    ] {
        lab.through.push(word.to_owned());
    }
    let said = lab.expect(1, &["promote"]);
    assert!(said.contains("lingering is off") && said.contains("loginctl enable-linger hauler"), "{said}");
    machine.run(&["sh", "-c", "mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/hauler"]);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["1"]);
    lab.build("2", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["2"]);
    lab.expect(0, &["rollback"]);
    assert_eq!(lab.answers(), ["1"]);
    assert!(lab.dir.join("home/.config/systemd/user/default.target.wants").is_dir());
    lab.expect(0, &["service", "stop"]);
    assert_eq!(lab.answers(), ["-"]);
}

#[test]
fn the_guard_goes_back() {
    let Some((_machine, lab)) = set_up() else { return };
    contract::guard_goes_back(&lab, "/run/lab/n1");
}
