//! A secret is where it has to be, and nowhere else.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::bench::processes;
use crate::support::cluster::{Cluster, DIES, GOOD, text};
use crate::support::node::wait_until;

/// Looks for the secret in the arguments of every process, as `ps` shows them.
fn in_arguments(secret: &str) -> Vec<u32> {
    processes(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains(secret)
    })
}

/// How many rollouts have begun to write their journals.
fn rollouts(cluster: &Cluster) -> usize {
    let all = std::fs::read_dir(cluster.dir.join("out/rollouts")).into_iter().flatten();
    all.filter(|one| one.as_ref().unwrap().path().join("journal.jsonl").exists()).count()
}

#[test]
fn a_secret_is_in_the_rendered_conf_and_the_unit_and_nowhere_else() {
    let cluster = Cluster::local(2, "confirm_within = \"10m\"\ngate_timeout = \"60s\"");
    // Its parts are looked for as well, and how it may be written.
    let token = format!("wltZq{}", uuid());
    let half = &token[..token.len() / 2];
    let hex = data_encoding::HEXLOWER.encode(token.as_bytes());
    let base64 = data_encoding::BASE64_NOPAD.encode(token.as_bytes());
    let forms = [half, &hex, &base64];
    let mut said = String::new();
    let mut run = |args: &[&str]| {
        let out = cluster.command(args).env("LAB_PW", &token).output().unwrap();
        said.extend([format!("{args:?} {:?}\n", out.status.code()), text(&out)]);
        assert_eq!(in_arguments(&token), Vec::<u32>::new());
        out.status.code().unwrap()
    };
    cluster.build("1", GOOD);
    for args in [
        &["plan"][..],
        &["plan", "--format", "json"],
        &["push", "-v"],
        &["promote", "--format", "json"],
        &["status"],
        &["status", "--format", "json"],
        &["drift"],
        &["history", "--format", "json"],
    ] {
        assert_eq!(run(args), 0, "{args:?}");
    }
    cluster.build("2", DIES);
    assert_eq!(run(&["promote", "-vv"]), 3);
    assert_eq!(run(&["promote"]), 1, "it was marked bad");
    cluster.build("3", GOOD);
    let conf = cluster.dir.join("conf/web/site.conf");
    let good = std::fs::read_to_string(&conf).unwrap();
    // Errors in what has the secret in it.
    for (number, broken) in ["{{ secret('pw') / 7 }}\n", "{{ secret('pw').a.b }}\n"].iter().enumerate() {
        std::fs::write(&conf, broken).unwrap();
        cluster.build(&format!("3.{number}"), GOOD);
        assert_ne!(run(&["promote"]), 0, "{broken}");
        assert_ne!(run(&["plan", "--format", "json"]), 0, "{broken}");
    }
    std::fs::write(&conf, format!("more = 1\n{good}")).unwrap();
    cluster.build("4", GOOD);
    assert_eq!(run(&["plan"]), 0);
    // A node that cannot be written to, a promotion that is killed, and what comes after it.
    let root = cluster.root("n2");
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_ne!(run(&["promote"]), 0);
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700)).unwrap();
    let before = rollouts(&cluster);
    let mut child = cluster.command(&["promote"]).env("LAB_PW", &token).spawn().unwrap();
    wait_until("the promotion has begun", || {
        assert_eq!(in_arguments(&token), Vec::<u32>::new());
        rollouts(&cluster) > before
    });
    child.kill().unwrap();
    child.wait().unwrap();
    run(&["resume", "--format", "json"]);
    assert_eq!(run(&["promote", "-v"]), 0);
    assert_eq!(run(&["rollback", "--format", "json"]), 0);
    assert_eq!(run(&["restart"]), 0);
    for node in &cluster.nodes {
        for args in [&["status"][..], &["journal", "web"], &["drift", "web"]] {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_windlass"));
            let out = command.arg("node").args(args).arg("--root").arg(cluster.root(node)).output().unwrap();
            said += &text(&out);
        }
    }
    for form in forms {
        let at = said.find(form).map(|at| &said[at.saturating_sub(300)..at]);
        assert_eq!(at, None, "something shows the secret");
    }
    let base = cluster.dir.parent().unwrap();
    let mut found = 0;
    for (path, bytes) in crate::support::node::files_below(base) {
        let holds = |form: &str| bytes.windows(form.len()).any(|window| window == form.as_bytes());
        let digest = windlass::model::Digest::of(token.as_bytes()).hex();
        assert!(!holds(&digest), "its plain digest is in {}", path.display());
        if !forms.iter().any(|form| holds(form)) {
            continue;
        }
        found += 1;
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert!(allowed(&path), "{}", path.display());
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    assert!(found >= 8, "conf and unit of two releases on two nodes: {found}");
    // Nothing of it outside, either.
    let temporary = std::env::temp_dir();
    for entry in std::fs::read_dir(&temporary).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("windlass") && entry.path().is_file() {
            let text = std::fs::read(entry.path()).unwrap_or_default();
            assert!(!text.windows(half.len()).any(|window| window == half.as_bytes()), "{name}");
        }
    }
}

fn allowed(path: &Path) -> bool {
    let releases = path.components().any(|part| part.as_os_str() == "releases");
    releases && (path.ends_with("web/conf/site.conf") || path.extension().is_some_and(|end| end == "service"))
}

fn uuid() -> String {
    let id = std::fs::read_to_string(PathBuf::from("/proc/sys/kernel/random/uuid")).unwrap();
    id.trim().replace('-', "")
}
