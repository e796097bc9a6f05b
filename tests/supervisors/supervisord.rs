//! A real supervisord of the test's own, and nodes whose services are its programs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::supervisors::contract;
use crate::support::rollout::{Lab, Mode};
use crate::support::tools::have;

/// A supervisord in a folder of its own; it ends with the test, and everything that it started.
pub(crate) struct Supervisord {
    child: Child,
    pub(crate) config: PathBuf,
}

impl Supervisord {
    /// `None`, having said so, where there is none.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        if !have("supervisord") || !have("supervisorctl") {
            return None;
        }
        std::fs::create_dir_all(dir.join("sv/conf.d")).unwrap();
        let config = dir.join("sv/supervisord.conf");
        let text = "[unix_http_server]\nfile=%(here)s/s.sock ; the socket\nchmod=0700\n\
            [supervisord]\nnodaemon=true\nlogfile=%(here)s/log\npidfile=%(here)s/pid\nchildlogdir=%(here)s\n\
            [rpcinterface:supervisor]\n\
            supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
            [include]\nfiles = conf.d/*.conf\n";
        std::fs::write(&config, text).unwrap();
        let child = Command::new("supervisord")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_mins(2);
        while !dir.join("sv/s.sock").exists() {
            assert!(Instant::now() < until, "supervisord does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, config })
    }

    /// What goes into cluster.toml.
    pub(crate) fn cluster(&self) -> String {
        format!("[supervisor]\nkind = \"supervisord\"\nconfig = \"{}\"\n", self.config.display())
    }

    pub(crate) fn sections(&self) -> Vec<PathBuf> {
        let dir = self.config.parent().unwrap().join("conf.d");
        let mut found: Vec<PathBuf> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    }
}

impl Supervisord {
    /// Ends it, and what it started.
    pub(crate) fn end(&mut self) {
        // It stops its programs first.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Supervisord {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn a_promotion_and_the_way_back() {
    let lab = Lab::foreign(2);
    let Some(supervisord) = Supervisord::start(&lab.dir) else { return };
    lab.cluster("", &supervisord.cluster());
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["1", "1"]);
    let sections = supervisord.sections();
    assert_eq!(sections.len(), 2, "{sections:?}");
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
    assert_eq!(supervisord.sections(), Vec::<PathBuf>::new());
}

fn set_up() -> Option<(Supervisord, Lab)> {
    let lab = Lab::foreign(1);
    let supervisord = Supervisord::start(&lab.dir)?;
    lab.cluster("", &supervisord.cluster());
    contract::set_up(&lab);
    Some((supervisord, lab))
}

#[test]
fn words_environment_and_limits_arrive_as_written() {
    let Some((supervisord, lab)) = set_up() else { return };
    contract::arrives_as_written(&lab, true, &[supervisord.config.parent().unwrap().to_owned()]);
}

#[test]
fn starting_stopping_and_reloading() {
    let Some((_supervisord, lab)) = set_up() else { return };
    contract::starts_and_stops(&lab);
}

#[test]
fn what_ends_is_up_again_and_what_flaps_has_failed() {
    let Some((supervisord, lab)) = set_up() else { return };
    let given_up = || {
        let socket = supervisord.config.with_file_name("s.sock");
        let mut status = Command::new("supervisorctl");
        let out = status.args(["-s", &format!("unix://{}", socket.display()), "status"]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).contains("FATAL")
    };
    contract::flaps(&lab, given_up);
}

#[test]
fn the_guard_goes_back() {
    let Some((_supervisord, lab)) = set_up() else { return };
    contract::guard_goes_back(&lab, lab.dir.join("n1").to_str().unwrap());
}

#[test]
fn from_the_pidfile_supervisor_and_back() {
    let lab = Lab::foreign(1);
    let Some(supervisord) = Supervisord::start(&lab.dir) else { return };
    contract::set_up(&lab);
    let to = || lab.cluster("", &supervisord.cluster());
    contract::changes_hands(&lab, to, || !supervisord.sections().is_empty(), true);
}

#[test]
fn a_root_with_an_awkward_name() {
    let lab = Lab::foreign(1);
    let Some(supervisord) = Supervisord::start(&lab.dir) else { return };
    lab.cluster("", &supervisord.cluster());
    let path = lab.dir.join("cluster.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let root = lab.dir.join("od d 100% $n \"q\" [x]* \\n é");
    let plain = format!("\"{}\"", lab.dir.join("n1").display());
    std::fs::write(&path, text.replace(&plain, &format!("'{}'", root.display()))).unwrap();
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    assert_eq!(lab.answers(), ["1"]);
    lab.expect(0, &["service", "stop"]);
    assert_eq!(lab.answers(), ["-"]);
}

#[test]
fn a_supervisord_that_is_down_or_refuses_is_said() {
    let lab = Lab::foreign(1);
    let Some(mut supervisord) = Supervisord::start(&lab.dir) else { return };
    lab.cluster("", &supervisord.cluster());
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
    // Another's program that cannot be read keeps ours from being taken.
    let broken = lab.dir.join("sv/conf.d/broken.conf");
    std::fs::write(&broken, "[program:other]\nautostart=true\n").unwrap();
    lab.json(0, &["service", "stop"]);
    let said = lab.expect(1, &["service", "start"]);
    assert!(said.contains("cannot read its configuration"), "{said}");
    std::fs::remove_file(&broken).unwrap();
    lab.json(0, &["service", "start"]);
    lab.until("it answers", || lab.answers() == ["1"]);
    supervisord.end();
    let status = lab.json(0, &["status"]);
    let role = &status["nodes"][0]["roles"][0];
    assert_eq!((&role["process"], &role["release"]), (&json!("unknown"), &json!("1-1")));
    assert!(role.to_string().contains("supervisord does not answer"), "{role}");
    let said = lab.expect(1, &["service", "start"]);
    assert!(said.contains("supervisord does not answer"), "{said}");
}
