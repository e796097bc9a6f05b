//! The transport against a real sshd: keys and agents, host keys, jump hosts and the configuration, streams, uploads,
//! and what happens when the other side goes, hangs or is far away.
//!
//! Not here: what is done over it (tests/push), rollouts whose network breaks (tests/survive).

use crate::support::net::Net;
use crate::support::sshd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::Signal;
use sshd::{Sshd, keygen};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use windlass::transport::{
    AgentSocket, Ask, ConfigFile, Connection, Connector, ErrorKind, ExitStatus, Process, Reason, SshOptions,
    SshTarget, Target, TransportError, Via,
};

/// How long anything may take that has to happen.
const BACKSTOP: Duration = Duration::from_mins(2);

/// A folder with a server in it and what a client needs.
struct Bed {
    sshd: Sshd,
    folder: TempDir,
}

impl Bed {
    fn new() -> Self {
        Self::with("")
    }

    fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sshd = Sshd::start_with(&folder.path().join("node"), config);
        fs::write(folder.path().join("known_hosts"), sshd.known_hosts()).unwrap();
        Self { sshd, folder }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        utf8(&self.folder.path().join(name))
    }

    fn ssh(&self) -> SshTarget {
        SshTarget {
            host: self.sshd.address().to_string(),
            port: Some(self.sshd.port),
            identity: Some(utf8(&self.sshd.client_key())),
            known_hosts: Some(self.path("known_hosts")),
            ..SshTarget::default()
        }
    }

    fn options(&self) -> SshOptions {
        SshOptions {
            config: ConfigFile::None,
            agent: AgentSocket::None,
            ask: Ask::Never,
            home: Some(self.path("home")),
            ..SshOptions::default()
        }
    }

    async fn connect(&self) -> Connection {
        connect(self.options(), self.ssh()).await.unwrap()
    }
}

fn utf8(path: &Path) -> Utf8PathBuf {
    Utf8PathBuf::from_path_buf(path.to_owned()).unwrap()
}

fn target(ssh: SshTarget) -> Target {
    Target { node: "es1".to_owned(), via: Via::Ssh(ssh) }
}

async fn connect(options: SshOptions, ssh: SshTarget) -> Result<Connection, TransportError> {
    Connector::new(options).connect(&target(ssh)).await
}

async fn says(connection: &Connection, command: &str) -> String {
    let output = connection.exec(command).await.unwrap().output("").await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A real ssh-agent, stopped when dropped.
struct Agent {
    child: std::process::Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path, key: &Path) -> Self {
        let socket = folder.join("agent");
        let child =
            Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + BACKSTOP;
        while !socket.exists() {
            assert!(Instant::now() < until, "ssh-agent does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let added = Command::new("ssh-add").arg(key).env("SSH_AUTH_SOCK", &socket).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        Self { child, socket }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[tokio::test]
async fn a_key_lets_in_and_commands_end_as_they_do() {
    let bed = Bed::new();
    let node = bed.connect().await;
    assert_eq!(says(&node, "echo hello").await, "hello\n");
    let output = node.exec("cat; echo no >&2; exit 7").await.unwrap().output("in").await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"in"[..], &b"no\n"[..]));
    assert_eq!(output.status, ExitStatus::Code(7));
    let ended = node.exec("kill -KILL $$").await.unwrap().wait().await.unwrap();
    assert_eq!(ended, ExitStatus::Signal("KILL".to_owned()));
    // What is left behind holds the streams, not the exit.
    let left = node.exec("sleep 150 & exit 2").await.unwrap().wait();
    assert_eq!(timeout(BACKSTOP, left).await.unwrap().unwrap(), ExitStatus::Code(2));
    node.close().await;
    let error = node.exec("true").await.unwrap_err();
    assert_eq!((error.kind(), error.node()), (ErrorKind::Lost, "es1"));
}

#[tokio::test]
async fn the_agent_lets_in() {
    let bed = Bed::new();
    let agent = Agent::start(bed.folder.path(), &bed.sshd.client_key());
    let options = SshOptions { agent: AgentSocket::At(utf8(&agent.socket)), ..bed.options() };
    let ssh = SshTarget { identity: None, ..bed.ssh() };
    let node = connect(options, ssh).await.unwrap();
    assert_eq!(says(&node, "echo in").await, "in\n");
}

#[tokio::test]
async fn rsa_keys_and_rsa_hosts_work() {
    let bed = Bed::new();
    let rsa = bed.folder.path().join("rsa");
    keygen(&["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"], &rsa);
    let old = bed.folder.path().join("rsa_pem");
    keygen(&["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f"], &old);
    let other = Sshd::start_with(&bed.folder.path().join("rsa_node"), &format!("HostKey {}", rsa.display()));
    for key in [&rsa, &old] {
        let public = key.with_extension("pub");
        bed.sshd.authorize(&public);
        other.authorize(&public);
        connect(bed.options(), SshTarget { identity: Some(utf8(key)), ..bed.ssh() }).await.unwrap();
    }
    let public = fs::read_to_string(rsa.with_extension("pub")).unwrap();
    fs::write(bed.path("known_hosts"), format!("{} {public}", other.host())).unwrap();
    let host = other.address().to_string();
    let ssh = SshTarget { host, port: Some(other.port), identity: Some(utf8(&rsa)), ..bed.ssh() };
    connect(bed.options(), ssh).await.unwrap();
}

#[tokio::test]
async fn a_passphrase_is_asked_for_once_and_only_where_somebody_is_there() {
    let bed = Bed::new();
    let key = bed.folder.path().join("locked");
    keygen(&["-q", "-t", "ed25519", "-N", "open sesame", "-f"], &key);
    bed.sshd.authorize(&key.with_extension("pub"));
    let ssh = SshTarget { identity: Some(utf8(&key)), ..bed.ssh() };
    let error = connect(bed.options(), ssh.clone()).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::NeedsPassphrase { .. }), "{error}");
    assert!(error.help()[0].starts_with("add it to an agent: ssh-add /"), "{:?}", error.help());

    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let ask = Ask::With(Arc::new(move |_: &Utf8Path| {
        counter.fetch_add(1, Ordering::SeqCst);
        Some("open sesame".to_owned())
    }));
    let connector = Connector::new(SshOptions { ask, ..bed.options() });
    let target = target(ssh.clone());
    let (first, second) = tokio::join!(connector.connect(&target), connector.connect(&target));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    let ask = Ask::With(Arc::new(|_: &Utf8Path| Some("open barley".to_owned())));
    let error = connect(SshOptions { ask, ..bed.options() }, ssh).await.unwrap_err();
    assert!(error.to_string().contains("the passphrase is wrong"), "{error}");
    assert!(!format!("{error:?}").contains("barley"));
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_its_fingerprint() {
    let bed = Bed::new();
    let key = bed.folder.path().join("wrong");
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f"], &key);
    let error =
        connect(bed.options(), SshTarget { identity: Some(utf8(&key)), ..bed.ssh() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    let text = error.to_string();
    assert!(text.contains(&format!("{}:{}", bed.sshd.address(), bed.sshd.port)), "{text}");
    assert!(text.contains("/wrong (SHA256:"), "{text}");
    let missing = SshTarget { identity: Some("/no/such/key".into()), ..bed.ssh() };
    let error = connect(bed.options(), missing).await.unwrap_err();
    assert!(
        error.help().iter().any(|line| line.contains("/no/such/key: there is no such file")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_changed_host_key_stops_and_shows_both() {
    let bed = Bed::new();
    let other = fs::read_to_string(bed.sshd.dir.join("client.pub")).unwrap();
    fs::write(bed.path("known_hosts"), format!("# first\n{} {other}", bed.sshd.host())).unwrap();
    for accept_new in [false, true] {
        let ssh = SshTarget { accept_new: Some(accept_new), ..bed.ssh() };
        let error = connect(bed.options(), ssh).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostKey);
        let Reason::HostKeyChanged { expected, found, line, .. } = error.reason() else { panic!("{error}") };
        assert!(expected.starts_with("SHA256:") && found.starts_with("SHA256:") && expected != found);
        assert_eq!(*line, 2);
    }
}

#[tokio::test]
async fn an_unknown_host_is_refused_or_recorded() {
    let bed = Bed::new();
    fs::remove_file(bed.path("known_hosts")).unwrap();
    let error = connect(bed.options(), bed.ssh()).await.unwrap_err();
    let Reason::HostKeyUnknown { entry, .. } = error.reason() else { panic!("{error}") };
    assert!(bed.sshd.known_hosts().starts_with(entry.as_str()), "{entry}");
    assert!(!bed.path("known_hosts").exists());

    let ssh = SshTarget { accept_new: Some(true), ..bed.ssh() };
    connect(bed.options(), ssh).await.unwrap();
    let recorded = fs::read_to_string(bed.path("known_hosts")).unwrap();
    assert_eq!(recorded.trim(), entry);
    connect(bed.options(), bed.ssh()).await.unwrap();
}

#[tokio::test]
async fn hashed_revoked_and_other_algorithms_on_record() {
    let bed = Bed::new();
    keygen(&["-H", "-f"], bed.path("known_hosts").as_std_path());
    assert!(fs::read_to_string(bed.path("known_hosts")).unwrap().starts_with("|1|"));
    connect(bed.options(), bed.ssh()).await.unwrap();

    // Only ECDSA on record: it is asked for, although Ed25519 comes first otherwise.
    let ecdsa = fs::read_to_string(bed.sshd.dir.join("host_ecdsa.pub")).unwrap();
    fs::write(bed.path("known_hosts"), format!("{} {ecdsa}", bed.sshd.host())).unwrap();
    connect(bed.options(), bed.ssh()).await.unwrap();

    let revoked = format!("{}@revoked * {}", bed.sshd.known_hosts(), ecdsa);
    let ed25519 = fs::read_to_string(bed.sshd.dir.join("host_ed25519.pub")).unwrap();
    fs::write(bed.path("known_hosts"), format!("{revoked}@revoked * {ed25519}")).unwrap();
    let error = connect(bed.options(), bed.ssh()).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::HostKeyRevoked { line: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_host_certificate_counts_with_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, ca) = (folder.path().join("node"), folder.path().join("ca"));
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f"], &ca);
    fs::create_dir_all(&dir).unwrap();
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f"], &dir.join("host_ed25519"));
    let sign = |name: &str| {
        let ca = ca.to_str().unwrap();
        keygen(&["-q", "-s", ca, "-h", "-I", "id", "-n", name], &dir.join("host_ed25519.pub"));
    };
    let net = Net::claim();
    let address = net.ip(1);
    sign(&address.to_string());
    let config = format!("HostCertificate {}/host_ed25519-cert.pub", dir.display());
    let bed = Bed { sshd: Sshd::start_on(net, &dir, &config), folder };
    let authority = fs::read_to_string(ca.with_extension("pub")).unwrap();
    fs::write(bed.path("known_hosts"), format!("@cert-authority [{address}]:* {authority}")).unwrap();
    connect(bed.options(), bed.ssh()).await.unwrap();

    fs::write(bed.path("known_hosts"), bed.sshd.known_hosts()).unwrap();
    connect(bed.options(), bed.ssh()).await.unwrap();

    sign("elsewhere");
    let bed = Bed { sshd: Sshd::start_with(&dir, &config), folder: bed.folder };
    fs::write(bed.path("known_hosts"), format!("@cert-authority * {authority}")).unwrap();
    let error = connect(bed.options(), bed.ssh()).await.unwrap_err();
    let wanted = format!("it is for elsewhere, not for {}", bed.sshd.address());
    assert!(error.to_string().contains(&wanted), "{error}");
}

#[tokio::test]
async fn jump_hosts_and_the_configuration_are_followed() {
    let bed = Bed::new();
    let bastions = ["j1", "j2"].map(|name| Sshd::start(&bed.folder.path().join(name)));
    let known: String = bastions.iter().map(Sshd::known_hosts).collect();
    fs::write(bed.path("known_hosts"), format!("{known}{}", bed.sshd.known_hosts())).unwrap();
    let host = |name: &str, bastion: &Sshd| {
        let (port, key) = (bastion.port, bastion.client_key());
        let (address, key) = (bastion.address(), key.display());
        format!("Host {name}\n HostName {address}\n Port {port}\n IdentityFile {key}\n")
    };
    let hosts = host("j1", &bastions[0]) + &host("j2", &bastions[1]);
    let config = format!(
        "{hosts}Host n*e !nope\n HostName {}\n Port {}\n IdentityFile {}\n ProxyJump j1,j2\n\
         Host *\n IdentitiesOnly yes\n UserKnownHostsFile {}\n",
        bed.sshd.address(),
        bed.sshd.port,
        bed.sshd.client_key().display(),
        bed.path("known_hosts"),
    );
    fs::create_dir_all(bed.path("home/.ssh/conf.d")).unwrap();
    fs::write(bed.path("home/.ssh/config"), "Include conf.d/*\n").unwrap();
    fs::write(bed.path("home/.ssh/conf.d/cluster"), config).unwrap();
    let options = SshOptions { config: ConfigFile::Usual, ..bed.options() };
    let connector = Connector::new(options.clone());
    let through = target(SshTarget { host: "node".to_owned(), ..SshTarget::default() });
    let (first, second) = tokio::join!(connector.connect(&through), connector.connect(&through));
    let (first, second) = (first.unwrap(), second.unwrap());
    let server = format!(" {} {}\n", bed.sshd.address(), bed.sshd.port);
    assert!(says(&first, "echo $SSH_CONNECTION").await.ends_with(&server));
    assert_eq!(says(&second, "echo 2").await, "2\n");
    for bastion in &bastions {
        assert_eq!(bastion.log().matches("Accepted publickey").count(), 1, "{}", bastion.log());
    }
    // The caller's word wins over the configuration.
    let direct = SshTarget { host: "node".to_owned(), jump: Some("none".to_owned()), ..SshTarget::default() };
    connect(options.clone(), direct).await.unwrap();

    drop(bastions);
    let error =
        connect(options, SshTarget { host: "node".to_owned(), ..SshTarget::default() }).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::Jump { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_jump_host_for_everybody_is_not_its_own_and_circles_are_told() {
    let bed = Bed::new();
    let bastion = Sshd::start(&bed.folder.path().join("bastion"));
    bastion.authorize(&bed.sshd.client_key().with_extension("pub"));
    fs::write(bed.path("known_hosts"), bastion.known_hosts() + &bed.sshd.known_hosts()).unwrap();
    let config = format!(
        "Host bastion\n HostName {}\n Port {}\nHost a\n ProxyJump b\nHost b\n ProxyJump a\n\
         Host *\n HostName {}\n ProxyJump bastion\n",
        bastion.address(),
        bastion.port,
        bed.sshd.address(),
    );
    fs::write(bed.path("config"), config).unwrap();
    let options = SshOptions { config: ConfigFile::Only(bed.path("config")), ..bed.options() };
    let node = SshTarget { host: "node".to_owned(), ..bed.ssh() };
    connect(options.clone(), node).await.unwrap();
    assert_eq!(bastion.log().matches("Accepted publickey").count(), 1);
    let circle = SshTarget { host: "a".to_owned(), ..bed.ssh() };
    let error = timeout(BACKSTOP, connect(options, circle)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(format!("{error:?}").contains("in a circle: a, b and back"), "{error:?}");
}

/// Bytes that do not compress and are the same each time.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(size.div_ceil(8)).flatten().take(size).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn much_goes_both_ways_at_once_and_rekeying_does_not_matter() {
    let bed = Bed::with("RekeyLimit 16M");
    let node = bed.connect().await;
    let sent = Arc::new(noise(64 << 20));
    let Process { mut stdin, mut stdout, stderr: _, exit } = node.exec("cat").await.unwrap();
    let to_send = sent.clone();
    let writing = tokio::spawn(async move {
        stdin.write_all(&to_send).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let mut got = Vec::with_capacity(sent.len());
    stdout.read_to_end(&mut got).await.unwrap();
    writing.await.unwrap();
    assert!(exit.wait().await.unwrap().success());
    assert!(got == *sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_sleeps_holds_up_nobody_else() {
    let bed = Bed::new();
    let node = bed.connect().await;
    let file = bed.path("written");
    let command = format!("head -c 40000000 /dev/zero; head -c 1000000 /dev/zero >&2; touch {file}");
    let sleeping = node.exec(&command).await.unwrap();
    assert_eq!(timeout(BACKSTOP, says(&node, "echo quick")).await.unwrap(), "quick\n");
    // The connection takes all of it, although nothing reads it here.
    let until = Instant::now() + BACKSTOP;
    while !file.exists() {
        assert!(Instant::now() < until, "its writer is held up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(timeout(BACKSTOP, says(&node, "echo quick")).await.unwrap(), "quick\n");
    let output = sleeping.output("").await.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (40_000_000, 1_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_commands_at_once_with_and_without_room_for_them() {
    for config in ["", "MaxSessions 2", "MaxSessions 100"] {
        let bed = Bed::with(config);
        let node = bed.connect().await;
        let mut running = tokio::task::JoinSet::new();
        for number in 0..50 {
            let node = node.clone();
            running.spawn(async move {
                let said = says(&node, &format!("sleep 0.1; echo {number}")).await;
                assert_eq!(said, format!("{number}\n"));
            });
        }
        timeout(Duration::from_mins(1), running.join_all()).await.unwrap();
        assert_eq!(bed.sshd.log().matches("Accepted publickey").count(), 1);
    }
}

#[tokio::test]
async fn a_server_without_sessions_is_told_of() {
    let bed = Bed::with("MaxSessions 0");
    let refused = timeout(Duration::from_mins(1), bed.connect().await.exec("true")).await.unwrap();
    let error = refused.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request, "{error}");
    assert!(error.to_string().contains("open a session"), "{error}");
}

#[tokio::test]
async fn ports_of_the_node_are_reached() {
    let bed = Bed::new();
    let node = bed.connect().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        }
    });
    let here = Target { node: "here".to_owned(), via: Via::Local };
    let here = Connector::new(bed.options()).connect(&here).await.unwrap();
    for node in [node, here] {
        let mut tunnel = node.forward("127.0.0.1", port).await.unwrap();
        tunnel.write_all(b"ping").await.unwrap();
        tunnel.shutdown().await.unwrap();
        let mut back = String::new();
        tunnel.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "ping");
        // Nothing else has the server's address.
        let address = bed.sshd.address().to_string();
        let error = node.forward(&address, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(error.to_string().contains(&format!("connect to {address}:1")), "{error}");
    }
}

/// Zeros without end, and how many were read.
struct Endless(Arc<AtomicUsize>);

impl tokio::io::AsyncRead for Endless {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let count = buffer.initialize_unfilled().len();
        buffer.advance(count);
        self.0.fetch_add(count, Ordering::SeqCst);
        std::task::Poll::Ready(Ok(()))
    }
}

/// Waits until a counter is above `wanted`.
async fn more_than(counter: &AtomicUsize, wanted: usize) {
    let until = Instant::now() + BACKSTOP;
    while counter.load(Ordering::SeqCst) <= wanted {
        assert!(Instant::now() < until, "never more than {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_whole_or_not_at_all() {
    let bed = Bed::new();
    let node = bed.connect().await;
    let content = noise(20 << 20);
    let path = bed.path("up/load's/file");
    node.upload(&content[..], content.len() as u64, path.as_str(), 0o755).await.unwrap();
    assert!(fs::read(&path).unwrap() == content);

    let never = bed.path("never");
    let read = Arc::new(AtomicUsize::new(0));
    let cut = tokio::spawn({
        let (node, never, read) = (node.clone(), never.clone(), read.clone());
        async move { node.upload(Endless(read), 1 << 40, never.as_str(), 0o600).await }
    });
    more_than(&read, 20 << 20).await;
    bed.sshd.signal_connections(Signal::KILL);
    let error = timeout(BACKSTOP, cut).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    assert!(!never.exists());
}

#[tokio::test]
async fn a_cut_connection_fails_streams_and_exits() {
    let bed = Bed::new();
    let node = bed.connect().await;
    let mut process = node.exec("echo ready; sleep 150").await.unwrap();
    let mut line = [0; 6];
    process.stdout.read_exact(&mut line).await.unwrap();
    bed.sshd.signal_connections(Signal::KILL);
    let Process { mut stdout, exit, .. } = process;
    let mut rest = Vec::new();
    let read = timeout(BACKSTOP, stdout.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
    assert_eq!(exit.wait().await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(node.is_closed());
    assert_eq!(node.lost().await.kind(), ErrorKind::Lost);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let bed = Bed::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let options = SshOptions { connect_timeout: Some(Duration::from_millis(500)), ..bed.options() };
    let ssh = SshTarget { host: "127.0.0.1".to_owned(), port: Some(port), ..bed.ssh() };
    let error = timeout(BACKSTOP, connect(options, ssh)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(
        error.to_string(),
        format!("es1 (127.0.0.1:{port}): the SSH handshake took longer than 500ms")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_noticed_idle_and_while_uploading() {
    tokio::join!(stops(false), stops(true));
}

/// What [`a_server_that_stops_is_noticed_idle_and_while_uploading`] says, with an upload if `busy`.
async fn stops(busy: bool) {
    let bed = Bed::new();
    let options =
        SshOptions { keepalive: Some(Duration::from_secs(1)), keepalive_max: Some(5), ..bed.options() };
    let node = connect(options, bed.ssh()).await.unwrap();
    // Longer than the limit: a server that answers is not given up.
    let process = node.exec("sleep 7; echo slept; cat >/dev/null").await.unwrap();
    let Process { mut stdin, mut stdout, exit, .. } = process;
    let mut line = [0; 6];
    stdout.read_exact(&mut line).await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move {
            let piece = vec![0; 1 << 20];
            while busy && stdin.write_all(&piece).await.is_ok() {
                sent.fetch_add(piece.len(), Ordering::SeqCst);
            }
            stdin
        }
    });
    if busy {
        more_than(&sent, 20 << 20).await;
    }
    bed.sshd.signal_connections(Signal::STOP);
    let error = timeout(BACKSTOP, exit.wait()).await.expect("no hang").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    let _stdin = timeout(BACKSTOP, writing).await.unwrap().unwrap();
}

/// Forwards to `server` with a delay each way, as a long link would; the port of 127.0.0.1 to connect to instead.
async fn long_link(server: (std::net::Ipv4Addr, u16), delay: Duration) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = tokio::net::TcpStream::connect(server).await.unwrap();
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::spawn(late(client_read, server_write, delay));
        tokio::spawn(late(server_read, client_write, delay));
    });
    near
}

async fn late(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            let bytes: bytes::BytesMut = bytes;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = bytes::BytesMut::with_capacity(1 << 20);
    while from.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
        let _gone = sender.send((tokio::time::Instant::now() + delay, buffer.split()));
        buffer.reserve(1 << 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a measurement, for a release build with --nocapture, about a minute"]
async fn throughput_over_a_long_link() {
    let bed = Bed::new();
    let server = (bed.sshd.address(), bed.sshd.port);
    let port = long_link(server, Duration::from_millis(50)).await;
    let known = bed.sshd.known_hosts().replace(&bed.sshd.host(), &format!("[127.0.0.1]:{port}"));
    fs::write(bed.path("known_hosts"), known).unwrap();
    let ssh = SshTarget { host: "127.0.0.1".to_owned(), port: Some(port), ..bed.ssh() };
    let node = connect(bed.options(), ssh).await.unwrap();
    let size = 256_u32 << 20;
    let before = Instant::now();
    let got = node.exec(&format!("head -c {size} /dev/zero")).await.unwrap().output("").await.unwrap();
    assert_eq!(got.stdout.len(), size as usize);
    println!("100 ms down {:.0} MB/s", f64::from(size) / 1e6 / before.elapsed().as_secs_f64());
    let before = Instant::now();
    node.exec("cat >/dev/null").await.unwrap().output(vec![0; 64 << 20]).await.unwrap();
    println!("100 ms up, one channel {:.0} MB/s", 67.1 / before.elapsed().as_secs_f64());
    let before = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let node = node.clone();
        all.spawn(async move {
            node.exec("cat >/dev/null").await.unwrap().output(vec![0; 32 << 20]).await.unwrap();
        });
    }
    all.join_all().await;
    println!("100 ms up, four channels {:.0} MB/s", 134.2 / before.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a measurement, for a release build with --nocapture, about a minute"]
async fn throughput_against_ssh() {
    let bed = Bed::new();
    let content = noise(1 << 30);
    let file = bed.path("noise");
    fs::write(&file, &content).unwrap();
    let node = bed.connect().await;
    for _ in 0..3 {
        let before = Instant::now();
        let Process { mut stdin, exit, .. } = node.exec("cat >/dev/null").await.unwrap();
        for piece in bytes::Bytes::from(content.clone()).chunks(1 << 20) {
            stdin.send(bytes::Bytes::copy_from_slice(piece)).await.unwrap();
        }
        stdin.shutdown().await.unwrap();
        exit.wait().await.unwrap();
        println!("windlass {:.0} MB/s", 1073.7 / before.elapsed().as_secs_f64());
        let before = Instant::now();
        let done = Command::new("ssh")
            .args(["-F", "none", "-c", "aes256-gcm@openssh.com", "-o", "IdentitiesOnly=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", bed.path("known_hosts"))])
            .args(["-p", &bed.sshd.port.to_string(), "-i", bed.sshd.client_key().to_str().unwrap()])
            .args([&bed.sshd.address().to_string(), "cat >/dev/null"])
            .stdin(fs::File::open(&file).unwrap())
            .status()
            .unwrap();
        assert!(done.success());
        println!("ssh      {:.0} MB/s", 1073.7 / before.elapsed().as_secs_f64());
    }
}
