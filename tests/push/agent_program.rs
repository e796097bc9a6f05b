//! The program on a node: uploaded once, checked each time, and errors that say what to do.

use std::os::unix::fs::PermissionsExt as _;

use windlass::agent::{Claim, NodeStatus, Request};
use windlass::inventory::Reach;
use windlass::remote::{AgentBinary, Remote, RemoteError, StartFailure};

use crate::push::lab::{Lab, program, run};

fn status() -> Request {
    Request::Status { role: None }
}

#[test]
fn it_is_uploaded_once_and_checked_on_each_connection() {
    let lab = Lab::new();
    let (mut node, agent, connector) = (lab.node("n1"), Lab::agent(), Lab::connector());
    node.root = lab.path("it's a $ROOT");
    let file = node.root.join("agent").join(Lab::agent_name());
    run(async {
        let remote = Remote::connect(&connector, &node, &agent).await.unwrap();
        let _: NodeStatus = remote.call(status()).await.unwrap();
        assert_eq!(node.root.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
        let before = file.metadata().unwrap().modified().unwrap();
        let again = Remote::connect(&connector, &node, &agent).await.unwrap();
        let _: NodeStatus = again.call(status()).await.unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), before, "it was uploaded twice");
    });
}

#[test]
fn an_exchanged_program_is_replaced_and_never_run() {
    let lab = Lab::new();
    let (node, agent, connector) = (lab.node("n1"), Lab::agent(), Lab::connector());
    let file = node.root.join("agent").join(Lab::agent_name());
    run(async {
        drop(Remote::connect(&connector, &node, &agent).await.unwrap());
        let trap = lab.path("trap");
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, format!("#!/bin/sh\ntouch {trap}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let remote = Remote::connect(&connector, &node, &agent).await.unwrap();
        let _: NodeStatus = remote.call(status()).await.unwrap();
        assert!(!trap.exists(), "it was run");
        assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(program()).unwrap());
    });
}

#[test]
fn a_root_that_others_could_exchange_is_refused() {
    let lab = Lab::new();
    let (mut node, agent, connector) = (lab.node("n1"), Lab::agent(), Lab::connector());
    let open = lab.path("open to all");
    std::fs::create_dir(&open).unwrap();
    node.root = open.join("windlass");
    let mode = |bits| std::fs::set_permissions(&open, std::fs::Permissions::from_mode(bits)).unwrap();
    let foreign = |error: RemoteError, wanted: &str| match error {
        RemoteError::Start { why: StartFailure::Foreign { folder }, .. } => assert_eq!(folder, wanted),
        other => panic!("{other}"),
    };
    run(async {
        // Before the first upload, and where the program is there already.
        for _ in 0..2 {
            mode(0o777);
            foreign(Remote::connect(&connector, &node, &agent).await.unwrap_err(), &format!("{open}/"));
            // In a folder like /tmp nobody can rename what is not theirs.
            mode(0o1777);
            drop(Remote::connect(&connector, &node, &agent).await.unwrap());
        }
        if rustix::process::geteuid().is_root() {
            let link = lab.path("link");
            std::os::unix::fs::symlink(&open, &link).unwrap();
            node.root = link.join("windlass");
            drop(Remote::connect(&connector, &node, &agent).await.unwrap());
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
            foreign(Remote::connect(&connector, &node, &agent).await.unwrap_err(), link.as_str());
        }
    });
}

#[test]
fn programs_of_old_versions_go() {
    let lab = Lab::new();
    let (node, agent, connector) = (lab.node("n1"), Lab::agent(), Lab::connector());
    let folder = node.root.join("agent");
    std::fs::create_dir_all(&folder).unwrap();
    for (path, mode) in [(&node.root, 0o700), (&folder, 0o755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for age in 1..=6u64 {
        let file = std::fs::File::create(folder.join(format!("windlass-00000000000{age}"))).unwrap();
        let when = std::time::SystemTime::now() - std::time::Duration::from_secs(age * 1000);
        file.set_modified(when).unwrap();
    }
    std::fs::write(folder.join("notes"), "a person's").unwrap();
    run(async { drop(Remote::connect(&connector, &node, &agent).await.unwrap()) });
    let mut left: Vec<String> =
        folder.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
    left.sort();
    let mut wanted: Vec<String> = (1..=3).map(|age| format!("windlass-00000000000{age}")).collect();
    wanted.extend([Lab::agent_name(), "notes".to_owned()]);
    wanted.sort();
    assert_eq!(left, wanted);
}

/// A copy of the program, changed.
fn changed(lab: &Lab, name: &str, change: impl Fn(&mut Vec<u8>)) -> AgentBinary {
    let path = lab.path(name);
    let mut bytes = std::fs::read(program()).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    AgentBinary::at(&path).unwrap()
}

fn failure(lab: &Lab, agent: &AgentBinary, name: &str) -> RemoteError {
    run(Remote::connect(&Lab::connector(), &lab.node(name), agent)).unwrap_err()
}

#[test]
fn a_program_for_another_machine_is_not_even_sent() {
    let lab = Lab::new();
    let other = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    let error = failure(&lab, &changed(&lab, "other", |bytes| bytes[18] = other), "n1");
    assert!(matches!(error, RemoteError::Start { why: StartFailure::Machine { .. }, .. }), "{error}");
    assert!(error.to_string().starts_with("n1: the agent's program is for "), "{error}");
    assert!(error.help()[0].contains("`agent = ") && error.help()[0].contains("WINDLASS_AGENT"));
    assert!(!lab.path("n1").exists());
    // The node names one that runs there.
    let mut node = lab.node("n2");
    node.agent = Some(program().to_owned());
    let agent = changed(&lab, "other", |bytes| bytes[18] = other);
    run(async { drop(Remote::connect(&Lab::connector(), &node, &agent).await.unwrap()) });
}

#[test]
fn a_program_that_does_not_start_says_why() {
    let lab = Lab::new();
    let garbage = changed(&lab, "garbage", |bytes| bytes[20..].fill(0));
    let error = failure(&lab, &garbage, "n1");
    assert!(error.to_string().starts_with("n1: the agent does not run there: exit code "), "{error}");
    // As if its loader were another libc's.
    let loader = b"/lib64/ld-linux-x86-64.so.2\0";
    if !std::fs::read(program()).unwrap().windows(loader.len()).any(|window| window == loader) {
        return crate::support::tools::skip("a program for another libc: this one names no loader to change");
    }
    let foreign = changed(&lab, "foreign", |bytes| {
        let at = bytes.windows(loader.len()).position(|window| window == loader).unwrap();
        bytes[at + 5] = b'9';
    });
    let error = failure(&lab, &foreign, "n2");
    assert!(matches!(error, RemoteError::Start { why: StartFailure::Libc { .. }, .. }), "{error}");
}

#[test]
fn folders_that_cannot_be_used_are_named() {
    let lab = Lab::new();
    let agent = Lab::agent();
    std::fs::write(lab.path("file"), "").unwrap();
    let mut node = lab.node("n1");
    node.root = lab.path("file/below");
    let error = run(Remote::connect(&Lab::connector(), &node, &agent)).unwrap_err();
    assert!(matches!(error, RemoteError::Start { why: StartFailure::NotWritable { .. }, .. }), "{error}");
    assert!(error.to_string().contains("file/below cannot be written to: mkdir"), "{error}");
    let open = lab.node("n2");
    std::fs::create_dir(&open.root).unwrap();
    std::fs::set_permissions(&open.root, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = run(Remote::connect(&Lab::connector(), &open, &agent)).unwrap_err();
    assert!(matches!(error, RemoteError::Start { why: StartFailure::Foreign { .. }, .. }), "{error}");
    assert_eq!(open.root.read_dir().unwrap().count(), 0, "something was put there");
}

/// A small tmpfs, unmounted when dropped; `None` where that is not allowed.
struct Tmpfs(String);

impl Tmpfs {
    fn mount(lab: &Lab, name: &str, options: &str) -> Option<Self> {
        let path = lab.path(name);
        std::fs::create_dir(&path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs", path.as_str()])
            .output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(path.to_string()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _unmounted = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[test]
fn a_folder_mounted_noexec_is_named() {
    let lab = Lab::new();
    let Some(_mounted) = Tmpfs::mount(&lab, "mounted", "size=200m,mode=755,noexec") else {
        return crate::support::tools::skip("a root mounted noexec: a tmpfs cannot be mounted");
    };
    let mut node = lab.node("n1");
    node.root = lab.path("mounted/root");
    let error = run(Remote::connect(&Lab::connector(), &node, &Lab::agent())).unwrap_err();
    assert!(matches!(error, RemoteError::Start { why: StartFailure::NoExec { .. }, .. }), "{error}");
    assert!(error.help().concat().contains("remount,exec"), "{error:?}");
    assert_eq!(node.root.join("agent").read_dir().unwrap().count(), 1, "only the program is left");
}

#[test]
fn a_full_disk_is_named() {
    let lab = Lab::new();
    let Some(_mounted) = Tmpfs::mount(&lab, "mounted", "size=1m,mode=755") else {
        return crate::support::tools::skip("no room for the program: a tmpfs cannot be mounted");
    };
    let mut node = lab.node("n1");
    node.root = lab.path("mounted/root");
    let error = run(Remote::connect(&Lab::connector(), &node, &Lab::agent())).unwrap_err();
    assert!(matches!(error, RemoteError::Start { why: StartFailure::Full { .. }, .. }), "{error}");
    assert_eq!(node.root.join("agent").read_dir().unwrap().count(), 0, "a part was left");
}

#[test]
fn a_second_holder_of_the_lock_is_told_who_has_it() {
    let lab = Lab::new();
    let (node, agent, connector) = (lab.node("n1"), Lab::agent(), Lab::connector());
    run(async {
        let first = Remote::connect(&connector, &node, &agent).await.unwrap();
        let ann = Claim { rollout: Some("r-1".into()), who: "ann o'hara".into(), host: "desk".into() };
        first.lock(&ann).await.unwrap();
        let second = Remote::connect(&connector, &node, &agent).await.unwrap();
        let error = second.lock(&Claim::default()).await.unwrap_err();
        let RemoteError::Locked { owner: Some(owner), .. } = &error else { panic!("{error}") };
        assert_eq!((owner.who.as_str(), owner.host.as_str(), error.exit()), ("ann o'hara", "desk", 5));
        assert!(error.to_string().starts_with("n1: ann o'hara on desk holds this node's lock"), "{error}");
        first.unlock().await;
        second.lock(&Claim::default()).await.unwrap();
        let _: NodeStatus = second.call(status()).await.unwrap();
    });
}

#[test]
fn a_lost_connection_ends_every_call_that_waits() {
    let lab = Lab::new();
    let (node, agent, connector) = (lab.node("n1"), Lab::agent(), Lab::connector());
    run(async {
        let remote = Remote::connect(&connector, &node, &agent).await.unwrap();
        remote.lock(&Claim::default()).await.unwrap();
        lab.sshd.signal_connections(rustix::process::Signal::KILL);
        let error = remote.call::<NodeStatus>(status()).await.unwrap_err();
        assert!(
            error.is_lost() && error.to_string().starts_with(&format!("n1 ({}", lab.sshd.address())),
            "{error}"
        );
    });
}

#[test]
fn a_local_node_runs_the_program_itself() {
    let lab = Lab::new();
    let mut node = lab.node("n1");
    node.reach = Reach::Local;
    run(async {
        let remote = Remote::connect(&Lab::connector(), &node, &Lab::agent()).await.unwrap();
        let (one, two) =
            tokio::join!(remote.call::<NodeStatus>(status()), remote.call::<NodeStatus>(status()));
        assert_eq!(one.unwrap(), two.unwrap());
    });
    assert!(!node.root.join("agent").exists());
}
