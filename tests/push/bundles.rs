//! `windlass push`: what travels, what does not, and what happens when it cannot.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::push::project::{Files, Project, SECRET, files, noise, text};

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("{row} has no {key}"))
}

#[test]
fn what_is_there_does_not_travel_again() {
    let project = Project::new(3);
    let first = files("1.0");
    project.build("1.0", &first);
    let rows = project.pushed(&["--parallel", "2"]);
    assert_eq!(rows.iter().map(|row| &row["node"]).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    for row in &rows {
        let node = row["node"].as_str().unwrap();
        project.check(node, &row["release"], &first);
        assert_eq!(number(row, "objects_reused"), 0, "{row}");
        let dir = project.release(node, &row["release"]);
        let site: Value =
            serde_json::from_slice(&std::fs::read(dir.join("web/conf/site.json")).unwrap()).unwrap();
        assert_eq!(site, json!({ "node": node, "heap": "1g", "forming": "True", "peers": 3 }));
        let secret = std::fs::read_to_string(dir.join("web/conf/secret.conf")).unwrap();
        assert_eq!(secret, format!("password = {SECRET}\n"));
    }
    assert!(!project.lab.dir.join("n1/roles/web/current").exists(), "something was activated");
    for row in project.pushed(&[]) {
        assert!(number(&row, "bytes_sent") < 4096 && number(&row, "objects_sent") == 0, "{row}");
        assert_eq!(row["existing"], true);
    }
    // A change of conf is a small push.
    project.write("conf/web/extra.conf", "one line more\n");
    project.rebuild();
    for row in project.pushed(&["--nodes", "n1,n2"]) {
        assert!(number(&row, "bytes_sent") < 64 << 10, "{row}");
        assert!(number(&row, "objects_sent") <= 3, "{row}");
        project.check(row["node"].as_str().unwrap(), &row["release"], &first);
    }
}

#[test]
fn a_new_version_travels_as_patches() {
    let project = Project::new(2);
    project.build("1.0", &files("1.0"));
    project.pushed(&[]);
    let second = files("1.1");
    project.build("1.1", &second);
    for row in project.pushed(&[]) {
        // 15 small files and 3 large ones that do not compress.
        assert_eq!(number(&row, "patches_sent"), 18, "{row}");
        assert!(number(&row, "bytes_sent") < 64 << 10, "{row}");
        project.check(row["node"].as_str().unwrap(), &row["release"], &second);
    }
    let kept = project.lab.dir.join("out/cache/patches");
    let kept = || std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(kept().len(), 1);
    // They are used again, and a damaged one is not.
    project.cluster(&[("n3", "")]);
    project.pushed(&["web:1.0-1"]);
    let mut bytes = std::fs::read(&kept()[0]).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&kept()[0], bytes).unwrap();
    let rows = project.pushed(&["web:1.1-1"]);
    assert_eq!((number(&rows[0], "patches_sent"), number(&rows[0], "patching_ms")), (17, 0));
    project.check("n3", &rows[0]["release"], &second);
    // gc lets them go with their bundles.
    let out = project.windlass(&["gc", "--keep", "1"]).output().unwrap();
    assert!(out.status.success() && kept().is_empty(), "{}", text(&out));
}

#[test]
fn tables_of_contents_travel_as_what_changed() {
    let many = |version: &str| {
        let mut files = files(version);
        for n in 0..1500u64 {
            files.insert(format!("many/{n}"), noise(n + 5000, 40));
        }
        files
    };
    let project = Project::new(2);
    project.build("1.0", &many("1.0"));
    project.pushed(&[]);
    // A digest of each of the 1500 files would be 48,000 bytes.
    let mut second = many("1.0");
    second.insert("many/7".to_owned(), b"edited".to_vec());
    project.build("1.1", &second);
    // The second node's old table is damaged: what comes of the patch is noticed, and the table asked for.
    let bundles = project.lab.dir.join("n2/bundles");
    for entry in walkdir::WalkDir::new(&bundles).into_iter().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with("toc-") {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            std::fs::set_permissions(entry.path(), mode).unwrap();
            std::fs::write(entry.path(), bytes).unwrap();
        }
    }
    let rows = project.pushed(&[]);
    assert!(number(&rows[0], "bytes_sent") < 12_000, "{}", rows[0]);
    assert!(number(&rows[1], "bytes_sent") > 48_000, "{}", rows[1]);
    for row in rows {
        project.check(row["node"].as_str().unwrap(), &row["release"], &second);
    }
}

#[test]
fn a_patch_whose_old_file_is_gone_is_not_sent() {
    let project = Project::new(1);
    project.build("1.0", &files("1.0"));
    project.pushed(&[]);
    let second = files("1.1");
    project.build("1.1", &second);
    for entry in walkdir::WalkDir::new(project.lab.dir.join("n1/objects")) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() && entry.metadata().unwrap().len() > 5 << 20 {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let rows = project.pushed(&[]);
    assert_eq!(number(&rows[0], "patches_sent"), 15, "{}", rows[0]);
    project.check("n1", &rows[0]["release"], &second);
}

#[test]
fn broken_off_anywhere_it_goes_on() {
    let project = Project::new(1);
    let first: Files = files("1.0").into_iter().collect();
    project.build("1.0", &first);
    // The agent first: the content is to be interrupted, not that.
    let all = number(&project.pushed(&[])[0], "objects_sent");
    // From the first object to one before the last; again until enough pushes were interrupted.
    let points =
        [1, all / 64, all / 16, all / 8, all / 4, all / 3, all / 2, all * 2 / 3, all * 3 / 4, all * 7 / 8];
    let mut interrupted = 0;
    for (tried, done) in points.iter().cycle().enumerate() {
        if tried >= points.len() && interrupted >= 5 {
            break;
        }
        assert!(tried < 60, "{interrupted} pushes of {tried} were interrupted");
        project.forget("n1");
        let mut push =
            project.windlass(&["push", "-q"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_objects(&project, &mut push, *done);
        project.lab.sshd.signal_connections(Signal::KILL);
        // A push may end before the signal reaches its connection.
        let code = push.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 1)), "{code:?}");
        interrupted += usize::from(code == Some(1));
        let rows = project.pushed(&[]);
        let (sent, reused) = (number(&rows[0], "objects_sent"), number(&rows[0], "objects_reused"));
        assert_eq!(sent + reused, all, "{}", rows[0]);
        assert!(reused >= *done, "{done} objects were there: {}", rows[0]);
        project.check("n1", &rows[0]["release"], &first);
    }
    eprintln!("{interrupted} pushes were interrupted");
}

/// Waits until the node has so many whole objects, or the push has ended.
fn wait_for_objects(project: &Project, push: &mut std::process::Child, wanted: u64) {
    let objects = project.lab.dir.join("n1/objects");
    // The time of change is set last.
    let whole =
        |one: &walkdir::DirEntry| one.metadata().is_ok_and(|meta| meta.is_file() && meta.mtime() == 1);
    let there =
        || walkdir::WalkDir::new(&objects).into_iter().filter_map(Result::ok).filter(whole).count() as u64;
    let until = Instant::now() + Duration::from_mins(2);
    while there() < wanted && push.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "never {wanted} objects");
    }
}

#[test]
fn one_nodes_failure_is_its_own() {
    let project = Project::new(1);
    let first = files("1.0");
    project.build("1.0", &first);
    project.write("file", "");
    let below = format!("root = \"{}/file/root\"", project.lab.dir.display());
    project.cluster(&[("down", "port = 1\n"), ("n1", ""), ("odd", &below)]);
    let out = project.push(&[]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    let result: Value = serde_json::from_slice(&out.stdout).unwrap();
    // `cluster.forming` cannot be known while a node is down.
    assert_eq!(result["nodes"].as_array().unwrap().len(), 0, "{result}");
    assert_eq!(result["failed"].as_array().unwrap().len(), 3, "{result}");
    project.write("conf/web/site.json", "{}");
    project.rebuild();
    let out = project.push(&[]);
    assert_eq!(out.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(result["nodes"][0]["node"], "n1");
    project.check("n1", &result["nodes"][0]["release"], &first);
    let failed: Vec<(&Value, &Value)> = result["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["node"], &one["error"]["kind"]))
        .collect();
    assert_eq!(failed, [(&json!("down"), &json!("unreachable")), (&json!("odd"), &json!("agent-start"))]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        said.contains(&format!("error: down ({}:1): could not connect", project.lab.sshd.address()))
            && said.contains("error: odd: "),
        "{said}"
    );
}

#[test]
fn a_damaged_frame_is_refused_by_the_node() {
    let project = Project::new(1);
    project.build("1.0", &files("1.0"));
    let blobs = project.lab.dir.join("out/blobs/sha256");
    let largest = std::fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap())
        .max_by_key(|entry| entry.metadata().unwrap().len());
    let path = largest.unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let out = project.push(&[]);
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out);
    assert!(said.contains("web on n1: n1: ") && said.contains("windlass verify web"), "{said}");
    assert!(!project.lab.dir.join("n1/roles/web/releases").join("1-1.0-1").exists());
}

#[test]
fn a_changed_host_key_stops_it() {
    let project = Project::new(1);
    project.build("1.0", &files("1.0"));
    let other = std::fs::read_to_string(project.lab.sshd.dir.join("client.pub")).unwrap();
    project.write("known_hosts", &format!("{} {other}", project.lab.sshd.host()));
    let out = project.push(&[]);
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out);
    assert!(said.contains("the host key changed") && said.contains("SHA256:"), "{said}");
    assert!(!project.lab.dir.join("n1").exists(), "something was sent");
}

#[test]
fn a_held_lock_is_exit_5() {
    let project = Project::new(1);
    project.build("1.0", &files("1.0"));
    project.pushed(&[]);
    let mut holder = std::process::Command::new(crate::push::lab::program())
        .args(["node", "lock", "--rollout", "r-7", "--who", "ann", "--host", "desk", "--root"])
        .arg(project.lab.dir.join("n1"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 1];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
    let out = project.push(&[]);
    assert_eq!(out.status.code(), Some(5), "{}", text(&out));
    assert!(
        text(&out).contains("ann on desk holds this node's lock for rollout r-7 since "),
        "{}",
        text(&out)
    );
    drop(holder.stdin.take());
    holder.wait().unwrap();
    project.pushed(&[]);
}

#[test]
fn a_secret_without_a_value_is_named() {
    let project = Project::new(1);
    project.build("1.0", &files("1.0"));
    let out = project.windlass(&["push"]).env_remove("WEB_PW").output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    assert!(text(&out).contains("secret `pw`: the environment has no WEB_PW"), "{}", text(&out));
}

#[test]
fn local_nodes_are_pushed_to_as_well() {
    let project = Project::new(1);
    let first = files("1.0");
    project.build("1.0", &first);
    let text = format!(
        "schema = 1\nname = \"lab\"\nvars = {{ heap = \"1g\" }}\n[secrets]\npw = {{ env = \"WEB_PW\" }}\n\
         [nodes.here]\ntransport = \"local\"\nroot = \"{}/here\"\nroles = [\"web\"]\n",
        project.lab.dir.display()
    );
    project.write("cluster.toml", &text);
    let rows = project.pushed(&[]);
    project.check("here", &rows[0]["release"], &first);
}

#[test]
fn an_interrupted_push_is_exit_130_and_goes_on_later() {
    let project = Project::new(1);
    let first = files("1.0");
    project.build("1.0", &first);
    for tried in 0.. {
        let mut push =
            project.windlass(&["push"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_objects(&project, &mut push, 1);
        // The node takes nothing more in: from here on the push cannot end.
        project.lab.sshd.signal_connections(Signal::STOP);
        if push.try_wait().unwrap().is_some() {
            assert!(tried < 60, "every push was done before it was interrupted");
            project.forget("n1");
            continue;
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&push), Signal::INT).unwrap();
        let out = push.wait_with_output().unwrap();
        project.lab.sshd.signal_connections(Signal::KILL);
        assert_eq!(out.status.code(), Some(130), "{}", text(&out));
        break;
    }
    let rows = project.pushed(&[]);
    project.check("n1", &rows[0]["release"], &first);
}
