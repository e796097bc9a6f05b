//! The same inputs give the same bundles: digests, blobs and index, byte for byte.
//!
//! Whatever the threads, the memory, the folder, the clock, umask, locale, time zone, file times, the user,
//! what the store held before, and the order in which a folder lists its files.

use crate::support::project;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use project::{Project, Run, WINDLASS, clean, copy_tree, file, files_below, have, noise, skip};

type Store = BTreeMap<String, Vec<u8>>;

/// A project that keeps several threads busy: many layers, large files, frames of many small ones.
fn inputs() -> Project {
    let project = Project::new();
    let members: Vec<_> = (0..3000)
        .map(|n: u64| {
            file(
                &format!("d{}/f{n}", n * 7 % 100),
                if n.is_multiple_of(5) { 0o755 } else { 0o644 },
                noise(n, 3000),
            )
        })
        .collect();
    project.artifact("small-files.tgz", &members);
    let mut large = vec![file("a", 0o644, noise(3, 9 << 20))];
    large.extend((0..4).map(|n| file(&format!("z{n}"), 0o644, noise(n, 1 << 20))));
    project.zip("large.zip", &large);
    project.write(
        "recipes/busy.toml",
        "schema = 1\nversion = \"3-{{ build }}\"\n\n[[unpack]]\nartifact = \"small-files.tgz\"\ninto = \"small\"\n\n\
         [[unpack]]\nartifact = \"large.zip\"\ninto = \"large\"\n",
    );
    project.run(&["lock"]).ok();
    fs::remove_dir_all(project.path("out")).unwrap();
    project
}

/// What a plain build makes; computed once.
fn expected() -> &'static Store {
    static EXPECTED: OnceLock<Store> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let project = inputs();
        project.build();
        project.assert_verified();
        project.store_files()
    })
}

#[track_caller]
fn assert_same(found: &Store, what: &str) {
    let expected = expected();
    let names = |store: &Store| store.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{what}: {name} differs");
    }
}

/// Builds anew in a folder with this command's changes.
fn build_with(project: &Project, what: &str, change: impl FnOnce(&mut Command)) {
    if project.path("out").exists() {
        fs::remove_dir_all(project.path("out")).unwrap();
    }
    let mut command = project.command(&["build", "--locked"]);
    change(&mut command);
    Run::of(&mut command).ok();
    assert_same(&project.store_files(), what);
}

#[test]
fn threads_and_memory_do_not_show() {
    let project = inputs();
    for jobs in ["1", "2", "7"] {
        for memory in ["64MiB", "128MiB", "512MiB"] {
            build_with(&project, &format!("{jobs} jobs, {memory}"), |command| {
                command.args(["--jobs", jobs, "--memory", memory]);
            });
        }
    }
}

#[test]
fn neither_do_locale_time_zone_umask_and_terminal() {
    let project = inputs();
    for (key, value) in [
        ("LC_ALL", "tr_TR.UTF-8"),
        ("LC_ALL", "C"),
        ("TZ", "Pacific/Kiritimati"),
        ("TZ", "America/St_Johns"),
        ("SOURCE_DATE_EPOCH", "1234567890"),
        ("COLUMNS", "20"),
    ] {
        build_with(&project, &format!("{key}={value}"), |command| {
            command.env(key, value);
        });
    }
    for umask in ["000", "077", "027"] {
        fs::remove_dir_all(project.path("out")).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("umask {umask}; exec \"$0\" build"), WINDLASS])
            .current_dir(&project.dir);
        clean(&mut command);
        Run::of(&mut command).ok();
        assert_same(&project.store_files(), &format!("umask {umask}"));
    }
}

#[test]
fn neither_does_the_folder_nor_how_it_is_named() {
    let project = inputs();
    let other = tempfile::Builder::new().prefix("a long name, with ünusual letters ").tempdir().unwrap();
    let other = other.path().join("deeper").join("still");
    copy_tree(&project.dir, &other);
    let below = other.join("conf/app");
    for (here, dir) in
        [(other.as_path(), None), (below.as_path(), None), (Path::new("/"), Some(other.to_str().unwrap()))]
    {
        let mut command = Command::new(WINDLASS);
        command.arg("build").current_dir(here);
        if let Some(dir) = dir {
            command.args(["-C", dir]);
        }
        clean(&mut command);
        Run::of(&mut command).ok();
        let store = files_below(&other.join("out"));
        let store = store.into_iter().filter(|(name, _)| !name.starts_with("cache/")).collect();
        assert_same(&store, "another folder");
        fs::remove_dir_all(other.join("out")).unwrap();
    }
}

#[test]
fn neither_do_file_times_and_modes_beyond_executable() {
    let project = inputs();
    let names = project::names_below(&project.dir);
    for seconds in [1, 1_000_000_000, 4_000_000_000] {
        for name in &names {
            let path = project.path(name);
            if path.is_file() {
                let file = fs::File::options().append(true).open(&path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
            }
        }
        build_with(&project, "other times", |_| ());
    }
    project.mode("conf/app/app.yml", 0o600);
    project.mode("conf/app/start", 0o700);
    project.mode("conf/plain", 0o700);
    build_with(&project, "other modes", |_| ());
    project.mode("conf/app/app.yml", 0o666);
    project.mode("conf/app/start", 0o777);
    build_with(&project, "other modes", |_| ());
}

#[test]
fn neither_does_the_order_in_which_files_were_made() {
    let project = inputs();
    let names: Vec<String> = project::names_below(&project.dir).into_iter().collect();
    let other = Project::empty();
    // Folders list their files by hash or by age; backwards is another order by either.
    for name in names.iter().rev().filter(|name| project.path(name).is_file()) {
        let target = other.path(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(project.path(name), target).unwrap();
    }
    build_with(&other, "made in another order", |_| ());
}

#[test]
fn a_second_run_after_out_is_gone_is_the_same() {
    let project = inputs();
    for run in 0..3 {
        build_with(&project, &format!("run {run}"), |_| ());
    }
    // Nor does it matter what was in the store, or which roles were built first.
    let other = inputs();
    other.json(&["build", "warm"]).ok();
    other.json(&["build", "busy", "plain"]).ok();
    let all = other.build();
    let mut store = other.store_files();
    store.remove("index.json");
    let mut expected = expected().clone();
    expected.remove("index.json");
    assert!(store == expected);
    assert_eq!(all.json()["artifacts_read"], 0, "hot is made of what warm left");
}

#[test]
fn a_clone_of_the_project_builds_the_same() {
    if !have("git") {
        return;
    }
    let project = inputs();
    let git = |dir: &Path, arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.autocrlf=false"]);
        command.args(arguments).current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null");
        Run::of(&mut command).ok();
    };
    git(&project.dir, &["init", "-q"]);
    git(&project.dir, &["add", "-A"]);
    git(&project.dir, &["commit", "-q", "-m", "all"]);
    let clone = Project::empty();
    for name in ["recipes", "install", "conf"] {
        fs::remove_dir(clone.path(name)).unwrap();
    }
    git(&clone.dir, &["clone", "-q", project.dir.to_str().unwrap(), "."]);
    build_with(&clone, "a clone", |_| ());
}

#[test]
fn another_user_builds_the_same() {
    if !have("setpriv") || !have("chown") {
        return;
    }
    let project = inputs();
    if fs::metadata(&project.dir).unwrap().uid() != 0 {
        return skip("only root can become another user");
    }
    // The program may stand where only root can read.
    let program = project.path("windlass");
    fs::copy(WINDLASS, &program).unwrap();
    Run::of(Command::new("chown").args(["-R", "65534:65534"]).arg(&project.dir)).ok();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).arg("build");
    clean(command.current_dir(&project.dir).env("HOME", "/nonexistent"));
    Run::of(&mut command).ok();
    assert_eq!(fs::metadata(project.path("out/index.json")).unwrap().uid(), 65534);
    assert_same(&project.store_files(), "another user");
}
