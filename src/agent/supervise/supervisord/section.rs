//! The program section: what supervisord reads.

use std::fmt::Write as _;

use crate::agent::layout::RoleDir;
use crate::agent::names::ReleaseName;
use crate::agent::supervise::group::signal_name;
use crate::agent::supervise::{ATTEMPTS, QUICK, SuperviseError, Unit};

/// How much later than windlass supervisord sends KILL.
const LATER_SECONDS: u64 = 5;

/// The section of a role's program; it names no secret.
pub fn section_text(
    name: &str,
    dir: &RoleDir,
    release: &ReleaseName,
    unit: &Unit,
) -> Result<String, SuperviseError> {
    let words = [dir.runner().as_str(), "node", "exec", "--spec", dir.run_spec().as_str()].map(word);
    let command = words.join(" ");
    // windlass sends KILL itself, in time, and can then say that it did; this is for who stops it by hand.
    let seconds = unit.timeout_ms.div_ceil(1000).max(1) + LATER_SECONDS;
    let mut text = String::new();
    // A String takes whatever is written to it.
    let _ = write!(
        text,
        "; Written by windlass for release {release} of {role}; replaced when the service is started, removed\n\
         ; when it is stopped. Its environment, user, limits and log are in the file that --spec names.\n\
         [program:{name}]\n\
         command={command}\n\
         process_name=%(program_name)s\n\
         numprocs=1\n\
         directory=/\n\
         umask=022\n\
         autostart=true\n\
         autorestart=true\n\
         startsecs={quick}\n\
         startretries={retries}\n\
         stopsignal={signal}\n\
         stopwaitsecs={seconds}\n\
         stopasgroup=true\n\
         killasgroup=true\n\
         redirect_stderr=true\n\
         stdout_logfile=NONE\n",
        role = dir.role(),
        quick = QUICK.as_secs(),
        retries = ATTEMPTS - 1,
        signal = signal_name(&unit.signal),
    );
    if command.contains(char::is_control) {
        return Err(cannot(&command));
    }
    Ok(text)
}

/// One word of a command: supervisord's reader takes ` ;` for a comment and `%` for a name, then its splitter
/// takes blanks, quotes and backslashes. A backslash before each of these keeps every one of them.
fn word(text: &str) -> String {
    let mut word = String::new();
    for c in text.chars() {
        match c {
            '%' => word.push_str("%%"),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '.' | '_' | '-' | '+' | ':' | '@' | ',' | '=' => {
                word.push(c);
            }
            c if !c.is_ascii() => word.push(c),
            c => word.extend(['\\', c]),
        }
    }
    word
}

fn cannot(text: &str) -> SuperviseError {
    SuperviseError::supervisor(
        format!("supervisord's configuration cannot hold the path `{}`", text.escape_debug()),
        "choose a root without control characters",
    )
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;
    use crate::agent::layout::Root;

    /// Its defaults kill Elasticsearch and Kafka in the middle of a flush, and leave children behind.
    #[test]
    fn a_section_gives_the_service_its_time_and_takes_its_children() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(temporary.path().canonicalize().unwrap()).unwrap();
        let role = Root::create(&dir.join("root"), 0o700).unwrap().role(&"kafka".parse().unwrap());
        let unit = serde_json::json!({
            "format": 1, "kind": "kafka", "user": null, "group": null, "supervisor": { "kind": "supervisord" },
            "capabilities": [], "command": ["/bin/true"], "env": {}, "signal": "TERM", "timeout_ms": 180_000,
            "cwd": "/", "log": "/dev/null", "limits": { "nofile": 65535 }, "ready": null,
        });
        let unit: Unit = serde_json::from_value(unit).unwrap();
        let text = section_text("windlass-kafka", &role, &"3-1.0".parse().unwrap(), &unit).unwrap();
        let has = |line: &str| text.lines().any(|one| one == line);
        for line in [
            "[program:windlass-kafka]",
            "autorestart=true",
            "stopsignal=TERM",
            "stopwaitsecs=185",
            "stopasgroup=true",
            "killasgroup=true",
        ] {
            assert!(has(line), "{line}: {text}");
        }
    }

    #[test]
    fn words_keep_what_the_reader_would_take() {
        assert_eq!(word("/opt/windlass/x"), "/opt/windlass/x");
        assert_eq!(word("/a b/50%/'q' ;\"#$"), r#"/a\ b/50%%/\'q\'\ \;\"\#\$"#);
    }
}
