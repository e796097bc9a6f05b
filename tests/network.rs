//! Networks that break: a node in a network namespace of its own, whose link is cut, loses packets or is slow.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::cluster::{Cluster, GOOD, text};
use crate::support::net::Net as Claim;
use crate::support::node::until;
use crate::support::seed::{Random, seed};
use crate::support::sshd::{descendants, keygen};

/// A controller gives up a node that it does not hear any more, in far less than this.
const BOUND: Duration = Duration::from_mins(5);

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
    let out =
        Command::new(program).args(args).env("PATH", path).output().map_err(|error| error.to_string())?;
    if out.status.success() { Ok(()) } else { Err(text(&out).trim().to_owned()) }
}

/// A namespace with an sshd in it, and a link to it.
struct Space {
    /// Names and addresses are made of this claimed network's number, so that no two tests have the same.
    _claim: Claim,
    name: String,
    link: String,
    address: String,
    server: Option<Child>,
}

impl Space {
    /// `None`, said aloud, where the kernel or the user may not.
    fn new(dir: &Path, clock: &Path) -> Option<Self> {
        let claim = Claim::claim();
        let [_, high, low, _] = claim.ip(0).octets();
        let own = u16::from_be_bytes([high - 64, low]);
        let (name, link, inner) = (format!("wls{own}"), format!("wla{own}"), format!("wlb{own}"));
        // Four addresses of 10.231.0.0/16 each.
        let address = |last: u16| {
            let [high, low] = (own * 4 + last).to_be_bytes();
            format!("10.231.{high}.{low}")
        };
        let (here, there) = (format!("{}/30", address(1)), format!("{}/30", address(2)));
        // What a killed test left under the claimed number.
        for words in [["link", "del", &link], ["netns", "del", &name]] {
            let _none = run("ip", &words);
        }
        let space =
            Self { _claim: claim, name: name.clone(), link: link.clone(), address: address(2), server: None };
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
        space.server = Some(space.serve(dir, clock));
        Some(space)
    }

    fn inside(&self, words: &[&str]) -> Result<(), String> {
        run("ip", &[&["netns", "exec", &self.name], words].concat())
    }

    fn serve(&self, dir: &Path, clock: &Path) -> Child {
        for (file, kind) in [("host", "ed25519"), ("client", "ed25519")] {
            keygen(&["-q", "-t", kind, "-N", "", "-f"], &dir.join(file));
        }
        let _exists = std::fs::create_dir("/run/sshd");
        let (at, address) = (dir.display(), &self.address);
        let config = format!(
            "Port 22\nListenAddress {address}\nHostKey {at}/host\nPidFile none\nAuthorizedKeysFile {at}/client.pub\n\
             StrictModes no\nUsePAM no\nSetEnv HOME={at} WINDLASS_TEST_CLOCK={}\nPasswordAuthentication no\nPermitRootLogin yes\nUseDNS no\n\
             MaxStartups 100\nClientAliveInterval 2\nClientAliveCountMax 5\n",
            clock.display()
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
        until("sshd answers", 120, || TcpStream::connect((self.address.as_str(), 22)).is_ok());
        child
    }

    fn cut(&self) {
        run("ip", &["link", "set", &self.link, "down"]).unwrap();
    }

    fn mend(&self) {
        run("ip", &["link", "set", &self.link, "up"]).unwrap();
        until("the link is back", 120, || TcpStream::connect((self.address.as_str(), 22)).is_ok());
    }

    /// What serves connections, but for services and guards.
    fn sessions(&self) -> Vec<Pid> {
        let ours = |pid: &Pid| {
            let line = command_line(*pid);
            line.contains("sshd") || line.contains("\0call")
        };
        descendants(self.server.as_ref().unwrap().id()).into_iter().filter(ours).collect()
    }
}

/// The arguments of a process, each ended by a NUL; empty once it has ended.
fn command_line(pid: Pid) -> String {
    std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default()
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let all = descendants(server.id()).into_iter();
            for pid in all.filter(|pid| command_line(*pid).contains("sshd")) {
                let _gone = kill_process(pid, Signal::KILL);
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

const POLICY: &str = "confirm_within = \"10m\"\ngate_timeout = \"60s\"\nprogress_deadline = \"60s\"";

impl Net {
    fn new() -> Option<Self> {
        if !Path::new("/usr/sbin/sshd").exists() {
            crate::support::tools::skip("networks that break: there is no sshd");
            return None;
        }
        let servers = tempfile::tempdir().unwrap();
        let dir = servers.path().canonicalize().unwrap();
        let cluster = Cluster::local(2, POLICY);
        let space = Space::new(&dir, &cluster.dir.parent().unwrap().join("clock"))?;
        std::fs::create_dir(dir.join(".ssh")).unwrap();
        // A server that is busy answers within ten seconds.
        let alive = "Host *\n ServerAliveInterval 2\n ServerAliveCountMax 5\n ConnectTimeout 10\n";
        std::fs::write(dir.join(".ssh/config"), alive).unwrap();
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

    /// Promotes, and does something as soon as an event of the first node comes, while the controller stands still.
    fn promote_until(&self, event: &str, step: &str, act: &dyn Fn()) -> Promotion {
        let begun = Instant::now();
        let mut child = self.command(&["promote", "--format", "json"]);
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut acted, mut lines) = (false, Vec::new());
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if !acted && line["event"] == event && line["node"] == "n1" && line["step"] == step {
                let controller = Pid::from_child(&child);
                kill_process(controller, Signal::STOP).unwrap();
                act();
                kill_process(controller, Signal::CONT).unwrap();
                acted = true;
            }
            lines.push(line);
        }
        let code = child.wait().unwrap().code();
        Promotion { code, took: begun.elapsed(), acted, lines }
    }

    /// Without its controller the node comes to run its current release; then `resume` and `promote` end well.
    fn recovers(&self, what: &str, mend: &dyn Fn()) {
        // Its guard does it, whose time is over.
        self.cluster.advance(Duration::from_mins(11));
        until(&format!("{what}: n1 works again by itself"), 120, || {
            let current = self.cluster.current("n1");
            current.is_some() && self.cluster.runs("n1").first() == current.as_ref()
        });
        mend();
        self.cluster.whole("n1", what);
        // The node notices that the lock's owner is gone.
        let mut last = String::new();
        until(&format!("{what}: resume ends well"), 240, || {
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

/// A promotion that was disturbed.
struct Promotion {
    code: Option<i32>,
    took: Duration,
    /// The event came at which it was disturbed.
    acted: bool,
    lines: Vec<Value>,
}

impl Promotion {
    fn has(&self, event: &str, step: &str) -> bool {
        let is = |line: &&Value| line["event"] == event && line["node"] == "n1" && line["step"] == step;
        self.lines.iter().any(|line| is(&line))
    }

    /// How it must have ended, by what it had done on the first node when it lost it: an exit code and the node's
    /// state. `heard` says that the node could be reached again.
    fn ends_as_it_must(&self, what: &str, heard: bool) {
        assert!(self.acted, "{what}: there was no such event");
        assert!(self.took < BOUND, "{what}: {:?}", self.took);
        let Some(last) = self.lines.last() else {
            // The first connection failed.
            return assert!(heard && self.code == Some(1), "{what}: {:?}", self.code);
        };
        let node = last["nodes"].as_array().and_then(|nodes| nodes.iter().find(|node| node["node"] == "n1"));
        let state = node.map(|node| node["state"].as_str().unwrap());
        let wanted = if self.has("step-done", "confirm") {
            (Some(0), Some("done"))
        } else if !self.has("step-started", "activate") {
            (Some(1), Some("untouched"))
        } else if heard && state == Some("rolled-back") {
            (Some(3), Some("rolled-back"))
        } else {
            // Only its guard can bring it back.
            (Some(4), Some("guarded"))
        };
        assert_eq!((self.code, state), wanted, "{what}: {last}");
    }
}

/// The moments of a promotion: an event and its step.
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

/// Cuts the link at each of these moments.
fn cut_at(moments: &[(&str, &str)]) {
    let Some(net) = Net::new() else { return };
    net.ready();
    let mut ends = Vec::new();
    for (event, step) in moments {
        let what = format!("cut at {event} {step}");
        net.cluster.reset();
        let promotion = net.promote_until(event, step, &|| net.space.cut());
        promotion.ends_as_it_must(&what, false);
        if promotion.code == Some(1) {
            assert_eq!(net.cluster.current("n1").as_deref(), Some("1-1"), "{what}");
        }
        net.recovers(&what, &|| net.space.mend());
        ends.push(format!("{what}: {} after {:.1} s", promotion.code.unwrap(), promotion.took.as_secs_f64()));
    }
    eprintln!("the link cut:\n{}", ends.join("\n"));
}

#[test]
fn the_link_is_cut_at_a_step() {
    // After activation, and one more.
    let more = Random::new(seed(1)).below(MOMENTS.len() as u64);
    cut_at(&[MOMENTS[7], MOMENTS[usize::try_from(more).unwrap()]]);
}

#[test]
#[ignore = "long: the link is cut at each step, about 10 minutes"]
fn long_the_link_is_cut_at_each_step() {
    cut_at(&MOMENTS);
}

/// Stops what serves the node's connections at the begin of each of these steps.
fn hangs_in(steps: &[&str]) {
    let Some(net) = Net::new() else { return };
    net.ready();
    for step in steps {
        net.cluster.reset();
        let signal = |signal| {
            for pid in net.space.sessions() {
                let _gone = kill_process(pid, signal);
            }
        };
        let promotion = net.promote_until("step-started", step, &|| signal(Signal::STOP));
        // It goes on over another connection, where the lock's old holder gives it up in time.
        promotion.ends_as_it_must(step, true);
        eprintln!("a node that hangs in {step}: {:?} after {:?}", promotion.code, promotion.took);
        signal(Signal::CONT);
        net.recovers(step, &|| {});
    }
}

#[test]
fn a_node_that_is_up_but_hangs() {
    hangs_in(&["activate"]);
}

#[test]
#[ignore = "long: a node hangs in three steps, about 3 minutes"]
fn long_a_node_that_is_up_but_hangs() {
    hangs_in(&["preflight", "activate", "ready"]);
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
fn a_slow_link() {
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
}

/// Promotes so many times while packets are lost.
fn loses_packets(rounds: usize) {
    let Some(net) = Net::new() else { return };
    net.ready();
    let rule = ["-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP"];
    let words = [&["iptables", "-A", "INPUT", "-i", "lo"][..], &rule].concat();
    if let Err(error) = net.space.inside(&words) {
        return crate::support::tools::skip(&format!("a link that loses packets: {error}"));
    }
    let words = [&["iptables", "-A", "INPUT"][..], &rule].concat();
    for round in 0..rounds {
        net.cluster.reset();
        let what = format!("packets lost, round {round}");
        net.space.inside(&words).unwrap();
        // From the first event on: until then nothing is promised of a promotion.
        let mut promotion = net.promote_until("step-started", "lock", &|| {});
        promotion.acted = true;
        promotion.ends_as_it_must(&what, true);
        eprintln!("{what}: promote ends with {:?} after {:?}", promotion.code, promotion.took);
        net.recovers(&what, &|| net.space.inside(&["iptables", "-F", "INPUT"]).unwrap());
    }
}

#[test]
fn a_link_that_loses_packets() {
    loses_packets(1);
}

#[test]
#[ignore = "long: five promotions while packets are lost, about 2 minutes"]
fn long_a_link_that_loses_packets() {
    loses_packets(5);
}
