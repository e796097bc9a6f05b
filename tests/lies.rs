//! Nodes that answer with lies: the controller ends with an error, soon, and without filling its memory.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::bench::SECRET;
use crate::support::cluster::{Cluster, GOOD};
use crate::support::sshd::Sshd;

/// The most that a controller may need, and how long it may take.
const MEMORY: u64 = 250 << 20;
const TIME: Duration = Duration::from_mins(5);

/// How a node lies, and what has to be said of it.
const LIES: [&str; 12] = [
    "long",
    "lines",
    "complaints",
    "garbage",
    "type",
    "deep",
    "digests",
    "release",
    "silent",
    "end",
    "greeting",
    "greeting-lines",
];

/// The most memory that a process ever had, in bytes.
fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Rollouts that have to succeed, and those that a lie ends.
const TRUE: &str = "progress_deadline = \"60s\"\ngate_timeout = \"60s\"\nconfirm_within = \"10m\"";
const LIED_TO: &str = "progress_deadline = \"3s\"\ngate_timeout = \"2s\"\nconfirm_within = \"10m\"";

/// How a command that is lied to must end.
fn wanted(lie: &str, command: &str) -> i32 {
    match (lie, command) {
        // A digest that is wrong in an answer is a wrong row at most: nothing is decided by it.
        ("digests", _) | ("release" | "lines", "status") => 0,
        // It was told to activate, and its guard goes back.
        ("release", "promote") => 4,
        _ => 1,
    }
}

#[test]
fn a_node_that_lies_is_found_out_in_bounded_memory() {
    // Those that no limit of time ends.
    found_out(&["long", "garbage", "release"]);
}

#[test]
#[ignore = "long: every lie, those too that a limit of time ends, about 6 minutes"]
fn long_a_node_that_lies_is_found_out_in_bounded_memory() {
    found_out(&LIES);
}

fn found_out(lies: &[&str]) {
    if !std::path::Path::new("/usr/sbin/sshd").exists() {
        crate::support::tools::skip("nodes that lie: there is no sshd");
        return;
    }
    let servers = tempfile::tempdir().unwrap();
    let dir = servers.path().canonicalize().unwrap();
    let (mode, liar) = (dir.join("mode"), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/survive/liar.py"));
    std::fs::write(&mode, "none").unwrap();
    // A link to the cluster's clock, which is there later than sshd.
    let clock = dir.join("clock");
    let (home, forced) = (dir.join("sshd"), format!("ForceCommand python3 -S {liar} {}", mode.display()));
    let environment = format!("SetEnv HOME={} WINDLASS_TEST_CLOCK={}", home.display(), clock.display());
    let sshd = Sshd::start_with(&home, &format!("{forced}\n{environment}"));
    std::fs::write(dir.join("known_hosts"), sshd.known_hosts()).unwrap();
    let user = std::process::Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap().trim().to_owned();
    let (address, port, key) = (sshd.address(), sshd.port, sshd.client_key().display().to_string());
    let reach = |_| format!("address = \"{address}\"\nport = {port}\nuser = {user:?}\nidentity = {key:?}\n");
    let cluster = Cluster::new(1, TRUE, reach);
    std::os::unix::fs::symlink(cluster.dir.parent().unwrap().join("clock"), &clock).unwrap();
    let ssh = format!("[ssh]\nknown_hosts = \"{}\"", dir.join("known_hosts").display());
    cluster.write(TRUE, &ssh, reach);
    cluster.build("1", GOOD);
    cluster.expect(0, &["promote"]);
    cluster.build("2", GOOD);
    cluster.write(LIED_TO, &ssh, reach);
    for lie in lies {
        for command in ["status", "promote"] {
            std::fs::write(&mode, lie).unwrap();
            let begun = Instant::now();
            let mut child = cluster.command(&[command]);
            let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut most = 0;
            while child.try_wait().unwrap().is_none() {
                most = most.max(peak(&child));
                assert!(begun.elapsed() < TIME, "{command} of a node that lies ({lie}) does not end");
                std::thread::sleep(Duration::from_millis(5));
            }
            let out = child.wait_with_output().unwrap();
            let (said, code) = (crate::support::cluster::text(&out), out.status.code());
            eprintln!("{lie}: {command} ends with {code:?} after {:?}, {} MiB", begun.elapsed(), most >> 20);
            assert!(!said.contains("panicked") && !said.contains(SECRET), "{lie}: {said}");
            assert!(!said.contains('\u{1b}'), "{lie}: what a node says is shown as it is: {said:?}");
            assert!(said.len() < 20_000, "{lie}: {} bytes are said", said.len());
            assert!(most < MEMORY, "{lie}: {most} bytes");
            assert_eq!(code, Some(wanted(lie, command)), "{lie}: {command}: {said}");
            assert!(code == Some(0) || said.contains("n1"), "{lie}: {said}");
            // What was left to its guard goes back, or nothing was touched.
            std::fs::write(&mode, "none").unwrap();
            cluster.advance(Duration::from_mins(11));
            crate::support::node::until(
                &format!("{lie}: the service runs from the current release"),
                120,
                || {
                    let status = cluster.truthful(lie);
                    let role = &status["nodes"][0]["roles"][0];
                    role["runs"] == role["release"] && role["unconfirmed"].is_null()
                },
            );
            cluster.whole("n1", lie);
        }
    }
    cluster.write(TRUE, &ssh, reach);
    let out = cluster.command(&["promote", "--force"]).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", crate::support::cluster::text(&out));
}
