//! What holds under every supervisor, tried with a service that does what a file tells it to.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass::agent::supervise::{ATTEMPTS, QUICK};

use crate::support::rollout::{Lab, Mode, SECRET};

/// Answers with everything that it was started with; its own text is a hostile argument already.
const PROGRAM: &str = r#"
import http.server, json, os, resource, signal, sys, time
behave = os.environ["BEHAVE"]
words = open(behave).read().split() if os.path.exists(behave) else []
with open(behave + ".starts", "a") as f: f.write("x\n")
print("started, 100% \"so\" to $say", flush=True)
if "flap" in words: sys.exit(0)
if "stubborn" in words: signal.signal(signal.SIGTERM, signal.SIG_IGN)
def reload(*_): open(behave + ".reloaded", "a").write("x\n")
signal.signal(signal.SIGHUP, reload)
if "child" in words and os.fork() == 0:
    open(behave + ".child", "w").write(str(os.getpid()))
    time.sleep(600)
raw = lambda name: open("/proc/self/" + name, "rb").read().decode("utf8", "surrogateescape")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        limit = lambda name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))
        body = json.dumps({"version": open("web/VERSION").read(), "pid": os.getpid(), "args": sys.argv[1:],
            "environ": raw("environ"), "cwd": os.getcwd(), "uid": os.getuid(), "gid": os.getgid(),
            "limits": {name: limit(name) for name in ["NOFILE", "NPROC", "MEMLOCK", "CORE", "AS"]},
            "status": raw("status")}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.HTTPServer.allow_reuse_address = True
address, port = os.environ["LISTEN"].rsplit(":", 1)
http.server.HTTPServer((address, int(port)), Handler).serve_forever()
"#;

/// What shells, systemd, supervisord and ini readers stumble over.
pub(crate) const HOSTILE: [&str; 22] = [
    "",
    " ",
    " leading and trailing ",
    "%n %h 100% %% %(ENV_HOME)s %(here)s",
    "$HOME ${HOME} $$ $",
    "`id` $(id)",
    "'single' \"double\" mixed'\"",
    "back\\slash \\n \\x41 \\",
    "\\\"",
    "line one\nline two\n\nline four",
    "tab\there\rand return",
    "; semicolon ;comment",
    ";",
    "# hash #comment",
    "a=b,c=\"d\",e",
    "[section]\nkey=value",
    "-- --option @at +plus !bang :colon",
    "~ * ? [a-z] {x,y}",
    "ünïcödé — ≠ 漢字 🙂",
    "\u{1}\u{7f}\u{1b}[31m",
    "trailing backslash and newline\\\n",
    "export X=1; rm -rf ./nothing",
];

/// Those, and some that nobody thought of.
fn hostile() -> Vec<String> {
    const ALPHABET: [&str; 24] = [
        "%", "$", "\"", "'", "\\", "\n", " ", ";", "#", "=", "a", "n", "x41", "(", ")", "s", "`", "*", "[",
        "]", "\t", "~", "é", "$$",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let random = (0..60).map(|_| (0..next() % 12).map(|_| ALPHABET[next() % ALPHABET.len()]).collect());
    // Templates begin with a brace, and there is none.
    let random: Vec<String> = random.collect();
    HOSTILE.iter().map(|text| (*text).to_owned()).chain(random).collect()
}

fn recipe(lab: &Lab, user: bool) {
    let quote = |text: &str| serde_json::to_string(text).unwrap().replace('\u{7f}', "\\u007f");
    let hostile = hostile();
    let texts = hostile.iter().map(String::as_str);
    let words: Vec<String> =
        ["/usr/bin/python3", "-c", PROGRAM].into_iter().chain(texts).map(quote).collect();
    let mut env: Vec<String> =
        hostile.iter().enumerate().map(|(n, text)| format!("HOSTILE_{n} = {}", quote(text))).collect();
    env.push("LISTEN = \"{{ node.address }}:{{ vars.web_port }}\"".to_owned());
    env.push("PW = \"{{ secret('pw') }}\"".to_owned());
    env.push("BEHAVE = \"{{ shared }}/logs/behave\"".to_owned());
    let path = lab.dir.join("recipes/web.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, _) = text.split_once("[service]").unwrap();
    let who = if user { "user = \"nobody\"\ncapabilities = [\"CAP_NET_BIND_SERVICE\"]" } else { "" };
    let service = format!(
        "[service]\nkind = \"process\"\n{who}\nstart = [{}]\nreload = {{ signal = \"HUP\" }}\n\
         stop = {{ signal = \"TERM\", timeout = \"2s\" }}\n\
         limits = {{ nofile = 700, core = 0, memlock = 4194304, nproc = 5000 }}\n\
         [service.env]\n{}\n[service.ready]\ntcp = \"{{{{ vars.web_port }}}}\"\nwithin = \"20s\"\n",
        words.join(", "),
        env.join("\n"),
    );
    std::fs::write(&path, format!("{head}{service}")).unwrap();
    // The folders above the roots are the test's own and 0700.
    std::fs::set_permissions(&lab.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn logs(lab: &Lab) -> PathBuf {
    lab.dir.join("n1/roles/web/shared/logs")
}

fn behave(lab: &Lab, words: &str) {
    std::fs::write(logs(lab).join("behave"), words).unwrap();
}

fn starts(lab: &Lab) -> usize {
    std::fs::read_to_string(logs(lab).join("behave.starts")).unwrap_or_default().lines().count()
}

fn process(lab: &Lab) -> Value {
    lab.json(0, &["service", "status"])["services"][0].clone()
}

fn answer(lab: &Lab) -> Value {
    let mut found = None;
    lab.until("it answers", || {
        // One asked at a time.
        std::thread::sleep(Duration::from_millis(10));
        lab.ask("web", "n1").is_some()
    });
    while found.is_none() {
        found = lab.ask("web", "n1");
    }
    found.unwrap()
}

/// The number that the service's process has where the commands run.
fn kill(lab: &Lab, pid: &Value) {
    let mut command = match lab.through.split_first() {
        Some((program, first)) => {
            let mut command = std::process::Command::new(program);
            command.args(first).arg("kill");
            command
        }
        None => std::process::Command::new("kill"),
    };
    assert!(command.args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// Promotes a first version of the service.
pub(crate) fn set_up(lab: &Lab) {
    recipe(lab, rustix::process::geteuid().is_root());
    lab.build("1", Mode::Good);
    lab.expect(0, &["promote"]);
}

/// Words, environment, limits and rights arrive as they were written; no secret is readable.
pub(crate) fn arrives_as_written(lab: &Lab, exact: bool, outside: &[PathBuf]) {
    let root = rustix::process::geteuid().is_root();
    let answer = answer(lab);
    let hostile = hostile();
    assert_eq!(answer["args"], json!(hostile));
    let environ: BTreeMap<&str, &str> = answer["environ"]
        .as_str()
        .unwrap()
        .split_terminator('\0')
        .map(|one| one.split_once('=').unwrap())
        .collect();
    for (n, text) in hostile.iter().enumerate() {
        assert_eq!(environ.get(&*format!("HOSTILE_{n}")), Some(&text.as_str()), "{n}");
    }
    assert_eq!(environ["PW"], SECRET);
    assert_eq!(
        (environ["USER"], environ["HOME"]),
        if root { ("nobody", "/nonexistent") } else { (environ["USER"], environ["HOME"]) }
    );
    if exact {
        assert_eq!(environ.len(), hostile.len() + 3 + 4, "{environ:?}");
    }
    assert!(!environ.contains_key("LANG"));
    let limits = &answer["limits"];
    assert_eq!((&limits["NOFILE"], &limits["CORE"]), (&json!([700, 700]), &json!([0, 0])));
    assert_eq!(
        (&limits["MEMLOCK"], &limits["NPROC"]),
        (&json!([4_194_304, 4_194_304]), &json!([5000, 5000]))
    );
    assert!(answer["cwd"].as_str().unwrap().ends_with("/n1/roles/web/releases/1-1"), "{}", answer["cwd"]);
    let status = answer["status"].as_str().unwrap();
    if root {
        assert_eq!((&answer["uid"], &answer["gid"]), (&json!(65534), &json!(65534)));
        // CAP_NET_BIND_SERVICE is the tenth.
        assert!(status.contains("CapAmb:\t0000000000000400"), "{status}");
        assert!(status.contains("CapEff:\t0000000000000400"), "{status}");
    }
    let log = std::fs::read_to_string(logs(lab).join("web.log")).unwrap();
    assert!(log.contains("started, 100% \"so\" to $say"), "{log}");
    no_secret_is_readable(&lab.dir.join("n1"));
    for dir in outside {
        no_secret_is_readable(dir);
    }
}

fn no_secret_is_readable(dir: &Path) {
    let mut seen = 0;
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if !meta.is_file() || meta.len() > 1 << 20 {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        if bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()) {
            seen += 1;
            assert_eq!(meta.permissions().mode() & 0o077, 0, "{} is readable", entry.path().display());
        }
    }
    println!("{seen} files with the secret in {}", dir.display());
}

/// Starting and stopping twice is once; reloading keeps the process; who does not end is killed.
pub(crate) fn starts_and_stops(lab: &Lab) {
    let before = process(lab);
    assert_eq!((&before["process"], &before["release"]), (&json!("running"), &json!("1-1")), "{before}");
    let again = lab.json(0, &["service", "start"]);
    assert_eq!(again["services"][0]["pid"], before["pid"]);
    answer(lab);
    lab.json(0, &["service", "reload"]);
    lab.until("it reloaded", || logs(lab).join("behave.reloaded").exists());
    assert_eq!(process(lab)["pid"], before["pid"]);
    let stopped = lab.json(0, &["service", "stop"]);
    let stopped = &stopped["services"][0];
    assert_eq!((&stopped["process"], &stopped["killed"]), (&json!("stopped"), &json!(false)));
    assert!(lab.ask("web", "n1").is_none());
    let stopped = lab.json(0, &["service", "stop"]);
    assert_eq!(stopped["services"][0]["killed"], false);
    lab.expect(1, &["service", "reload"]);

    behave(lab, "stubborn child");
    lab.json(0, &["service", "start"]);
    answer(lab);
    let child = logs(lab).join("behave.child");
    lab.until("it has a child", || child.exists());
    let begun = Instant::now();
    let stopped = lab.json(0, &["service", "stop"]);
    let took = begun.elapsed();
    assert_eq!(stopped["services"][0]["killed"], true, "{stopped}");
    assert!(took >= Duration::from_secs(2), "it was given less than its time: {took:?}");
    assert!(lab.ask("web", "n1").is_none());
    assert_eq!(process(lab)["process"], "stopped");
    behave(lab, "");
    lab.json(0, &["service", "restart"]);
    answer(lab);
    assert_eq!(process(lab)["process"], "running");
}

/// A service that ends is started again; one that does so again and again has failed, and is left alone in the end:
/// `given_up` asks the supervisor.
pub(crate) fn flaps(lab: &Lab, given_up: impl Fn() -> bool) {
    let before = answer(lab);
    let ended = Instant::now();
    kill(lab, &process(lab)["pid"]);
    lab.until("it is up again", || lab.ask("web", "n1").is_some_and(|now| now["pid"] != before["pid"]));
    let now = process(lab);
    assert_eq!((&now["process"], &now["release"]), (&json!("failed"), &json!("1-1")), "{now}");
    lab.until("it counts as running", || process(lab)["process"] == "running");
    assert!(ended.elapsed() >= QUICK, "{:?}", ended.elapsed());

    behave(lab, "flap");
    let begun = starts(lab);
    kill(lab, &process(lab)["pid"]);
    lab.until("it is seen to have ended", || process(lab)["process"] != "running");
    lab.until("it is left alone", || {
        assert_eq!(process(lab)["process"], "failed");
        given_up()
    });
    assert_eq!(process(lab)["process"], "failed");
    let count = starts(lab);
    // systemd counts the starts of a minute, those before included.
    let tried = u32::try_from(count - begun).unwrap();
    assert!((1..=ATTEMPTS).contains(&tried), "{tried}");
    assert_eq!(process(lab)["release"], "1-1");
    assert_eq!(lab.json(0, &["status"])["nodes"][0]["roles"][0]["process"], "failed");
    // Asked to, it starts all the same.
    behave(lab, "");
    lab.json(0, &["service", "start"]);
    answer(lab);
    assert_eq!(process(lab)["process"], "running");
}

/// The node's guard goes back by itself, under the supervisor.
pub(crate) fn guard_goes_back(lab: &Lab, root: &str) {
    lab.build("2", Mode::Good);
    lab.expect(0, &["push"]);
    let node = |args: &[&str]| {
        let out = lab.windlass().arg("node").args(args).args(["--root", root]).output().unwrap();
        assert!(out.status.success(), "{args:?} {}", crate::support::rollout::text(&out));
        crate::support::rollout::text(&out)
    };
    node(&["service", "stop", "web"]);
    node(&["activate", "web", "--to", "2-2", "--confirm-within", "2s"]);
    node(&["service", "start", "web"]);
    assert_eq!(answer(lab)["version"], "2");
    lab.until("the guard went back", || lab.answers() == ["1"]);
    let status = node(&["status"]);
    assert!(status.contains("1-1"), "{status}");
    lab.until("it is at rest", || process(lab)["release"] == "1-1");
    assert_eq!(process(lab)["process"], "running");
}

/// Another supervisor is another way to run: a release of its own, that can be gone back from.
pub(crate) fn changes_hands(lab: &Lab, to: impl Fn(), outside: impl Fn() -> bool, there: bool) {
    assert_eq!(outside(), !there);
    let before = answer(lab)["version"].clone();
    to();
    lab.expect(0, &["promote"]);
    answer(lab);
    assert_eq!(outside(), there);
    let now = process(lab);
    assert_eq!((&now["process"], &now["release"]), (&json!("running"), &json!("2-1")), "{now}");
    lab.expect(0, &["rollback"]);
    assert_eq!(answer(lab)["version"], before);
    assert_eq!(process(lab)["release"], "1-1");
    assert_eq!(outside(), !there);
}
