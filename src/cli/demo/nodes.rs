//! The demo's three nodes: folders of this machine, driven directly or through an sshd of the demo's own.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use super::project::write as write_file;
use crate::cli::error::{Failure, exit};
use crate::fs::{IoResultExt as _, calls};

/// How many there are.
pub(super) const COUNT: usize = 3;

/// The nodes, and what keeps them reachable.
pub(super) struct Nodes {
    /// The port of each node's service.
    pub(super) ports: Vec<u16>,
    sshd: Option<Child>,
    _claim: TcpListener,
}

impl Nodes {
    /// Writes cluster.toml; with `ssh`, starts an sshd that the nodes are reached through.
    pub(super) fn set_up(folder: &Utf8Path, ssh: bool) -> Result<Self, Failure> {
        let (claim, mut ports) = claim_ports()?;
        let server = ports.pop().unwrap_or_default();
        ports.truncate(COUNT);
        let sshd = if ssh { Some(start_sshd(&folder.join("sshd"), server)?) } else { None };
        let mut text = String::from("schema = 1\nname = \"demo\"\n");
        if ssh {
            let dir = folder.join("sshd");
            let _never_fails = write!(
                text,
                "\n[ssh]\nport = {server}\nidentity = \"{dir}/client\"\nknown_hosts = \"{dir}/known_hosts\"\n"
            );
        }
        for (number, port) in ports.iter().enumerate() {
            let number = number + 1;
            let reach = if ssh { "address = \"127.0.0.1\"" } else { "transport = \"local\"" };
            let _never_fails = write!(
                text,
                "\n[nodes.n{number}]\n{reach}\nroot = \"{folder}/nodes/n{number}\"\nroles = [\"hello\"]\n\
                 vars = {{ port = {port} }}\n"
            );
        }
        text += "\n[rollout]\ncanary = 1             # the first node goes alone\nmax_unavailable = 1    \
                 # then one at a time\nmin_healthy = \"300ms\"  # short, for a demo\n\
                 gate_timeout = \"30s\"\nprogress_deadline = \"30s\"\non_failure = \"rollback-node\"\nconfirm_within = \"1m\"\n";
        write_file(&folder.join("cluster.toml"), text.as_bytes())?;
        Ok(Self { ports, sshd, _claim: claim })
    }

    /// The number of the sshd's process, which stays.
    pub(super) fn keep(mut self) -> Option<u32> {
        self.sshd.take().map(|child| child.id())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Some(mut child) = self.sshd.take() {
            // An error means that it is gone already.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// The ports that demos use: below those that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 10_000..12_000;

/// How many ports a demo has, with the one that claims them.
const BLOCK: u16 = 8;

/// Claims a block of ports on which no program listens, whatever the address. Returns all but the first, which claims
/// the block for as long as the listener lives.
fn claim_ports() -> Result<(TcpListener, Vec<u16>), Failure> {
    let blocks: Vec<u16> = PORTS.step_by(usize::from(BLOCK)).collect();
    let mut error = None;
    // Demos that start at the same time begin at different blocks.
    let begin = usize::try_from(std::process::id()).unwrap_or(0) % blocks.len();
    for first in blocks.iter().cycle().skip(begin).take(blocks.len()) {
        let claimed = TcpListener::bind(("127.0.0.1", *first)).and_then(|claim| {
            let ports: Vec<u16> = (first + 1..first + BLOCK).collect();
            for port in &ports {
                TcpListener::bind(("0.0.0.0", *port))?;
            }
            Ok((claim, ports))
        });
        match claimed {
            Ok(claimed) => return Ok(claimed),
            Err(why) => error = Some(why),
        }
    }
    let why = error.map_or_else(String::new, |error| format!(": {error}"));
    Err(Failure::new(
        exit::FAILED,
        "demo",
        format!("no free ports from {} to {}{why}", PORTS.start, PORTS.end - 1),
    ))
}

fn find(program: &str) -> Option<Utf8PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/local/sbin"]);
    folders.map(|folder| Utf8Path::new(folder).join(program)).find(|path| path.is_file())
}

fn needed(program: &str) -> Result<Utf8PathBuf, Failure> {
    find(program).ok_or_else(|| {
        Failure::new(exit::FAILED, "demo", format!("`--ssh` needs `{program}`, which is not installed"))
            .help("install the OpenSSH server (Debian: openssh-server), or leave out --ssh")
    })
}

/// An sshd on loopback with keys of its own, for whoever runs the demo.
fn start_sshd(dir: &Utf8Path, port: u16) -> Result<Child, Failure> {
    let (sshd, keygen) = (needed("sshd")?, needed("ssh-keygen")?);
    calls::create_dir_all(dir).at("create", dir)?;
    for name in ["host", "client"] {
        let key = dir.join(name);
        let made = Command::new(&keygen)
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "windlass-demo", "-f", key.as_str()])
            .status()
            .at("run", &keygen)?;
        if !made.success() {
            return Err(Failure::new(exit::FAILED, "demo", format!("{keygen} could not make {key}")));
        }
    }
    let public = |name: &str| {
        let path = dir.join(name).with_extension("pub");
        std::fs::read_to_string(&path).at("read", &path)
    };
    write_file(&dir.join("authorized_keys"), public("client")?.as_bytes())?;
    write_file(&dir.join("known_hosts"), format!("[127.0.0.1]:{port} {}", public("host")?).as_bytes())?;
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nPidFile none\n\
         AuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitRootLogin yes\nUseDNS no\nMaxStartups 100\n"
    );
    write_file(&dir.join("sshd_config"), config.as_bytes())?;
    if rustix::process::geteuid().is_root() {
        // Where sshd locks itself in; packages make it at boot.
        let _exists = std::fs::create_dir("/run/sshd");
    }
    let log = dir.join("log");
    let complaints = std::fs::File::create(&log).at("create", &log)?;
    let mut child = Command::new(&sshd)
        .args(["-D", "-e", "-f", dir.join("sshd_config").as_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints)
        .spawn()
        .at("run", &sshd)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline || child.try_wait().is_ok_and(|ended| ended.is_some()) {
            let _gone = child.kill();
            let _gone = child.wait();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(Failure::new(exit::FAILED, "demo", "sshd does not start").cause(said.trim()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}
