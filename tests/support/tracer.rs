//! Commands that are killed, or told of an error, at their n-th system call: see `tracer.py`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

/// What changes anything on a disk, or anything about a process.
pub(crate) const CHANGES: &[&str] = &[
    "creat",
    "write",
    "pwrite64",
    "writev",
    "copy_file_range",
    "sendfile",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utimensat",
    "ftruncate",
    "fallocate",
    "flock",
    "kill",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "execve",
];

/// What is done at the n-th call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit<'a> {
    /// Counted from 1.
    pub(crate) at: usize,
    /// `kill`, or an errno, perhaps with `+`.
    pub(crate) what: &'a str,
    /// Which calls count.
    pub(crate) counted: &'a [&'a str],
    /// Those of the processes that it starts as well.
    pub(crate) follow: bool,
}

/// How a command ended.
#[derive(Debug, Deserialize)]
pub(crate) struct Ended {
    /// Calls that counted.
    pub(crate) count: usize,
    /// Those that were hit.
    pub(crate) hits: usize,
    /// The last of those.
    pub(crate) what: Option<String>,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    #[serde(skip)]
    pub(crate) stdout: String,
    #[serde(skip)]
    pub(crate) stderr: String,
}

/// A process that traces others.
pub(crate) struct Tracer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    dir: PathBuf,
}

impl Tracer {
    /// Starts a tracer whose commands see the clock of `dir`. Reports a skip and returns `None` where tracing is impossible.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let python = Command::new("python3").arg("--version").output();
        if !cfg!(target_arch = "x86_64") || python.is_err() {
            crate::support::tools::skip("a kill at every system call: it needs an x86-64 and python3");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tracer.py");
        let mut command = Command::new("python3");
        command.args(["-I", "-S"]).arg(script).env_remove("WINDLASS_ROOT");
        // One thread fewer to order calls differently each time.
        command.env("RAYON_NUM_THREADS", "1").env("LAB_PW", crate::support::bench::SECRET);
        crate::support::clock::Clock::of(dir).show(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let tracer = Self { child, stdin, stdout, dir: dir.to_owned() };
        Some(tracer)
    }

    /// Runs a command, its stdin a file.
    pub(crate) fn run(&mut self, command: &[String], stdin: Option<&Path>, hit: Hit<'_>) -> Ended {
        let (out, err) = (self.dir.join("traced.out"), self.dir.join("traced.err"));
        let job = json!({
            "command": command, "stdin": stdin.unwrap_or(Path::new("/dev/null")), "stdout": out, "stderr": err,
            "at": hit.at, "do": hit.what, "counted": hit.counted, "follow": hit.follow,
        });
        writeln!(self.stdin.as_mut().unwrap(), "{job}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let mut ended: Ended = serde_json::from_value(answer).unwrap();
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        (ended.stdout, ended.stderr) = (read(&out), read(&err));
        ended
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}
