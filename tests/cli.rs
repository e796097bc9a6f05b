//! What a person sees of the command line: every help text, and every error, word for word.
//!
//! Snapshots stand in tests/snapshots; `INSTA_UPDATE=always cargo test --test fast cli::` writes them again.

use std::path::Path;
use std::process::{Command, Output};

fn windlass(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("WINDLASS_BUILD")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .output()
        .expect("the binary runs")
}

/// Exit code, stdout and stderr as one text.
fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "exit {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr)
    )
}

struct Project(tempfile::TempDir);

impl Project {
    /// One role, `app`, of one artifact and one conf file.
    fn new() -> Self {
        let project = Self(tempfile::tempdir().expect("a folder"));
        project.write("windlass.toml", "schema = 1\nname = \"cli\"\n\n[versions]\napp = \"1.0\"\n");
        project.write(
            "recipes/app.toml",
            "schema = 1\nversion = \"{{ versions.app }}-{{ build }}\"\n\n[[unpack]]\nartifact = \"app-{{ versions.app }}.tar.gz\"\ninto = \"app\"\n\n[[conf]]\nfrom = \"app\"\ninto = \"conf\"\nrender = [\"app.conf\"]\n",
        );
        project.write("conf/app/app.conf", "name = {{ node.name }}\n");
        project.tar("app-1.0.tar.gz", &[("app/bin/app", "run\n"), ("app/lib", "lib\n")]);
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folder");
        std::fs::write(path, text).expect("file");
    }

    /// An archive of these members: a path, and its content, `-> target` for a symlink or `|` for a FIFO.
    ///
    /// Written here rather than by `tar` and `gzip`, whose bytes change from version to version.
    fn tar(&self, name: &str, members: &[(&str, &str)]) {
        std::fs::create_dir_all(self.path().join("install")).expect("folder");
        let file = std::fs::File::create(self.path().join("install").join(name)).expect("artifact");
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        for (path, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(1);
            header.set_size(0);
            if let Some(target) = content.strip_prefix("-> ") {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, path, target).expect("member");
            } else if *content == "|" {
                header.set_entry_type(tar::EntryType::Fifo);
                tar.append_data(&mut header, path, std::io::empty()).expect("member");
            } else {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, content.as_bytes()).expect("member");
            }
        }
        tar.into_inner().expect("the tar ends").finish().expect("the stream ends");
    }

    fn run(&self, arguments: &[&str]) -> String {
        shown(&windlass(self.path(), arguments))
    }
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\d+\.\d\d s", "[seconds] s");
    settings.add_filter(r"after \d+\.\d s", "after [seconds] s");
    settings.add_filter(r#""duration_ms":\d+"#, r#""duration_ms":0"#);
    settings.add_filter(r"(cache/\w+/)[0-9a-f]{64}(/[0-9a-f]{64})?", "$1[key]");
    settings.add_filter(r"/tmp/\.tmp\w+", "[folder]");
    settings.set_prepend_module_to_snapshot(false);
    settings
}

#[test]
fn help_of_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    settings().bind(|| {
        for command in [
            "",
            "set",
            "lock",
            "build",
            "ls",
            "inspect",
            "diff",
            "verify",
            "unpack",
            "gc",
            "check",
            "init",
            "plan",
            "promote",
            "rollback",
            "resume",
            "restart",
            "leave",
            "status",
            "history",
            "report",
            "service",
            "drift",
            "demo",
            "completions",
            "man",
        ] {
            let arguments = if command.is_empty() { vec!["--help"] } else { vec![command, "--help"] };
            let name = if command.is_empty() { "help".to_owned() } else { format!("help-{command}") };
            insta::assert_snapshot!(name, shown(&windlass(folder.path(), &arguments)));
        }
    });
}

#[test]
fn completions_and_the_manual_page() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = windlass(folder.path(), &["completions", shell]);
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
    let page = windlass(folder.path(), &["man"]);
    assert!(page.status.success() && String::from_utf8_lossy(&page.stdout).contains(".TH windlass 1"));
}

#[test]
fn a_whole_session() {
    let project = Project::new();
    settings().bind(|| {
        insta::assert_snapshot!("session-lock", project.run(&["lock"]));
        insta::assert_snapshot!("session-build", project.run(&["build"]));
        insta::assert_snapshot!("session-build-again", project.run(&["build"]));
        insta::assert_snapshot!("session-build-json", project.run(&["build", "--format", "json"]));
        insta::assert_snapshot!("session-ls", project.run(&["ls"]));
        insta::assert_snapshot!("session-inspect", project.run(&["inspect", "app", "--files"]));
        project.write("conf/app/app.conf", "name = {{ node.name }}\nzone = {{ node.zone }}\n");
        project.tar("app-1.1.tar.gz", &[("app/bin/app", "run\n"), ("app/new", "more\n")]);
        insta::assert_snapshot!("session-set", project.run(&["set", "app", "1.1"]));
        insta::assert_snapshot!("session-build-next", project.run(&["build"]));
        insta::assert_snapshot!("session-diff", project.run(&["diff", "app:1.0-1", "app"]));
        insta::assert_snapshot!(
            "session-diff-json",
            project.run(&["diff", "app:1.0-1", "app", "--format", "json"])
        );
        insta::assert_snapshot!("session-verify", project.run(&["verify"]));
        insta::assert_snapshot!("session-unpack", project.run(&["unpack", "app", "tree"]));
        insta::assert_snapshot!("session-gc", project.run(&["gc", "--keep", "1", "--dry-run"]));
        insta::assert_snapshot!("session-gc-json", project.run(&["gc", "--format", "json"]));
    });
}

/// A mistake: its name, what makes it, and the command that meets it.
type Mistake = (&'static str, fn(&Project), &'static [&'static str]);

const MISTAKES: &[Mistake] = &[
    ("no-project", |p| std::fs::remove_file(p.path().join("windlass.toml")).expect("gone"), &["build"]),
    ("no-recipes", |p| std::fs::remove_dir_all(p.path().join("recipes")).expect("gone"), &["build"]),
    ("no-store", |_| (), &["ls"]),
    ("no-command", |_| (), &[]),
    ("unknown-command", |_| (), &["biuld"]),
    ("unknown-role", |_| (), &["build", "ap"]),
    ("bad-level", |_| (), &["build", "--level", "20"]),
    ("bad-memory", |_| (), &["build", "--memory", "lots"]),
    ("bad-reference", |_| (), &["inspect", "App:1"]),
    ("unknown-product", |_| (), &["set", "ap", "2"]),
    ("gc-keep-0", |_| (), &["gc", "--keep", "0"]),
    ("unknown-update", |_| (), &["lock", "--update", "app-1.1.tar.gz"]),
    ("not-locked", |_| (), &["build", "--locked"]),
    (
        "unknown-key",
        |p| p.write("recipes/app.toml", "schema = 1\nversion = \"1\"\n[[unpack]]\nartefact = \"x.tar\"\n"),
        &["build"],
    ),
    (
        "wrong-type",
        |p| p.write("recipes/app.toml", "schema = 1\nversion = 1\n[[unpack]]\nartifact = [\"x.tar\"]\n"),
        &["build"],
    ),
    (
        "undefined-name",
        |p| p.write("recipes/app.toml", "schema = 1\nversion = \"{{ versions.ap }}\"\n"),
        &["build"],
    ),
    (
        "missing-artifact",
        |p| p.write("windlass.toml", "schema = 1\nname = \"cli\"\n[versions]\napp = \"1.2\"\n"),
        &["build"],
    ),
    ("missing-conf", |p| std::fs::remove_dir_all(p.path().join("conf")).expect("gone"), &["build"]),
    (
        "render-matches-nothing",
        |p| {
            p.write(
                "recipes/app.toml",
                "schema = 1\nversion = \"1\"\n[[conf]]\nfrom = \"app\"\nrender = [\"ap.conf\"]\n",
            );
        },
        &["build"],
    ),
    ("bad-template", |p| p.write("conf/app/app.conf", "ok\nname = {{ nod.name }}\n"), &["build"]),
    ("template-syntax", |p| p.write("conf/app/app.conf", "ok\nname = {{ node.name\n"), &["build"]),
    (
        "secret-in-conf",
        |p| {
            p.write(
                "conf/app/key.pem",
                "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA0\n-----END RSA PRIVATE KEY-----\n",
            );
        },
        &["build"],
    ),
    (
        "persist-hides-files",
        |p| {
            let recipe = std::fs::read_to_string(p.path().join("recipes/app.toml")).expect("recipe");
            p.write("recipes/app.toml", recipe + "[[persist]]\nname = \"bin\"\nat = \"app/bin\"\n");
        },
        &["build"],
    ),
    (
        "layers-conflict",
        |p| {
            let recipe = std::fs::read_to_string(p.path().join("recipes/app.toml")).expect("recipe");
            p.write("recipes/app.toml", recipe + "[[conf]]\nfrom = \"app\"\ninto = \"app/lib\"\n");
        },
        &["build"],
    ),
    ("not-an-archive", |p| p.write("install/app-1.0.tar.gz", "<!DOCTYPE html><html>404</html>"), &["build"]),
    (
        "cut-short",
        |p| {
            let bytes = std::fs::read(p.path().join("install/app-1.0.tar.gz")).expect("artifact");
            p.write("install/app-1.0.tar.gz", &bytes[..bytes.len() / 2]);
        },
        &["build"],
    ),
    ("unpacks-to-too-much", |_| (), &["build", "--max-unpacked", "4 B"]),
    (
        "symlink-leaves",
        |p| p.tar("app-1.0.tar.gz", &[("app/link", "-> ../../../etc/passwd"), ("app/x", "x\n")]),
        &["build"],
    ),
    ("fifo", |p| p.tar("app-1.0.tar.gz", &[("app/pipe", "|"), ("app/x", "x\n")]), &["build"]),
    ("whiteout", |p| p.tar("app-1.0.tar.gz", &[("app/.wh.x", "x\n"), ("app/x", "x\n")]), &["build"]),
    (
        "lock-in-conflict",
        |p| p.write("windlass.lock", "schema = 1\n<<<<<<< ours\n[[artifact]]\n"),
        &["build"],
    ),
    (
        "changed-artifact",
        |p| {
            assert!(windlass(p.path(), &["lock"]).status.success());
            p.tar("app-1.0.tar.gz", &[("app/x", "other\n")]);
        },
        &["build"],
    ),
    (
        "taken-version",
        |p| {
            let fixed = "schema = 1\nversion = \"1\"\n[[conf]]\nfrom = \"app\"\n";
            p.write("recipes/app.toml", fixed);
            assert!(windlass(p.path(), &["build"]).status.success());
            p.write("conf/app/app.conf", "name = other\n");
        },
        &["build"],
    ),
    (
        "no-such-bundle",
        |p| assert!(windlass(p.path(), &["build"]).status.success()),
        &["inspect", "app:1.0-2"],
    ),
    (
        "damaged-index",
        |p| {
            assert!(windlass(p.path(), &["build"]).status.success());
            p.write("out/index.json", "{");
        },
        &["ls"],
    ),
    (
        "unpack-into-something",
        |p| assert!(windlass(p.path(), &["build"]).status.success()),
        &["unpack", "app", "conf"],
    ),
];

#[test]
fn every_mistake_is_explained() {
    settings().bind(|| {
        for (name, make, command) in MISTAKES {
            let project = Project::new();
            make(&project);
            let before = listing(project.path());
            insta::assert_snapshot!(format!("error-{name}"), project.run(command));
            // Nothing is half done: what a refused command leaves is what was there, and at most an empty store.
            let after = listing(project.path());
            let new: Vec<_> = after.iter().filter(|path| !before.contains(path)).collect();
            let empty_store = ["out/oci-layout"];
            assert!(new.iter().all(|path| empty_store.contains(&path.as_str())), "{name}: {new:?}");
            assert!(before.iter().all(|path| after.contains(path)), "{name}");
        }
    });
}

#[test]
fn mistakes_as_json() {
    settings().bind(|| {
        for name in ["unknown-key", "cut-short", "unknown-role", "no-store", "bad-level"] {
            let (_, make, command) = MISTAKES.iter().find(|mistake| mistake.0 == name).expect("a mistake");
            let project = Project::new();
            make(&project);
            let output = windlass(project.path(), &[command, &["--format", "json"][..]].concat());
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
            insta::assert_snapshot!(
                format!("json-{name}"),
                serde_json::to_string_pretty(&json["error"]).expect("JSON")
            );
        }
    });
}

/// Every file below a folder, relative to it.
fn listing(dir: &Path) -> Vec<String> {
    walkdir::WalkDir::new(dir)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().strip_prefix(dir).expect("below").to_str().expect("UTF-8").to_owned())
        .collect()
}
