//! Drift and garbage.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use crate::support::node::{Lab, activation, service};

fn writable(path: &std::path::Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn drift_names_what_changed_and_how() {
    let lab = Lab::new();
    let release = lab.promote(&lab.build("1.0", &service("1.0")));
    let web = lab.release(&release).join("web");
    let drift = || lab.done(&json!({ "op": "drift", "role": "web" }))["drift"].clone();
    assert_eq!(drift(), json!([]));
    // Scratch and persistent directories are the service's own.
    std::fs::write(web.join("tmp/new"), "").unwrap();
    std::fs::write(web.join("tmp/seed"), "other").unwrap();
    std::fs::write(web.join("data/new"), "").unwrap();
    assert_eq!(drift(), json!([]));

    for dir in ["", "conf", "lib", "lib/0", "lib/1"] {
        writable(&web.join(dir));
    }
    std::fs::remove_file(web.join("lib/1/part-1.txt")).unwrap();
    std::fs::write(web.join("lib/1/more.txt"), "").unwrap();
    for name in ["conf/site.conf", "conf/secret.conf"] {
        std::fs::remove_file(web.join(name)).unwrap();
        std::fs::write(web.join(name), "{}").unwrap();
    }
    std::fs::remove_file(web.join("VERSION")).unwrap();
    symlink("GREETING-KEY", web.join("VERSION")).unwrap();
    std::fs::remove_file(web.join("data")).unwrap();
    symlink("/etc", web.join("data")).unwrap();
    // A directory replaced by a link to the same content elsewhere.
    std::fs::rename(web.join("lib/2"), lab.dir.join("elsewhere")).unwrap();
    symlink(lab.dir.join("elsewhere"), web.join("lib/2")).unwrap();
    writable(&web.join("run.sh"));
    let found = drift();
    let mut lines: Vec<String> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["path"].as_str().unwrap(), one["what"].as_str().unwrap()))
        .filter(|line| !line.starts_with("web/lib/2/"))
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "web mode",
            "web/VERSION changed",
            "web/conf mode",
            "web/conf/secret.conf changed",
            "web/conf/site.conf changed",
            "web/data changed",
            "web/lib mode",
            "web/lib/0 mode",
            "web/lib/1 mode",
            "web/lib/1/more.txt extra",
            "web/lib/1/part-1.txt missing",
            "web/lib/2 changed",
            "web/run.sh mode",
        ]
    );
    let out = lab.run(&["drift", "web"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8(out.stdout).unwrap().contains("web/lib/1/part-1.txt"));
}

#[test]
fn gc_keeps_what_is_needed_and_the_rest_goes() {
    let lab = Lab::new();
    let mut releases = Vec::new();
    for n in 1..=5 {
        let version = format!("{n}.0");
        releases.push(lab.promote(&lab.build(&version, &service(&version))));
    }
    // The process still runs from the second release.
    lab.done(&json!({ "op": "service-start", "role": "web", "release": releases[1] }));
    lab.http();
    let plan = lab.done(&json!({ "op": "gc", "keep": 1, "dry_run": true }));
    assert!(lab.release(&releases[0]).exists());
    let done = lab.done(&json!({ "op": "gc", "keep": 1 }));
    let gone = |answer: &Value| -> Vec<Value> {
        answer["releases"].as_array().unwrap().iter().map(|one| one["release"].clone()).collect()
    };
    assert_eq!(gone(&done), [json!(releases[0]), json!(releases[2])]);
    assert_eq!(gone(&plan), gone(&done));
    assert_eq!(
        (&plan["objects"], &plan["bytes"], &plan["bundles"]),
        (&done["objects"], &done["bytes"], &done["bundles"])
    );
    assert!(done["objects"].as_u64().unwrap() >= 2, "{done}");
    assert!(!lab.release(&releases[0]).exists() && lab.release(&releases[1]).exists());
    assert_eq!(lab.http()["version"], "2.0");
    lab.done(&json!({ "op": "service-stop", "role": "web" }));

    // However little is to be kept, there is always a way back.
    for _ in 0..2 {
        lab.done(&json!({ "op": "gc", "keep": 0 }));
    }
    let status = lab.status();
    assert_eq!((&status["release"], &status["prior"]), (&json!(releases[4]), &json!(releases[3])));
    for release in &releases[3..] {
        assert_eq!(
            lab.done(&json!({ "op": "drift", "role": "web", "release": release }))["drift"],
            json!([])
        );
    }
    let back = lab.done(&json!({ "op": "rollback", "role": "web", "why": "to see" }));
    assert_eq!(back["to"], json!(releases[3]));
    // A removed release is gone for the journal as well, and its number is not given out again.
    assert_eq!(lab.activate(Some(&releases[3]), &releases[0], None)["error"]["kind"], "not-staged");
    assert_eq!(lab.stage(&lab.build("6.0", &service("6.0"))), "6-6.0-1");
}

#[test]
fn gc_leaves_what_an_unconfirmed_release_goes_back_to() {
    let lab = Lab::new();
    let first = lab.promote(&lab.build("1.0", &service("1.0")));
    let second = lab.stage(&lab.build("2.0", &service("2.0")));
    lab.done(&activation(Some(&first), &second, Some("1m")));
    let done = lab.done(&json!({ "op": "gc", "keep": 0 }));
    assert_eq!(done["releases"], json!([]));
    assert_eq!(lab.done(&json!({ "op": "rollback", "role": "web", "why": "x" }))["to"], json!(first));
}

#[test]
fn healing_puts_back_what_is_known_and_names_the_rest() {
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    let release = lab.promote(&built);
    lab.done(&json!({ "op": "service-start", "role": "web" }));
    let pid = lab.http()["pid"].clone();
    let web = lab.release(&release).join("web");
    for dir in ["", "conf", "lib", "lib/0", "lib/1"] {
        writable(&web.join(dir));
    }
    // Gone, changed apart from its object, a link instead, a mode, an extra file, rendered files, links.
    std::fs::remove_file(web.join("lib/1/part-1.txt")).unwrap();
    std::fs::remove_file(web.join("lib/0/part-0.txt")).unwrap();
    std::fs::write(web.join("lib/0/part-0.txt"), "other").unwrap();
    std::fs::remove_file(web.join("VERSION")).unwrap();
    symlink("GREETING-KEY", web.join("VERSION")).unwrap();
    std::fs::remove_file(web.join("data")).unwrap();
    symlink("/etc", web.join("data")).unwrap();
    std::fs::write(web.join("lib/1/more.txt"), "").unwrap();
    for name in ["conf/site.conf", "conf/secret.conf"] {
        std::fs::remove_file(web.join(name)).unwrap();
    }
    writable(&web.join("run.sh"));
    writable(&web.join("lib/3"));
    std::fs::remove_file(web.join("lib/3/part-3.txt")).unwrap();
    std::fs::remove_dir_all(web.join("lib/4")).unwrap_or_else(|_| {
        writable(&web.join("lib/4"));
        std::fs::remove_dir_all(web.join("lib/4")).unwrap();
    });
    // A directory replaced by a link: nothing is made through it.
    std::fs::rename(web.join("lib/2"), lab.dir.join("elsewhere")).unwrap();
    symlink(lab.dir.join("elsewhere"), web.join("lib/2")).unwrap();
    writable(&lab.dir.join("elsewhere"));
    std::fs::remove_file(lab.dir.join("elsewhere/part-2.txt")).unwrap();
    // Through its inode, so that the object is changed as well; and one whose object is gone.
    let server = web.join("GREETING-KEY");
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut text = std::fs::read(&server).unwrap();
    text[0] = b'#';
    std::fs::write(&server, &text).unwrap();

    let out = lab.run(&["drift", "web", "--heal"]);
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8(out.stdout).unwrap();
    for part in ["web/lib/1/part-1.txt", "web/lib/1/more.txt", "not healed", "push the bundle again"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let left = |answer: &Value| -> Vec<String> {
        let left =
            answer["left"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap().to_owned());
        left.filter(|path| !path.starts_with("web/lib/2/")).collect()
    };
    let heal = json!({ "op": "heal", "role": "web" });
    let answer = lab.done(&heal);
    assert_eq!(answer["healed"], json!([]), "it was all done by hand: {answer}");
    assert_eq!(answer["extra"], json!(["web/lib/1/more.txt"]));
    assert_eq!(
        left(&answer),
        ["web/GREETING-KEY", "web/conf/secret.conf", "web/conf/site.conf", "web/lib/2"]
    );
    assert!(!lab.dir.join("elsewhere/part-2.txt").exists());
    assert_eq!(std::fs::read_dir(lab.root.join("roles/web")).unwrap().count(), 5, "no leftovers");

    // Rendered files need what they were rendered with, and only that does.
    let mut with = heal.clone();
    let request = lab.stage_request(&built);
    with["with"] = json!({ "context": request["context"], "secrets": { "pw": "another" } });
    assert_eq!(lab.done(&with)["healed"], json!([{ "path": "web/conf/site.conf", "what": "missing" }]));
    with["with"]["secrets"] = request["secrets"].clone();
    let answer = lab.done(&with);
    assert_eq!(answer["healed"], json!([{ "path": "web/conf/secret.conf", "what": "missing" }]));
    assert!(!answer.to_string().contains(crate::support::node::SECRET));
    assert_eq!(web.join("conf/secret.conf").metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // The object that was changed is sent again; the running service has noticed nothing of all this.
    assert_eq!(lab.push(&built, None).unwrap()["missing"], json!(1));
    std::fs::remove_file(web.join("lib/2")).unwrap();
    std::fs::remove_file(web.join("lib/1/more.txt")).unwrap_or_else(|_| {
        writable(&web.join("lib/1"));
        std::fs::remove_file(web.join("lib/1/more.txt")).unwrap();
    });
    let answer = lab.done(&heal);
    assert_eq!((&answer["left"], &answer["extra"]), (&json!([]), &json!([])), "{answer}");
    assert_eq!(lab.done(&json!({ "op": "drift", "role": "web" }))["drift"], json!([]));
    assert_eq!(lab.http()["pid"], pid);
}
