//! Stage, activate, confirm, roll back, with a real service.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::node::{self, Lab, SECRET, activation, service, wait_until};
use crate::support::tools::skip;

#[test]
fn a_service_goes_forward_and_back() {
    let lab = Lab::new();
    let one = lab.build("1.0", &service("1.0"));
    let first = lab.stage(&one);
    assert_eq!(first, "1-1.0-1");
    let tree = lab.release(&first);
    assert_eq!(lab.current(), None);

    // The tree is as the recipe says.
    let object = tree.join("web/lib/big.bin").metadata().unwrap();
    assert_eq!((object.nlink(), object.mode() & 0o7777), (2, 0o444));
    assert_eq!(tree.join("web/run.sh").metadata().unwrap().mode() & 0o777, 0o555);
    assert_eq!(tree.metadata().unwrap().mode() & 0o777, 0o555);
    assert_eq!(std::fs::read_link(tree.join("web/data")).unwrap().to_str(), Some("../../../shared/data"));
    assert!(tree.join("web/data").is_dir());
    assert_eq!(tree.join("web/tmp/seed").metadata().unwrap().nlink(), 1);
    std::fs::write(tree.join("web/tmp/scribble"), "mine").unwrap();
    let secret = tree.join("web/conf/secret.conf");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), format!("password = {SECRET}\n"));
    assert_eq!(secret.metadata().unwrap().mode() & 0o777, 0o600);

    // The same again is the same; other vars are another release.
    assert_eq!(lab.done(&lab.stage_request(&one))["existing"], json!(true));

    let done = lab.activate(None, &first, None);
    assert_eq!(done["done"]["already"], json!(false), "{done}");
    let started = lab.done(&json!({ "op": "service-start", "role": "web" }));
    let answer = lab.http();
    assert_eq!(answer["version"], "1.0");
    assert_eq!(answer["release"].as_str(), tree.to_str());
    assert_eq!(answer["conf"], lab.site());
    assert_eq!(answer["pid"], started["pid"]);
    lab.done(&json!({ "op": "confirm", "role": "web", "release": first }));

    let two = lab.build("2.0", &service("2.0"));
    let pushed = lab.push(&two, None).unwrap();
    assert_eq!(pushed["missing"], json!(2), "VERSION and the bundle's own record: {pushed}");
    assert!(pushed["stream"].as_u64().unwrap() < 4096, "{pushed}");
    let second = lab.stage(&two);
    // Staging changes nothing that runs.
    assert_eq!(lab.http()["version"], "1.0");
    let stopped = lab.done(&json!({ "op": "service-stop", "role": "web" }));
    assert_eq!((&stopped["ran"], &stopped["killed"]), (&json!(true), &json!(false)));
    assert!(node::ask(lab.address()).is_none());
    lab.done(&activation(Some(&first), &second, None));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(lab.http()["version"], "2.0");
    let status = lab.status();
    assert_eq!((status["release"].as_str(), status["prior"].as_str()), (Some(&*second), Some(&*first)));
    assert_eq!((&status["process"], &status["runs"]), (&json!("running"), &json!(second)));

    // By hand, as whoever is on call would.
    let out = lab.run(&["rollback", "web", "--bad", "--why", "it was slow"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.starts_with(&format!("went back from {second} to {first}\n")), "{text}");
    assert_eq!(lab.http()["version"], "1.0");
    let status = lab.status();
    assert_eq!(status["release"], json!(first));
    assert_eq!(status["bad"], json!([{ "release": second, "why": "it was slow" }]));
    // A bad release is not taken by itself, and only a person says otherwise.
    let refused = lab.activate(Some(&first), &second, None);
    assert_eq!(refused["error"]["kind"], "bad-release");
    let text = String::from_utf8(lab.run(&["status"]).stdout).unwrap();
    assert!(text.contains(&first) && text.contains("is bad: it was slow"), "{text}");
    let text = String::from_utf8(lab.run(&["journal", "web"]).stdout).unwrap();
    assert!(text.contains(" rolling-back from=2-2.0-1 restart=true to=1-1.0-1 why=it was slow"), "{text}");
}

#[test]
fn secrets_stay_where_they_belong() {
    let lab = Lab::new();
    let one = lab.build("1.0", &service("1.0"));
    let release = lab.promote(&one);
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    lab.http();
    let allowed =
        [lab.release(&release).join("web/conf/secret.conf"), lab.release(&format!("{release}.service"))];
    let hidden = windlass::model::Digest::of(format!("password = {SECRET}\n").as_bytes()).hex();
    for (path, bytes) in node::files_below(&lab.root) {
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(SECRET) {
            assert!(allowed.contains(&path), "{}", path.display());
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        assert!(!text.contains(&hidden), "the plain digest is in {}", path.display());
    }
    // Another password is another release, though no digest of it is to be seen.
    let mut request = lab.stage_request(&one);
    request["secrets"]["pw"] = json!("another");
    let again = lab.done(&request);
    assert_eq!(again["existing"], json!(false));
    assert!(!again.to_string().contains("another"));
}

#[test]
fn hundreds_of_swaps_and_a_reader_never_misses_current() {
    let lab = Lab::new();
    let names =
        [lab.promote(&lab.build("1.0", &service("1.0"))), lab.promote(&lab.build("2.0", &service("2.0")))];
    let path = lab.root.join("roles/web/current/web/VERSION");
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(&path).expect("current resolves at every moment");
                assert!(text == "1.0" || text == "2.0");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut session = lab.session();
        let enough = |swaps: usize| swaps >= 300 && reads.load(Ordering::Relaxed) > 300;
        for n in (0..).take_while(|n| !enough(*n) && !reader.is_finished()) {
            let (from, to) = (&names[(n + 1) % 2], &names[n % 2]);
            let begun = Instant::now();
            let answer = session.ask(&activation(Some(from), to, None));
            times.push(begun.elapsed());
            assert_eq!(answer["done"]["already"], json!(false), "{answer}");
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    times.sort();
    let at = |part: usize| times[times.len() * part / 100];
    println!("{} reads; activation p50 {:?}, p99 {:?}", reads.into_inner(), at(50), at(99));
    assert_eq!(std::fs::read_dir(lab.root.join("roles/web")).unwrap().count(), 4, "no leftovers");
}

#[test]
fn activation_wants_to_know_where_it_is() {
    let lab = Lab::new();
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    let second = lab.stage(&lab.build("2.0", &service("2.0")));
    for (from, to, kind) in [
        (None, &*second, "not-current"),
        (Some(&*second), &*second, "not-current"),
        (Some(&*first), "9-9.9", "not-staged"),
    ] {
        assert_eq!(lab.activate(from, to, None)["error"]["kind"], kind, "{from:?} {to}");
    }
    assert_eq!(lab.activate(Some("7-x"), &first, None)["done"]["already"], json!(true), "its goal holds");
    // A person changed the link: nothing goes on before that is settled.
    let link = lab.root.join("roles/web/current");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(format!("releases/{second}"), &link).unwrap();
    let refused = lab.activate(Some(&first), &second, None);
    assert_eq!(refused["error"]["kind"], "link-moved");
    assert!(
        refused["error"]["help"][0].as_str().unwrap().starts_with("put it back: `ln -sfn releases/1-"),
        "{refused}"
    );
    assert!(lab.status()["problem"].as_str().unwrap().contains("but the journal says"));
}

#[test]
fn a_service_that_will_not_stop_is_killed_with_its_children() {
    let mut lab = Lab::new();
    lab.vars = json!({ "stop": "300ms" });
    let mut files = service("1.0");
    let stubborn =
        "#!/bin/sh\ntrap '' TERM\nsleep 1000 & echo $! > web/tmp/child\nwhile :; do sleep 0.1; done\n";
    files.insert("run.sh".to_owned(), (0o755, stubborn.into()));
    let release = lab.promote(&lab.build("1.0", &files));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    let child = lab.release(&release).join("web/tmp/child");
    wait_until("the child is started", || {
        std::fs::read_to_string(&child).is_ok_and(|text| text.ends_with('\n'))
    });
    let again = lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(again["already"], json!(true));
    let stopped = lab.done(&json!({ "op": "service-stop", "role": "web" }));
    assert_eq!(stopped["killed"], json!(true));
    let pid = std::fs::read_to_string(&child).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    assert_eq!(lab.status()["process"], "stopped");
}

#[test]
fn a_service_that_dies_has_failed_and_one_that_cannot_start_says_why() {
    let lab = Lab::new();
    lab.promote(&lab.build("1.0", &service("1.0")));
    let started = lab.done(&json!({ "op": "service-start", "role": "web" }));
    lab.http();
    let file = lab.root.join("roles/web/pid");
    let mut recorded: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    // Its keeper would bring it up again.
    let keeper = recorded["keep"]["pid"].as_i64().unwrap();
    for (pid, signal) in [(keeper, Signal::STOP), (started["pid"].as_i64().unwrap(), Signal::KILL)] {
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
    }
    wait_until("it is seen to have failed", || lab.status()["process"] == "failed");
    // A number that was given out again is another process, in a group of its own: none of ours.
    let mut stranger = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    recorded["pid"] = json!(stranger.id());
    std::fs::write(&file, recorded.to_string()).unwrap();
    let status = lab.status();
    assert_eq!((&status["process"], &status["pid"]), (&json!("failed"), &Value::Null), "{status}");
    assert!(stranger.try_wait().unwrap().is_none());

    let mut files = service("2.0");
    files.insert("run.sh".to_owned(), (0o755, "#!/no/such/shell\n".into()));
    let release = lab.stage(&lab.build("2.0", &files));
    let answer = lab.call(&json!({ "op": "service-start", "role": "web", "release": release }));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("could not run") && message.contains("No such file"), "{message}");
    wait_until("it has failed", || lab.status()["process"] == "failed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    kill_process(Pid::from_raw(i32::try_from(keeper).unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn the_last_words_of_a_service_leave_the_node_where_no_secret_was_given() {
    let lab = Lab::new();
    let mut files = service("1.0");
    files.insert("run.sh".to_owned(), (0o755, "#!/bin/sh\necho heap is full >&2\nexec sleep 0.01\n".into()));
    let words = |secrets: bool| {
        let built = lab.build("1.0", &files);
        lab.push(&built, None).unwrap();
        let mut request = lab.stage_request(&built);
        if !secrets {
            request["secrets"] = json!({});
        }
        let staged = lab.done(&request);
        let release = staged["release"].as_str().unwrap();
        lab.activate(lab.current().as_deref(), release, None);
        lab.done(&json!({ "op": "service-start", "role": "web" }));
        wait_until("it is seen to have failed", || lab.status()["process"] == "failed");
        let said = lab.status()["said"].clone();
        lab.done(&json!({ "op": "service-stop", "role": "web" }));
        said
    };
    assert_eq!(words(true), Value::Null);
    std::fs::write(lab.dir.join("conf/web/secret.conf"), "password = none\n").unwrap();
    let recipe = std::fs::read_to_string(lab.dir.join("recipes/web.toml")).unwrap();
    std::fs::write(lab.dir.join("recipes/web.toml"), recipe.replace("{{ secret('pw') }}", "none")).unwrap();
    let said = words(false);
    assert!(said.as_str().unwrap().contains("heap is full"), "{said}");
}

#[test]
fn a_service_runs_as_its_user() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root starts a service as another user");
    }
    let lab = Lab::new();
    // The folders above the root are the test's own and 0700.
    std::fs::set_permissions(&lab.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let recipe = std::fs::read_to_string(lab.dir.join("recipes/web.toml")).unwrap();
    std::fs::write(
        lab.dir.join("recipes/web.toml"),
        recipe.replace("[service]", "[service]\nuser = \"nobody\""),
    )
    .unwrap();
    // Others than root may not be able to reach the target directory.
    let program = lab.dir.join("windlass");
    let built = env!("CARGO_BIN_EXE_windlass");
    std::fs::hard_link(built, &program).or_else(|_| std::fs::copy(built, &program).map(drop)).unwrap();
    let mut files = service("1.0");
    files.insert("run.sh".to_owned(), (0o755, node::run_script(&program).into()));
    let release = lab.promote(&lab.build("1.0", &files));
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    assert_eq!(lab.http()["user"], json!(65534));
    let tree = lab.release(&release);
    for (path, owner) in
        [("web/tmp", 65534), ("web/tmp/seed", 65534), ("web/conf/secret.conf", 65534), ("web/lib", 0)]
    {
        assert_eq!(tree.join(path).metadata().unwrap().uid(), owner, "{path}");
    }
    assert_eq!(lab.root.join("roles/web/shared/data").metadata().unwrap().uid(), 65534);
    assert_eq!(lab.root.metadata().unwrap().mode() & 0o777, 0o711);
    // What the service's user plants in its own directories is not followed when the release goes.
    std::os::unix::fs::symlink("/etc", tree.join("web/tmp/etc")).unwrap();
    lab.done(&json!({ "op": "service-stop", "role": "web" }));
}

#[test]
fn a_command_proves_that_a_service_is_ready() {
    let lab = Lab::new();
    let recipe = std::fs::read_to_string(lab.dir.join("recipes/web.toml")).unwrap();
    let http = "http = { port = \"{{ vars.port }}\", path = \"/\" }";
    assert!(recipe.contains(http));
    let recipe = recipe.replace(http, "command = [\"web/ready.sh\", \"{{ vars.port }}\"]");
    std::fs::write(lab.dir.join("recipes/web.toml"), recipe).unwrap();
    let mut files = service("1.0");
    let script = "#!/bin/sh\ntest \"$1\" = \"$PORT\" && test -e web/tmp/ok && exit 0\ntest -e web/tmp/hang && sleep 100\nexit 3\n";
    files.insert("ready.sh".to_owned(), (0o755, script.into()));
    let release = lab.promote(&lab.build("1.0", &files));
    let probe = |within: &str| lab.done(&json!({ "op": "probe", "role": "web", "within": within }));
    assert_eq!(probe("60s"), json!({ "ready": false, "exit": 3 }));
    std::fs::write(lab.release(&release).join("web/tmp/hang"), "").unwrap();
    assert_eq!(probe("300ms"), json!({ "ready": false, "exit": null }));
    std::fs::write(lab.release(&release).join("web/tmp/ok"), "").unwrap();
    assert_eq!(probe("60s"), json!({ "ready": true, "exit": 0 }));
}

#[test]
fn a_person_stages_from_a_file() {
    use std::io::Write as _;
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    lab.push(&built, None).unwrap();
    let mut request = lab.stage_request(&built);
    request.as_object_mut().unwrap().remove("op");
    let mut child = lab
        .node(&["stage", "--format", "json"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["release"], "1-1.0-1");
    // A second program that is not under any root says so.
    let out = node::windlass().args(["node", "status"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}
