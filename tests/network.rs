//! Networks that break: a node in a network namespace of its own, whose link is cut, loses packets or is slow.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::bench::processes;
use crate::support::cluster::{Cluster, GOOD, text};
use crate::support::node::until;
use crate::support::sshd::keygen;

/// How long a controller may take to give up a node that it does not hear any more.
const BOUND: Duration = Duration::from_mins(1);

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
    let out =
        Command::new(program).args(args).env("PATH", path).output().map_err(|error| error.to_string())?;
    if out.status.success() { Ok(()) } else { Err(text(&out).trim().to_owned()) }
}

/// A namespace with an sshd in it, and a link to it.
struct Space {
    name: String,
    link: String,
    address: String,
    server: Option<Child>,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Space {
    /// `None`, said aloud, where the kernel or the user may not.
    fn new(dir: &Path) -> Option<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let own = usize::try_from(std::process::id()).unwrap() % 60 * 1000 + number;
        let (name, link, inner) = (format!("wls{own}"), format!("wla{own}"), format!("wlb{own}"));
        let net = format!("10.{}.{}", 200 + own / 250 % 50, own % 250);
        let (here, there) = (format!("{net}.1/30"), format!("{net}.2/30"));
        let space =
            Self { name: name.clone(), link: link.clone(), address: format!("{net}.2"), server: None };
        let made = run("ip", &["netns", "add", &name])
            .and_then(|()| run("ip", &["link", "add", &link, "type", "veth", "peer", "name", &inner]))
            .and_then(|()| run("ip", &["link", "set", &inner, "netns", &name]))
            .and_then(|()| run("ip", &["addr", "add", &here, "dev", &link]))
            .and_then(|()| run("ip", &["link", "set", &link, "up"]))
            .and_then(|()| space.inside(&["ip", "addr", "add", &there, "dev", &inner]))
            .and_then(|()| space.inside(&["ip", "link", "set", &inner, "up"]));
        if let Err(error) = made {
            crate::support::tools::skip(&format!("networks that break: no network namespaces here: {error}"));
            return None;
        }
        let mut space = space;
        space.server = Some(space.serve(dir));
        Some(space)
    }

    fn inside(&self, words: &[&str]) -> Result<(), String> {
        run("ip", &[&["netns", "exec", &self.name], words].concat())
    }

    fn serve(&self, dir: &Path) -> Child {
        for (file, kind) in [("host", "ed25519"), ("client", "ed25519")] {
            keygen(&["-q", "-t", kind, "-N", "", "-f"], &dir.join(file));
        }
        let _exists = std::fs::create_dir("/run/sshd");
        let (at, address) = (dir.display(), &self.address);
        let config = format!(
            "Port 22\nListenAddress {address}\nHostKey {at}/host\nPidFile none\nAuthorizedKeysFile {at}/client.pub\n\
             StrictModes no\nUsePAM no\nSetEnv HOME={at}\nPasswordAuthentication no\nPermitRootLogin yes\nUseDNS no\n\
             MaxStartups 100\nClientAliveInterval 1\nClientAliveCountMax 3\n"
        );
        std::fs::write(dir.join("sshd_config"), config).unwrap();
        let public = std::fs::read_to_string(dir.join("host.pub")).unwrap();
        std::fs::write(dir.join("known_hosts"), format!("{address} {public}[127.0.0.1]:* {public}")).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, "/usr/sbin/sshd", "-D", "-e", "-f"])
            .arg(dir.join("sshd_config"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        until("sshd answers", 10, || TcpStream::connect((self.address.as_str(), 22)).is_ok());
        child
    }

    fn cut(&self) {
        run("ip", &["link", "set", &self.link, "down"]).unwrap();
    }

    fn mend(&self) {
        run("ip", &["link", "set", &self.link, "up"]).unwrap();
        until("the link is back", 10, || TcpStream::connect((self.address.as_str(), 22)).is_ok());
    }

    /// What serves connections, but for services and guards.
    fn sessions(&self) -> Vec<Pid> {
        let mut all = Vec::new();
        descendants(self.server.as_ref().unwrap().id(), &mut all);
        let line = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = |pid: &u32| line(*pid).contains("sshd") || line(*pid).contains("\0call");
        all.into_iter().filter(ours).filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
    }
}

fn descendants(pid: u32, all: &mut Vec<u32>) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        all.push(child);
        descendants(child, all);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let named = |pid: u32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains("sshd")
        };
        if let Some(server) = &mut self.server {
            let mut all = Vec::new();
            descendants(server.id(), &mut all);
            for pid in processes(|pid| all.contains(&pid) && named(pid)) {
                let _gone = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
            }
            let _gone = server.kill();
            let _gone = server.wait();
        }
        let _ = run("ip", &["link", "del", &self.link]);
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

/// A cluster whose first node is behind a link, and whose second is here.
struct Net {
    cluster: Cluster,
    space: Space,
    dir: PathBuf,
    _servers: tempfile::TempDir,
}

const POLICY: &str = "confirm_within = \"6s\"\ngate_timeout = \"3s\"\nprogress_deadline = \"8s\"";

impl Net {
    fn new() -> Option<Self> {
        if !Path::new("/usr/sbin/sshd").exists() {
            crate::support::tools::skip("networks that break: there is no sshd");
            return None;
        }
        let servers = tempfile::tempdir().unwrap();
        let dir = servers.path().canonicalize().unwrap();
        let space = Space::new(&dir)?;
        std::fs::create_dir(dir.join(".ssh")).unwrap();
        let alive = "Host *\n ServerAliveInterval 1\n ServerAliveCountMax 3\n ConnectTimeout 4\n";
        std::fs::write(dir.join(".ssh/config"), alive).unwrap();
        let cluster = Cluster::local(2, POLICY);
        let net = Self { cluster, space, dir, _servers: servers };
        net.reached_at(&net.space.address, 22);
        Some(net)
    }

    fn reached_at(&self, address: &str, port: u16) {
        let ssh = format!("[ssh]\nknown_hosts = \"{}\"", self.dir.join("known_hosts").display());
        self.cluster.write(POLICY, &ssh, |number| match number {
            1 => format!(
                "address = {address:?}\nport = {port}\nuser = \"root\"\nidentity = \"{}\"\n",
                self.dir.join("client").display()
            ),
            _ => "transport = \"local\"\n".to_owned(),
        });
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cluster.command(args);
        command.env("HOME", &self.dir).env_remove("SSH_AUTH_SOCK");
        command
    }

    /// Runs it; how it ended, and how long it took.
    fn run(&self, args: &[&str]) -> (Option<i32>, Duration, String) {
        let begun = Instant::now();
        let out = self.command(args).output().unwrap();
        (out.status.code(), begun.elapsed(), text(&out))
    }

    fn ready(&self) {
        self.cluster.build("1", GOOD);
        let (code, _, said) = self.run(&["promote"]);
        assert_eq!(code, Some(0), "{said}");
        self.cluster.build("2", GOOD);
        self.cluster.save();
    }

    /// Promotes, and does something as soon as an event of the first node comes; how it ended and what it said.
    fn promote_until(&self, event: &str, step: &str, act: &dyn Fn()) -> (Option<i32>, Duration, bool) {
        let mut child = self.command(&["promote", "--format", "json"]);
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut begun = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if begun.is_none() && line["event"] == event && line["node"] == "n1" && line["step"] == step {
                act();
                begun = Some(Instant::now());
            }
        }
        let code = child.wait().unwrap().code();
        (code, begun.map_or(Duration::ZERO, |begun| begun.elapsed()), begun.is_some())
    }

    /// Without its controller the node comes to run its current release; then `resume` and `promote` end well.
    fn recovers(&self, what: &str, mend: &dyn Fn()) {
        // The guard does it, with nobody looking.
        until(&format!("{what}: n1 works again by itself"), 30, || {
            let current = self.cluster.current("n1");
            current.is_some() && self.cluster.runs("n1").first() == current.as_ref()
        });
        mend();
        self.cluster.whole("n1", what);
        // Whoever held the lock is noticed to be gone.
        let mut last = String::new();
        until(&format!("{what}: resume ends well"), 60, || {
            let (code, _, said) = self.run(&["resume", "--force"]);
            assert!(matches!(code, Some(0 | 1 | 3 | 5)), "{what}: resume ends with {code:?}: {said}");
            last = said;
            matches!(code, Some(0 | 3))
        });
        let (code, _, said) = self.run(&["promote", "--force"]);
        assert_eq!(code, Some(0), "{what}: {said}");
        for node in &self.cluster.nodes {
            self.cluster.whole(node, what);
            assert_eq!(self.cluster.runs(node), [self.cluster.current(node).unwrap()], "{what}");
            assert!(self.cluster.current(node).unwrap().ends_with("-2"), "{what}");
        }
    }
}

/// The moments of a promotion: an event, a step, and how it may end when the link breaks there.
const MOMENTS: [(&str, &str); 16] = [
    ("step-started", "lock"),
    ("step-done", "lock"),
    ("step-started", "preflight"),
    ("step-done", "preflight"),
    ("step-started", "stage"),
    ("step-done", "stage"),
    ("step-started", "activate"),
    ("step-done", "activate"),
    ("step-started", "stop"),
    ("step-done", "stop"),
    ("step-started", "start"),
    ("step-done", "start"),
    ("step-started", "ready"),
    ("step-done", "ready"),
    ("step-started", "confirm"),
    ("step-done", "confirm"),
];

#[test]
fn the_link_is_cut_at_each_step() {
    let Some(net) = Net::new() else { return };
    net.ready();
    let mut ends = Vec::new();
    let own = usize::try_from(std::process::id()).unwrap();
    for (number, (event, step)) in MOMENTS.into_iter().enumerate() {
        // The middle of it, and one more.
        if !crate::support::long() && number != 7 && number != 2 + own % 12 {
            continue;
        }
        let what = format!("cut at {event} {step}");
        net.cluster.reset();
        let (code, took, cut) = net.promote_until(event, step, &|| net.space.cut());
        assert!(cut, "{what}: there was no such event");
        assert!(took < BOUND, "{what}: {took:?}");
        assert!(matches!(code, Some(0 | 1 | 3 | 4)), "{what}: {code:?}");
        let untouched = matches!(step, "lock" | "preflight") || (step == "stage" && event == "step-started");
        if untouched {
            assert_eq!(code, Some(1), "{what}: nothing was touched");
            assert_eq!(net.cluster.current("n1").as_deref(), Some("1-1"), "{what}");
        }
        net.recovers(&what, &|| net.space.mend());
        ends.push(format!("{event} {step}: {} after {:.1} s", code.unwrap(), took.as_secs_f64()));
    }
    eprintln!("the link cut:\n{}", ends.join("\n"));
}

#[test]
fn a_node_that_is_up_but_hangs() {
    let Some(net) = Net::new() else { return };
    net.ready();
    for step in if crate::support::long() { &["preflight", "activate", "ready"][..] } else { &["activate"] } {
        net.cluster.reset();
        let signal = |signal| {
            for pid in net.space.sessions() {
                let _gone = kill_process(pid, signal);
            }
        };
        let (code, took, stopped) = net.promote_until("step-started", step, &|| signal(Signal::STOP));
        assert!(stopped && took < BOUND, "{step}: {took:?}");
        // It goes on over another connection, where the lock's old holder gives it up in time.
        assert!(matches!(code, Some(0 | 1 | 3 | 4)), "{step}: {code:?}");
        eprintln!("a node that hangs in {step}: {} after {:.1} s", code.unwrap(), took.as_secs_f64());
        signal(Signal::CONT);
        net.recovers(step, &|| {});
    }
}

/// Between the controller and sshd: each piece waits.
fn slow(address: String, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let copy = move |mut from: TcpStream, mut to: TcpStream| {
        let (sender, receiver) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
        std::thread::spawn(move || {
            for (at, bytes) in receiver {
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                    break;
                }
            }
        });
    };
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect((address.as_str(), 22)) else { continue };
            copy(client.try_clone().unwrap(), server.try_clone().unwrap());
            copy(server, client);
        }
    });
    port
}

#[test]
fn a_slow_link_and_one_that_loses_packets() {
    let Some(net) = Net::new() else { return };
    net.ready();
    let port = slow(net.space.address.clone(), Duration::from_millis(100));
    let hosts = std::fs::read_to_string(net.dir.join("known_hosts")).unwrap();
    std::fs::write(
        net.dir.join("known_hosts"),
        hosts.replace("[127.0.0.1]:*", &format!("[127.0.0.1]:{port}")),
    )
    .unwrap();
    net.reached_at("127.0.0.1", port);
    net.cluster.reset();
    let (code, took, said) = net.run(&["promote"]);
    assert_eq!(code, Some(0), "{said}");
    eprintln!("200 ms there and back: promote took {took:?}");
    net.reached_at(&net.space.address, 22);
    let rule = ["-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP"];
    let words = [&["iptables", "-A", "INPUT", "-i", "lo"][..], &rule].concat();
    if let Err(error) = net.space.inside(&words) {
        crate::support::tools::skip(&format!("a link that loses packets: {error}"));
        return;
    }
    let words = [&["iptables", "-A", "INPUT"][..], &rule].concat();
    net.space.inside(&words).unwrap();
    for round in 0..if crate::support::long() { 5 } else { 1 } {
        net.cluster.reset();
        let begun = Instant::now();
        let (code, took, said) = net.run(&["promote"]);
        assert!(matches!(code, Some(0 | 1 | 3 | 4)), "{said}");
        assert!(begun.elapsed() < BOUND * 2, "{took:?}");
        eprintln!("30 % of packets lost, round {round}: promote ends with {code:?} after {took:?}");
        let flush = || net.space.inside(&["iptables", "-F", "INPUT"]).unwrap();
        net.recovers("packets lost", &flush);
        net.space.inside(&words).unwrap();
    }
}
