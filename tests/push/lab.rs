//! An sshd, nodes as folders behind it, and the connector that reaches them.

use std::path::PathBuf;
use std::sync::LazyLock;

use camino::{Utf8Path, Utf8PathBuf};
use windlass::inventory::{Node, Reach, SshSettings, SupervisorKind};
use windlass::model::Digest;
use windlass::recipe::{Place, Source};
use windlass::remote::AgentBinary;
use windlass::transport::{AgentSocket, Ask, ConfigFile, Connector, SshOptions};

use crate::support::sshd::Sshd;

/// The windlass under test, without what only a debugger reads: uploads are quicker.
static PROGRAM: LazyLock<(tempfile::TempDir, Utf8PathBuf)> = LazyLock::new(|| {
    let temporary = tempfile::tempdir().unwrap();
    let own = env!("CARGO_BIN_EXE_windlass");
    let path = Utf8PathBuf::from_path_buf(temporary.path().join("windlass")).unwrap();
    let stripped = std::process::Command::new("strip").args(["-o", path.as_str(), own]).status();
    if !stripped.is_ok_and(|status| status.success()) {
        std::fs::copy(own, &path).unwrap();
    }
    (temporary, path)
});

pub(crate) fn program() -> &'static Utf8Path {
    &PROGRAM.1
}

pub(crate) struct Lab {
    _temporary: tempfile::TempDir,
    pub(crate) dir: PathBuf,
    pub(crate) sshd: Sshd,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        let sshd = Sshd::start(&dir.join("sshd"));
        std::fs::write(dir.join("known_hosts"), sshd.known_hosts()).unwrap();
        Self { _temporary: temporary, dir, sshd }
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.join(name)).unwrap()
    }

    pub(crate) fn connector() -> Connector {
        let options = SshOptions {
            config: ConfigFile::None,
            agent: AgentSocket::None,
            ask: Ask::Never,
            ..SshOptions::default()
        };
        Connector::new(options)
    }

    /// A node whose root is a folder of the lab.
    pub(crate) fn node(&self, name: &str) -> Node {
        let ssh = SshSettings {
            port: Some(self.sshd.port),
            user: None,
            identity: Some(Utf8PathBuf::from_path_buf(self.sshd.client_key()).unwrap()),
            known_hosts: Some(self.path("known_hosts")),
            accept_new: None,
            jump: None,
        };
        Node {
            name: name.parse().unwrap(),
            address: self.sshd.address().to_string(),
            reach: Reach::Ssh(ssh),
            zone: None,
            roles: ["web".parse().unwrap()].into(),
            vars: serde_json::Map::new(),
            root: self.path(name),
            supervisor: SupervisorKind::Pidfile,
            supervisor_config: None,
            agent: None,
            place: Place::start_of(&Source::new("cluster.toml", "")),
        }
    }

    pub(crate) fn agent() -> AgentBinary {
        AgentBinary::at(program()).unwrap()
    }

    /// What it is called on nodes.
    pub(crate) fn agent_name() -> String {
        format!("windlass-{}", Digest::of(&std::fs::read(program()).unwrap()).short())
    }
}

/// Waits for something on a runtime of its own.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
