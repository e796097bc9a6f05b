//! The programs that tests start, and what is said where one is missing.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Whether a program is there; the test is reported as skipped if not.
pub(crate) fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        skip(&format!("`{program}` is not installed"));
    }
    found
}

/// Reports that this test, or the named part of it, cannot run here.
///
/// The line goes to standard error, past the capture of the test's output, and to the file that `tests/run` reads.
pub(crate) fn skip(why: &str) {
    let name = std::env::var("NEXTEST_TEST_NAME").ok();
    let name = name.or_else(|| std::thread::current().name().map(str::to_owned)).unwrap_or_default();
    let line = format!("SKIPPED in {name}: {}\n", why.replace('\n', " "));
    let files = [Some("/dev/stderr".into()), std::env::var_os("WINDLASS_SKIPPED")];
    for file in files.into_iter().flatten() {
        let open = OpenOptions::new().append(true).create(true).open(Path::new(&file));
        if let Ok(mut file) = open {
            // A message that cannot be written is not worth failing for.
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// A bash that runs `script`, stops at the first command that fails, also inside a pipeline, and names its line.
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", &strict(script)]).env("SCRIPT", script);
    command
}

/// Runs `script` in a folder; it must succeed.
#[track_caller]
pub(crate) fn run_shell(folder: &Path, script: &str) {
    let out = shell(script).current_dir(folder).output().unwrap();
    assert!(out.status.success(), "{}\n{script}", String::from_utf8_lossy(&out.stderr));
}

/// `script` for bash, told to stop at a failure and to print the exit codes of the pipeline that failed.
fn strict(script: &str) -> String {
    let trap = r#"trap 'codes=("${PIPESTATUS[@]}"); line=$((LINENO - 1))
echo "exit ${codes[*]} in line $line: $(sed -n "${line}p" <<<"$SCRIPT")" >&2' ERR"#;
    // One line, so that the script's first line is the second.
    format!("set -Eeuo pipefail; {}\n{script}", trap.replace('\n', "; "))
}

#[test]
fn a_producer_that_fails_is_named() {
    let out = shell("true\n(exit 3) | cat").output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "exit 3 0 in line 2: (exit 3) | cat\n");
}
