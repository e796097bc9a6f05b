//! A real sshd for tests: on a loopback address of its own, with keys of its own, stopped when dropped.
//!
//! Several servers make several nodes. A server runs as the user that runs the tests, and lets that user in.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

// Also compiled into a bench, where this is not below `support`.
use super::net::Net;

/// The port of every server.
const PORT: u16 = 2222;
/// How long a server may take to answer.
const BACKSTOP: Duration = Duration::from_mins(2);

/// One running server.
pub(crate) struct Sshd {
    child: Child,
    net: Net,
    /// The port on [`Sshd::address`].
    pub(crate) port: u16,
    /// Its folder: keys, configuration, log.
    pub(crate) dir: PathBuf,
}

impl Sshd {
    /// Starts a server that keeps everything below `dir`, with an Ed25519 and an ECDSA host key.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, "")
    }

    /// The same, with further lines of `sshd_config`.
    pub(crate) fn start_with(dir: &Path, config: &str) -> Self {
        Self::start_on(Net::claim(), dir, config)
    }

    /// Starts a server on the first address of a network.
    pub(crate) fn start_on(net: Net, dir: &Path, config: &str) -> Self {
        fs::create_dir_all(dir).unwrap();
        for (name, kind) in [("host_ed25519", "ed25519"), ("host_ecdsa", "ecdsa"), ("client", "ed25519")] {
            if !dir.join(name).exists() {
                keygen(&["-q", "-t", kind, "-N", "", "-C", name, "-f"], &dir.join(name));
            }
        }
        // Where a package made no such folder, as in containers.
        if Path::new("/run").is_dir() {
            let _exists = fs::create_dir("/run/sshd");
        }
        if !dir.join("authorized_keys").exists() {
            fs::copy(dir.join("client.pub"), dir.join("authorized_keys")).unwrap();
        }
        let server = Self { child: launch(dir, net.ip(1), config), net, port: PORT, dir: dir.to_owned() };
        server.wait()
    }

    /// Waits until the server answers.
    fn wait(mut self) -> Self {
        let (deadline, address) = (Instant::now() + BACKSTOP, SocketAddr::from((self.address(), self.port)));
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < deadline, "sshd does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }

    /// Where the server listens; no other server does.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.net.ip(1)
    }

    /// The private key that it lets in; the public one is beside it, with `.pub`.
    pub(crate) fn client_key(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// The Ed25519 host key; `.pub` beside it. `host_ecdsa` is the other one.
    pub(crate) fn host_key(&self) -> PathBuf {
        self.dir.join("host_ed25519")
    }

    /// The name in `known_hosts`.
    pub(crate) fn host(&self) -> String {
        format!("[{}]:{}", self.address(), self.port)
    }

    /// A line of `known_hosts` with the Ed25519 host key.
    pub(crate) fn known_hosts(&self) -> String {
        let public = fs::read_to_string(self.dir.join("host_ed25519.pub")).unwrap();
        format!("{} {public}", self.host())
    }

    /// Lets one more public key in.
    pub(crate) fn authorize(&self, public: &Path) {
        let file = self.dir.join("authorized_keys");
        let keys = format!("{}{}", fs::read_to_string(&file).unwrap(), fs::read_to_string(public).unwrap());
        fs::write(file, keys).unwrap();
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Sends a signal to the processes that serve connections, not to the listener.
    pub(crate) fn signal_connections(&self, signal: Signal) {
        for pid in descendants(self.child.id()) {
            let _gone = kill_process(pid, signal);
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for pid in descendants(self.child.id()) {
            let _gone = kill_process(pid, Signal::KILL);
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Runs ssh-keygen with `arguments` and, last, `file`.
pub(crate) fn keygen(arguments: &[&str], file: &Path) {
    let done = Command::new("ssh-keygen").args(arguments).arg(file).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn launch(dir: &Path, address: Ipv4Addr, config: &str) -> Child {
    let at = dir.display();
    // The first value wins, so the caller's lines come first. A home of its own keeps the user's start-up files out
    // of the tests: they take their time, and leave locks behind if they are killed.
    let text = format!(
        "{config}\nPort {PORT}\nListenAddress {address}\nHostKey {at}/host_ed25519\nHostKey {at}/host_ecdsa\n\
         PidFile none\nAuthorizedKeysFile {at}/authorized_keys\nStrictModes no\nUsePAM no\n\
         SetEnv HOME={at}\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nUseDNS no\n\
         MaxStartups 100\n"
    );
    fs::write(dir.join("sshd_config"), text).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Every process below one, each before its own.
pub(crate) fn descendants(pid: u32) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all = Vec::new();
    for child in children.split_whitespace().filter_map(|text| text.parse::<u32>().ok()) {
        all.extend(i32::try_from(child).ok().and_then(Pid::from_raw));
        all.extend(descendants(child));
    }
    all
}
