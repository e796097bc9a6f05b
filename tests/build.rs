//! The build half as a person or CI meets it: commands, exit codes and JSON, in a folder of its own each.
//!
//! Proves numbering, locking, the caches (by the system calls that a build makes), that `verify` finds one
//! flipped byte wherever it is, and that `gc` takes what nobody needs and nothing else.
//!
//! Not here: archives (tests/archive), the stock recipes (tests/stock.rs), crashes (tests/crash.rs).

use crate::support::project;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use project::{APP, JDK, Project, Run, WINDLASS, app, clean, have, jdk, names_below, text};
use serde_json::{Value, json};

/// Asserts that `value` is an object with these fields at least, each of the kind of its example.
#[track_caller]
fn assert_shape(value: &Value, example: &Value) {
    match (value, example) {
        (Value::Object(value), Value::Object(example)) => {
            for (key, example) in example {
                let value = value.get(key).unwrap_or_else(|| panic!("no `{key}` in {value:?}"));
                assert_shape(value, example);
            }
        }
        (Value::Array(values), Value::Array(examples)) => {
            assert!(!values.is_empty() || examples.is_empty(), "an empty list");
            for value in values {
                assert_shape(value, &examples[0]);
            }
        }
        (Value::Number(_), Value::Number(_)) | (Value::Bool(_), Value::Bool(_)) => {}
        (Value::String(value), Value::String(example)) => {
            if example == "sha256:" {
                let hex = value.strip_prefix("sha256:").unwrap_or_default();
                assert!(hex.len() == 64 && hex.bytes().all(|b| b"0123456789abcdef".contains(&b)), "{value}");
            }
        }
        _ => panic!("{value} is not like {example}"),
    }
}

fn bundle_row() -> Value {
    json!({
        "role": "", "version": "", "ref": "", "digest": "sha256:", "size": 0, "files": 0,
        "unpacked_size": 0, "layers": [{ "digest": "sha256:", "size": 0, "cached": true }], "duration_ms": 0
    })
}

fn error_of(run: &Run) -> Value {
    let json = run.json();
    assert_shape(&json, &json!({ "error": { "kind": "", "message": "" } }));
    assert!(json["error"]["causes"].is_array() && json["error"]["help"].is_array(), "{json}");
    json["error"].clone()
}

fn help_of(error: &Value) -> String {
    error["help"].as_array().unwrap().iter().map(text).collect::<Vec<_>>().join("\n")
}

#[test]
fn from_lock_to_gc() {
    let project = Project::new();
    let lock = project.json(&["lock"]).ok().json();
    assert_eq!(lock["added"], json!([APP, JDK]));
    let written = project.read("windlass.lock");

    let build = project.json(&["build", "--locked"]).ok();
    assert_shape(&build.json(), &json!({ "bundles": [bundle_row()] }));
    assert_eq!(project.read("windlass.lock"), written);
    let bundles = build.bundles();
    assert_eq!(bundles.keys().collect::<Vec<_>>(), ["hot", "plain", "warm"]);
    assert_eq!(bundles["hot"]["ref"], "hot:1.0-1");
    assert_eq!(bundles["plain"]["ref"], "plain:1.0");

    let ls = project.json(&["ls"]).ok();
    assert_shape(&ls.json(), &json!({ "bundles": [bundle_row()] }));
    for (role, row) in ls.bundles() {
        for field in ["version", "ref", "digest", "size", "files", "unpacked_size"] {
            assert_eq!(row[field], bundles[&role][field], "{role} {field}");
        }
    }
    assert!(project.run(&["ls", "hot"]).ok().stdout.contains("hot:1.0-1"));

    let inspect = project.json(&["inspect", "hot"]).ok().json();
    assert_shape(&inspect, &bundle_row());
    assert_eq!(inspect["artifacts"][0]["name"], JDK);
    assert_eq!(inspect["layers"][0]["shared_with"], json!(["warm:1.0-1"]));
    let entry = |path: &str| {
        let entries = inspect["entries"].as_array().unwrap();
        entries.iter().find(|entry| entry["path"] == path).unwrap_or_else(|| panic!("no {path}")).clone()
    };
    assert_eq!(entry("jdk/bin/java")["mode"], "0755");
    assert_eq!(entry("jdk/release")["mode"], "0644");
    assert_eq!(entry("jdk/bin/javac")["target"], "java");
    assert_eq!(entry("app/conf/start")["mode"], "0755");
    assert!(project.run(&["inspect", "hot", "--files"]).ok().stdout.contains("jdk/lib/modules"));

    project.edit("conf/plain/plain.conf", "b = 2", "b = 3");
    project.edit("recipes/plain.toml", "\"1.0\"", "\"1.1\"");
    project.build();
    let diff = project.json(&["diff", "plain:1.0", "plain"]).ok().json();
    let changed = diff["changed"].as_array().unwrap();
    let conf = changed.iter().find(|one| one["path"] == "etc/plain.conf").unwrap();
    assert!(text(&conf["diff"]).contains("-b = 2\n+b = 3\n"), "{diff}");
    assert!(project.run(&["diff", "plain:1.0", "plain:1.1"]).ok().stdout.contains("+b = 3"));

    project.assert_verified();
    let removed = project.json(&["gc", "--keep", "1"]).ok().json();
    assert!(removed["removed"].as_array().unwrap().iter().any(|item| item["name"] == "plain:1.0"));
    project.assert_verified();

    project.run(&["set", "app", "1.1"]).ok();
    assert!(project.read("windlass.toml").contains("app = \"1.1\" # raised often\n"));
    project.zip("app-1.1.zip", &app("1.1"));
    assert_eq!(project.build().bundles()["warm"]["ref"], "warm:1.1-1");
    let diff = project.json(&["diff", "warm:1.0-1", "warm"]).ok().json();
    let paths = |list: &str| diff[list].as_array().unwrap().iter().map(|one| text(&one["path"])).collect();
    let (added, removed): (BTreeSet<_>, BTreeSet<_>) = (paths("added"), paths("removed"));
    assert_eq!(added, BTreeSet::from(["app/lib/app-1.1.jar".to_owned()]));
    assert_eq!(removed, BTreeSet::from(["app/lib/app-1.0.jar".to_owned()]));
}

#[test]
fn build_numbers() {
    let project = Project::new();
    let refs = |run: Run| text(&run.ok().bundles()["hot"]["ref"]);
    let hot = |arguments: &[&str]| project.json(&[&["build", "hot"], arguments].concat());
    assert_eq!(refs(hot(&[])), "hot:1.0-1");
    assert_eq!(refs(hot(&[])), "hot:1.0-1");
    project.edit("conf/app/app.yml", "heap", "memory");
    assert_eq!(refs(hot(&[])), "hot:1.0-2");
    // What it was two builds ago is not what is newest.
    project.edit("conf/app/app.yml", "memory", "heap");
    assert_eq!(refs(hot(&[])), "hot:1.0-3");
    let index = project.json(&["ls", "hot"]).ok().json();
    assert_eq!(index["bundles"][0]["digest"], index["bundles"][2]["digest"], "the number is not content");

    // A number that is given is taken, and another name for the same content is no second content.
    assert_eq!(refs(hot(&["--build", "40"])), "hot:1.0-40");
    assert_eq!(refs(hot(&["--build", "40"])), "hot:1.0-40");
    let mut command = project.command(&["build", "hot", "--format", "json"]);
    assert_eq!(refs(Run::of(command.env("WINDLASS_BUILD", "41"))), "hot:1.0-41");
    let mut command = project.command(&["build", "hot", "--build", "42", "--format", "json"]);
    assert_eq!(refs(Run::of(command.env("WINDLASS_BUILD", "7"))), "hot:1.0-42");
    project.edit("conf/app/app.yml", "heap", "memory");
    assert_eq!(refs(hot(&[])), "hot:1.0-43");

    // Another version counts for itself.
    project.run(&["set", "app", "1.1"]).ok();
    project.zip("app-1.1.zip", &app("1.1"));
    assert_eq!(refs(hot(&[])), "hot:1.1-1");
}

#[test]
fn a_version_never_changes_its_content() {
    for (arguments, environment) in [(vec!["build", "plain"], None), (vec!["build", "hot"], Some("1"))] {
        let project = Project::new();
        let command = || {
            let mut command = project.command(&arguments);
            command.args(["--format", "json"]);
            if let Some(number) = environment {
                command.env("WINDLASS_BUILD", number);
            }
            command
        };
        Run::of(&mut command()).ok();
        let before = (project.store_files(), project.read("out/index.json"));
        project.edit("conf/plain/plain.conf", "a = 1", "a = 0");
        project.edit("conf/app/app.yml", "heap:", "xmx:");
        let error = error_of(&Run::of(&mut command()).exits(2));
        assert_eq!(error["kind"], "store");
        assert!(text(&error["message"]).contains("with another content"), "{error}");
        assert_eq!((project.store_files(), project.read("out/index.json")), before);
    }
}

#[test]
fn locked_refuses_what_is_not_recorded() {
    let project = Project::new();
    let error = error_of(&project.json(&["build", "--locked"]).exits(2));
    assert_eq!(error["kind"], "lock");
    assert!(help_of(&error).contains("windlass lock"), "{error}");
    assert!(!project.path("windlass.lock").exists());
    assert!(!project.path("out/index.json").exists());
    // Without it the entries are added, as the output says.
    assert_eq!(project.build().json()["locked"], json!([APP, JDK]));
    assert_eq!(project.json(&["build", "--locked"]).ok().json()["locked"], json!([]));
    // It also refuses when the artifact is known from an earlier build.
    fs::write(project.path("windlass.lock"), "schema = 1\n").unwrap();
    assert_eq!(error_of(&project.json(&["build", "--locked"]).exits(2))["kind"], "lock");
    assert_eq!(project.read("windlass.lock"), "schema = 1\n");
}

#[test]
fn an_artifact_that_changed_is_refused_until_it_is_accepted() {
    for cached in [true, false] {
        let project = Project::new();
        project.run(&["lock"]).ok();
        if cached {
            project.build();
        }
        let (lock, store) = (project.read("windlass.lock"), project.store_files());
        project.zip(APP, &app("1.0 respun"));
        for command in [&["build"][..], &["build", "--locked"], &["lock"], &["lock", "--update", JDK]] {
            let error = error_of(&project.json(command).exits(2));
            assert_eq!(error["kind"], "lock");
            assert!(text(&error["message"]).contains(APP), "{error}");
            assert!(help_of(&error).contains(&format!("windlass lock --update {APP}")), "{error}");
            assert_eq!((project.read("windlass.lock"), project.store_files()), (lock.clone(), store.clone()));
        }
        let done = project.json(&["lock", "--update", &format!("install/{APP}")]).ok().json();
        assert_eq!((&done["updated"], &done["unchanged"]), (&json!([APP]), &json!(1)));
        assert_ne!(project.read("windlass.lock"), lock);
        let number = if cached { "hot:1.0-2" } else { "hot:1.0-1" };
        assert_eq!(project.build().bundles()["hot"]["ref"], number);
    }
    let project = Project::new();
    project.run(&["lock"]).ok();
    let error = error_of(&project.json(&["lock", "--update", "jdk-12.tar.gz"]).exits(2));
    assert!(help_of(&error).contains("did you mean `jdk-11.tar.gz`?"), "{error}");
}

#[test]
fn a_missing_artifact_lists_its_near_names() {
    let project = Project::new();
    fs::rename(project.path("install/jdk-11.tar.gz"), project.path("install/jdk-11.0.tar.gz")).unwrap();
    fs::remove_file(project.path("install/app-1.0.zip")).unwrap();
    for command in ["build", "lock"] {
        let run = project.json(&[command]).exits(2);
        let error = error_of(&run);
        let (message, help) = (text(&error["message"]), help_of(&error));
        assert!(message.contains("install/jdk-11.tar.gz is missing"), "{error}");
        assert!(message.contains("install/app-1.0.zip is missing"), "all are told at once: {error}");
        assert!(help.contains("install/ has jdk-11.0.tar.gz"), "{error}");
        assert!(run.stderr.contains("recipes/"), "{}", run.stderr);
        assert!(!project.path("out/index.json").exists());
    }
}

/// Runs windlass under strace; gives its run, and the paths in install/ that it opened.
fn traced(project: &Project, arguments: &[&str]) -> (Run, Vec<String>) {
    let trace = project.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2", "-o"]).arg(&trace);
    command.arg(WINDLASS).args(arguments).args(["--format", "json"]).current_dir(&project.dir);
    clean(&mut command);
    let run = Run::of(&mut command);
    let log = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    let quoted = log.lines().filter_map(|line| line.split('"').nth(1));
    let opened = quoted.filter(|path| path.contains("install/")).map(str::to_owned).collect();
    (run, opened)
}

#[test]
fn what_did_not_change_is_not_opened() {
    if !have("strace") {
        return;
    }
    let project = Project::new();
    project.run(&["lock"]).ok();
    let (run, opened) = traced(&project, &["build"]);
    run.ok();
    for name in [APP, JDK] {
        assert!(opened.iter().any(|path| path.ends_with(name)), "the trace sees {name} opened: {opened:?}");
    }

    let (run, opened) = traced(&project, &["build"]);
    let run = run.ok();
    assert_eq!(opened, Vec::<String>::new());
    assert_eq!(run.json()["artifacts_read"], 0);
    assert!(run.stderr.contains("nothing changed; no artifact was read"), "{}", run.stderr);
    assert!(run.bundles().values().all(|bundle| bundle["unchanged"] == true));

    project.edit("conf/app/app.yml", "name:", "nome:");
    let (run, opened) = traced(&project, &["build"]);
    let run = run.ok();
    assert_eq!(opened, Vec::<String>::new());
    assert_eq!(run.json()["artifacts_read"], 0);
    assert!(run.stderr.contains("no artifact was read"), "{}", run.stderr);
    let bundles = run.bundles();
    let cached = |role: &str| -> Vec<bool> {
        let layers = bundles[role]["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["cached"].as_bool().unwrap()).collect()
    };
    assert_eq!(cached("hot"), [true, true, false, true], "jdk, app, conf, record");
    assert_eq!(bundles["plain"]["unchanged"], true);

    // A touched artifact is read again and found to be the same.
    fs::File::options()
        .append(true)
        .open(project.path("install/jdk-11.tar.gz"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let (run, opened) = traced(&project, &["build"]);
    let run = run.ok();
    assert!(opened.iter().all(|path| path.ends_with(JDK)) && !opened.is_empty(), "{opened:?}");
    assert!(run.bundles().values().all(|bundle| bundle["unchanged"] == true));
}

#[test]
fn a_layer_that_roles_share_is_built_once() {
    let project = Project::new();
    let (run, opened) =
        if have("strace") { traced(&project, &["build"]) } else { (project.json(&["build"]), Vec::new()) };
    let run = run.ok();
    let bundles = run.bundles();
    let layers = |role: &str| -> Vec<String> {
        bundles[role]["layers"].as_array().unwrap().iter().map(|layer| text(&layer["digest"])).collect()
    };
    assert_eq!(layers("hot")[..3], layers("warm")[..3]);
    assert_ne!(bundles["hot"]["digest"], bundles["warm"]["digest"]);
    assert_eq!(run.json()["artifacts_read"], 2);
    assert!(opened.iter().filter(|path| path.ends_with(JDK)).count() <= 1, "{opened:?}");
    // hot and warm: 3 shared layers and their own record each; plain: 2; 3 manifests, 3 configs.
    let blobs = fs::read_dir(project.path("out/blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 3 + 2 + 2 + 6);
    assert_eq!(fs::read_dir(project.path("out/blobs/sha256")).unwrap().count(), blobs);
}

#[test]
fn roles_are_chosen_by_name() {
    let project = Project::new();
    for (arguments, kind) in [
        (&["build", "plian"][..], "there is no role `plian`"),
        (&["build", "--role", "hot,plian"], "there is no role `plian`"),
    ] {
        let error = error_of(&project.json(arguments).exits(2));
        assert_eq!(text(&error["message"]), kind);
        assert!(help_of(&error).contains("did you mean `plain`?\nroles: hot, plain, warm"), "{error}");
    }
    assert!(!project.path("out").exists(), "a wrong name changes nothing");
    let built = project.json(&["build", "plain", "--role", "hot,plain"]).ok().bundles();
    assert_eq!(built.keys().collect::<Vec<_>>(), ["hot", "plain"]);
    let error = error_of(&project.json(&["inspect", "hot:1.0-9"]).exits(2));
    assert!(help_of(&error).contains("hot:1.0-1"), "{error}");
    for reference in ["warm", "sha256:00", ":", "hot:", "HOT"] {
        error_of(&project.json(&["inspect", reference]).exits(2));
    }
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let project = Project::new();
    for arguments in [
        &["inspect", "hot"][..],
        &["ls"],
        &["verify"],
        &["gc"],
        &["set", "nothing", "1"],
        &["build", "--level", "99"],
        &["build", "--memory", "much"],
        &["frobnicate"],
        &["gc", "--keep", "0"],
    ] {
        let run = project.json(arguments).exits(2);
        error_of(&run);
        assert!(!run.stderr.is_empty(), "a person reads the same on stderr");
    }
    project.write("recipes/hot.toml", "schema = 1\nversion = \"1\"\nvra = 1\n");
    let run = project.json(&["build"]).exits(2);
    let error = error_of(&run);
    let problem = &error["problems"][0];
    assert_eq!((&problem["file"], &problem["line"]), (&json!("recipes/hot.toml"), &json!(3)), "{error}");
    let human = project.run(&["build"]).exits(2);
    assert!(human.stdout.is_empty() && human.stderr.contains("recipes/hot.toml:3"), "{}", human.stderr);
}

/// Every place of a layer blob that is of a kind of its own: data, table, both skippable headers, footer.
fn places_in_layer(bytes: &[u8]) -> Vec<(&'static str, usize)> {
    let footer = bytes.len() - 64;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (toc, toc_size) =
        (usize::try_from(word(footer + 8)).unwrap(), usize::try_from(word(footer + 16)).unwrap());
    assert_eq!(&bytes[bytes.len() - 8..], b"windlass");
    vec![
        ("frame magic", 0),
        ("frame header", 5),
        ("frame data", toc / 2),
        ("last byte of the frames", toc - 9),
        ("table's skippable magic", toc - 8),
        ("table's skippable size", toc - 4),
        ("table's first byte", toc),
        ("table", toc + toc_size / 2),
        ("table's last byte", toc + toc_size - 1),
        ("footer's skippable magic", footer - 8),
        ("footer's format", footer),
        ("footer's offset", footer + 9),
        ("footer's size", footer + 17),
        ("footer's digest", footer + 30),
        ("footer's magic", bytes.len() - 1),
    ]
}

#[test]
fn verify_finds_one_flipped_byte_wherever_it_is() {
    let project = Project::sized(4);
    let bundles = project.build().bundles();
    project.assert_verified();
    let hot = &bundles["hot"];
    let manifest = text(&hot["digest"]);
    let config: Value = serde_json::from_slice(&fs::read(project.blob(&manifest)).unwrap()).unwrap();
    let config = text(&config["config"]["digest"]);
    let mut places = Vec::new();
    for layer in hot["layers"].as_array().unwrap() {
        let digest = text(&layer["digest"]);
        let bytes = fs::read(project.blob(&digest)).unwrap();
        places.extend(places_in_layer(&bytes).into_iter().map(|(what, at)| (digest.clone(), what, at)));
    }
    for (digest, what) in [(manifest, "manifest"), (config, "config")] {
        let size = fs::read(project.blob(&digest)).unwrap().len();
        places.extend([0, size / 3, size / 2, size - 1].map(|at| (digest.clone(), what, at)));
    }
    for (digest, what, at) in places {
        let path = project.blob(&digest);
        let good = fs::read(&path).unwrap();
        for mask in [1, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= mask;
            fs::write(&path, &bad).unwrap();
            let run = project.json(&["verify"]).exits(1);
            let report = run.json();
            assert_shape(&report, &json!({ "problems": [{ "ref": "", "path": "", "what": "" }] }));
            let hex = digest.strip_prefix("sha256:").unwrap();
            assert!(run.stdout.contains(hex), "{what} of {digest} at {at}: {report}");
            assert!(run.stdout.contains("hot:1.0-1"), "{what}: {report}");
            // The other commands may fail, in order.
            for command in [&["inspect", "hot"][..], &["ls"], &["diff", "hot", "warm"], &["gc", "--dry-run"]]
            {
                let run = project.json(command);
                assert!(matches!(run.code, Some(0 | 1)), "{what} {command:?}: {run:?}");
            }
        }
        fs::write(&path, &good).unwrap();
    }
    project.assert_verified();
}

#[test]
fn a_blob_that_is_cut_longer_or_gone_is_found_and_made_again() {
    let project = Project::sized(4);
    let built = project.build();
    let all: Vec<_> =
        fs::read_dir(project.path("out/blobs/sha256")).unwrap().map(|e| e.unwrap().path()).collect();
    for path in &all {
        let good = fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let longer = [&good[..], b"x"].concat();
        for bad in [
            Some(&good[..good.len() - 1]),
            Some(&good[..good.len() / 2]),
            Some(&b""[..]),
            Some(&longer),
            None,
        ] {
            match bad {
                Some(bad) => fs::write(path, bad).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            let run = project.json(&["verify"]).exits(1);
            assert!(run.stdout.contains(name), "{name} cut to {:?}: {}", bad.map(<[u8]>::len), run.stdout);
        }
        // It is gone: building makes it again, the same.
        assert_eq!(project.build().digests(), built.digests());
        assert!(fs::read(path).unwrap() == good);
        project.assert_verified();
    }
}

#[test]
fn gc_keeps_the_newest_and_what_they_share() {
    let project = Project::new();
    for heap in ["1g", "2g", "3g", "4g", "5g"] {
        project.edit("recipes/hot.toml", "[vars]", &format!("[vars]\nx{heap} = 1"));
        project.build();
    }
    let names = |project: &Project| -> BTreeSet<String> {
        let ls = project.json(&["ls"]).ok().json();
        ls["bundles"].as_array().unwrap().iter().map(|row| text(&row["ref"])).collect()
    };
    let set = |list: &[&str]| -> BTreeSet<String> { list.iter().map(|name| (*name).to_owned()).collect() };
    let before = (names_below(&project.path("out")), names(&project));
    let planned = project.json(&["gc", "--keep", "2", "--dry-run"]).ok().json();
    assert_eq!((names_below(&project.path("out")), names(&project)), before, "a dry run removes nothing");
    let mut done = project.json(&["gc", "--keep", "2"]).ok().json();
    assert_eq!(done["dry_run"], false);
    done["dry_run"] = json!(true);
    assert_eq!(done, planned, "a dry run says what the run does");
    assert_eq!(names(&project), set(&["hot:1.0-4", "hot:1.0-5", "plain:1.0", "warm:1.0-1"]));
    assert!(project.run(&["gc", "--keep", "2"]).ok().stdout.contains("nothing to remove"));
    project.assert_verified();
    project.assert_store_is_whole();

    // Nothing that is left has to be built again, and the next number goes on.
    let again = project.build();
    assert_eq!(again.json()["artifacts_read"], 0);
    assert!(again.bundles().values().all(|bundle| bundle["unchanged"] == true));
    project.edit("recipes/hot.toml", "x1g", "y1g");
    let next = project.build();
    assert_eq!(next.bundles()["hot"]["ref"], "hot:1.0-6");
    assert_eq!(next.json()["artifacts_read"], 0);

    // With one role's recipe gone its bundles stay: the store knows no recipes.
    fs::remove_file(project.path("recipes/warm.toml")).unwrap();
    project.run(&["gc"]).ok();
    assert!(names(&project).contains("warm:1.0-1"));

    // A file that is no blob, and what a killed build may have left, go.
    for stray in ["out/blobs/sha256/.tmp-1-1", "out/.tmp-1-2", "out/cache/.tmp-1-3", "out/blobs/sha256/notes"]
    {
        project.write(stray, "x");
    }
    project.run(&["gc"]).ok();
    project.assert_store_is_whole();
    assert!(!project.path("out/blobs/sha256/notes").exists());
    project.assert_verified();
}

#[test]
fn gc_touches_nothing_where_it_cannot_know() {
    let project = Project::new();
    let built = project.build();
    let manifest = project.blob(&built.digests()["hot"]);
    fs::write(&manifest, "{}").unwrap();
    let before = names_below(&project.path("out"));
    error_of(&project.json(&["gc", "--keep", "1"]).exits(1));
    assert_eq!(names_below(&project.path("out")), before);
    fs::remove_file(&manifest).unwrap();
    error_of(&project.json(&["gc", "--keep", "1"]).exits(1));
    project.build();
    project.assert_verified();
    project.run(&["gc", "--keep", "1"]).ok();
    // A damaged index is refused by whoever reads it, and never replaced.
    project.write("out/index.json", "{\"schemaVersion\":2,\"manifests\":[{]}");
    for command in ["build", "ls", "gc", "verify"] {
        let error = error_of(&project.json(&[command]).exits(1));
        assert!(text(&error["message"]).contains("index.json"), "{error}");
    }
    assert!(project.read("out/index.json").contains("[{]"));
}

#[test]
fn secrets_in_conf_are_refused_and_never_printed() {
    // Put together here, so that no scanner of this repository takes them for real ones.
    let key = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj".to_owned();
    let pem = format!("-----BEGIN {0}PRIVATE KEY-----\n{key}\n-----END {0}PRIVATE KEY-----\n", "RSA ");
    let github = format!("{}_{}", "ghp", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
    let aws = format!("{}{}", "AKIA", "Z3MNOPQRS4TUVWX5");
    for (content, secret) in [
        (pem, key),
        (format!("token: {github}\n"), github.clone()),
        (format!("a: b\nid: {aws}\n"), aws["AKIA".len()..].to_owned()),
    ] {
        let project = Project::new();
        for (name, file) in [("app", "conf/app/app.yml"), ("plain", "conf/plain/deep/er/x.conf")] {
            let old = fs::read(project.path(file)).ok();
            project.write(file, &content);
            for format in ["human", "json"] {
                for verbose in ["-q", "-v"] {
                    let run = project.run(&["build", "--format", format, verbose]).exits(2);
                    let said = format!("{}{}", run.stdout, run.stderr);
                    assert!(!said.contains(&secret), "{name}: the secret is shown: {said}");
                    assert!(said.contains(file), "{said}");
                }
            }
            assert!(!project.path("out/index.json").exists());
            match old {
                Some(old) => fs::write(project.path(file), old).unwrap(),
                None => fs::remove_file(project.path(file)).unwrap(),
            }
        }
        project.build();
    }
}

#[test]
fn an_artifact_that_changes_under_the_build_is_never_taken_for_what_it_was() {
    if !have("strace") {
        return;
    }
    // The digest is known from before, so that only its stamp tells; the layer is not, so that it is read.
    let project = Project::new();
    let expected = project.build();
    let artifact = project.path("install").join(JDK);
    let old = fs::read(&artifact).unwrap();
    for gone in ["out/blobs", "out/cache/layers", "out/cache/bundles"] {
        fs::remove_dir_all(project.path(gone)).unwrap();
    }
    fs::remove_file(project.path("out/index.json")).unwrap();
    let mut members = jdk(6);
    members[5] = project::file("jdk-11/release", 0o644, "JAVA_VERSION=12\n");
    project.artifact("new", &members);

    // Opening it takes its time, in which it changes.
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-o", "/dev/null", "-e", "trace=openat", "-P"]).arg(&artifact);
    command.args(["-e", "inject=openat:delay_enter=3000000", WINDLASS, "build"]).current_dir(&project.dir);
    clean(&mut command);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("reading") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it began");
    }
    fs::rename(project.path("install/new"), &artifact).unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    assert!(rest.contains(&format!("install/{JDK} changed while it was being read")), "{rest}");
    assert!(!project.path("out/index.json").exists());

    // Put back, it gives what it gave.
    fs::write(&artifact, old).unwrap();
    assert_eq!(project.build().digests(), expected.digests());
    project.assert_verified();
}
