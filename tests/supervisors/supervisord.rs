//! A real supervisord of the test's own, and nodes whose services are its programs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::{Lab, Mode};

/// A supervisord in a folder of its own; it ends with the test, and everything that it started.
pub(crate) struct Supervisord {
    child: Child,
    pub(crate) config: PathBuf,
}

impl Supervisord {
    /// `None`, having said so, where there is none.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        if Command::new("supervisord").arg("--version").output().is_err() {
            eprintln!("SKIPPED: supervisord: there is no supervisord here");
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
        let until = Instant::now() + Duration::from_secs(20);
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

impl Drop for Supervisord {
    fn drop(&mut self) {
        // It stops its programs first.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn a_promotion_and_the_way_back() {
    let lab = Lab::new(2, "");
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
