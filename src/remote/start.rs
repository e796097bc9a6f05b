//! Starting the agent on a node: checked, uploaded where it is not there or not what it should be.
//!
//! One round trip where all is well: a script for `sh` compares the file's sha256 with the one that is known
//! here, says so and becomes the agent, whose first answer comes right after. It needs nothing but a POSIX
//! shell; on a node without any program that hashes, the file is replaced on each connection instead.
//!
//! # Invariants
//!
//! * The script's text has no newline, backslash or `!`: csh and fish read these even inside quotes.
//! * What the script says starts with [`MARK`]; other lines are of the shell's start-up files.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::agent_binary::{AgentBinary, Contents};
use super::error::{RemoteError, StartFailure};
use super::lines::{Ended, Lines};
use super::remote_node::in_time;
use crate::agent::{Call, Claim, Have, Request};
use crate::model::{Digest, NodeName};
use crate::transport::{Connection, ExitStatus, Reason};

const MARK: &str = "windlass: ";

/// How long a node may take to hash the agent's program and to start it.
const ATTEMPT: Duration = Duration::from_mins(1);

/// Agents of other versions that stay on a node.
const KEPT: usize = 3;

/// Fails unless only its user, or root, can write to a folder.
const TRUST: &str = "t() { set -- $(ls -ldn -- \"$1/\" 2>/dev/null); \
    case $1 in ?????w*|????????w*) return 1;; esac; test \"$3\" = 0 || test \"$3\" = \"$U\"; }; U=$(id -u); ";

/// Names what stands on the way to `$R` and lets others exchange it: a link of another user's, or a folder in which
/// everybody may rename what is not theirs.
const WAY: &str = "w() { set --; P=$R; while test -n \"$P\"; do set -- \"$@\" \"$P\" \"$P/\"; P=${P%/*}; done; \
    ls -ldn -- \"$@\" 2>/dev/null | while read -r Q N O X; do X=${X%% -> *}; case $Q in \
    l*) case $O in 0|\"$U\") ;; *) echo \"/${X#*/}\"; break;; esac;; \
    ????????w[-x]*) echo \"/${X#*/}\"; break;; esac; done; }; ";

/// The sha256 of `$A`, or `none` where nothing can hash. OpenSSL comes first: it uses the processor's instructions for
/// it, where coreutils' program mostly does not and takes four times as long, for every command.
const HASH: &str = "if H=$(openssl dgst -sha256 -r <\"$A\" 2>/dev/null); then H=${H%% *}; \
    elif H=$(sha256sum <\"$A\" 2>/dev/null); then H=${H%% *}; \
    elif H=$(shasum -a 256 <\"$A\" 2>/dev/null); then H=${H%% *}; \
    elif H=$(busybox sha256sum <\"$A\" 2>/dev/null); then H=${H%% *}; else H=none; fi; ";

/// A node on which an agent is to be started.
pub(super) struct Place<'a> {
    pub(super) node: &'a NodeName,
    pub(super) connection: &'a Connection,
    pub(super) root: &'a Utf8Path,
    pub(super) agent: &'a AgentBinary,
    /// What the agent's program has to be there; `None` on this machine, where it is the one that runs.
    pub(super) contents: Option<Contents>,
}

/// What the script found.
enum Found {
    Running(Box<(Lines, Have)>),
    Absent,
    Wrong,
}

impl Place<'_> {
    /// Where the agent is on the node: on this machine, the program itself.
    pub(super) fn path(&self) -> Utf8PathBuf {
        match self.contents {
            None => self.agent.path().to_owned(),
            Some(contents) => self.folder().join(contents.name()),
        }
    }

    fn folder(&self) -> Utf8PathBuf {
        self.root.join("agent")
    }

    /// The command that runs an operation of the agent.
    pub(super) fn command(&self, operation: &str) -> String {
        let (path, root) = (Connection::quote(self.path().as_str()), Connection::quote(self.root.as_str()));
        format!("exec {path} node --root {root} {operation}")
    }

    /// Makes sure that the agent is there, and starts `node call`.
    pub(super) async fn start(&self) -> Result<(Lines, Have), RemoteError> {
        let Some(contents) = self.contents else {
            let mut lines = self.exec(&self.command("call")).await?;
            let _unread = lines.send(greeting()).await;
            let have = self.greeted(&mut lines).await?;
            return Ok((lines, have));
        };
        match self.attempt_in_time(contents.digest, true).await? {
            Found::Running(running) => return Ok(*running),
            Found::Absent | Found::Wrong => self.upload(contents.size).await?,
        }
        // Without a program that hashes, what was just written is what was sent.
        match self.attempt_in_time(contents.digest, false).await? {
            Found::Running(running) => Ok(*running),
            Found::Absent | Found::Wrong => Err(self.failed(StartFailure::Changed { path: self.path() })),
        }
    }

    fn failed(&self, why: StartFailure) -> RemoteError {
        RemoteError::Start { node: self.node.clone(), why }
    }

    async fn exec(&self, command: &str) -> Result<Lines, RemoteError> {
        Ok(Lines::new(self.node, self.connection.exec(command).await?))
    }

    async fn script(&self, script: &str) -> Result<Lines, RemoteError> {
        self.exec(&format!("exec /bin/sh -c {}", Connection::quote(script))).await
    }

    /// A node whose disk hangs lets one in and says nothing.
    async fn attempt_in_time(&self, digest: Digest, must_hash: bool) -> Result<Found, RemoteError> {
        in_time(self.node, Some(ATTEMPT), self.attempt(digest, must_hash)).await
    }

    /// Runs the agent if it is there and is what it should be.
    async fn attempt(&self, digest: Digest, must_hash: bool) -> Result<Found, RemoteError> {
        let mut lines = self.script(&self.check_script(digest, must_hash)).await?;
        // Sent before the answer is there: the shell does not read it, the agent does.
        let _unread = lines.send(greeting()).await;
        let Some(said) = lines.marked(MARK).await else {
            let Ended { status, said } = lines.ended().await?;
            let how = status.map_or_else(|| "it says nothing".to_owned(), |status| status.to_string());
            return Err(self.failed(StartFailure::Other { how, said }));
        };
        match said.split_once(' ').unwrap_or((&said, "")) {
            ("ok", _) => {
                let have = self.greeted(&mut lines).await?;
                Ok(Found::Running(Box::new((lines, have))))
            }
            ("absent", _) => Ok(Found::Absent),
            ("machine", node) => {
                let program = self.agent.machines().name;
                Err(self.failed(StartFailure::Machine { program, node: node.to_owned() }))
            }
            ("foreign", folder) => Err(self.failed(StartFailure::Foreign { folder: folder.into() })),
            _ => Ok(Found::Wrong),
        }
    }

    fn check_script(&self, digest: Digest, must_hash: bool) -> String {
        let (root, folder) =
            (Connection::quote(self.root.as_str()), Connection::quote(self.folder().as_str()));
        let (path, digest) = (Connection::quote(self.path().as_str()), digest.hex());
        let patterns = self.agent.machines().patterns;
        let unhashed = if must_hash { "" } else { "|none" };
        let run = self.command("call");
        format!(
            "M=$(uname -s 2>/dev/null)/$(uname -m 2>/dev/null); \
             case $M in {patterns}|/) ;; *) echo {MARK}machine $M; exit 0;; esac; \
             R={root}; D={folder}; A={path}; {TRUST}{WAY}F=$(w); \
             test -z \"$F\" || {{ echo {MARK}foreign \"$F\"; exit 0; }}; \
             if test -f \"$A\"; then \
             t \"$R\" || {{ echo {MARK}foreign \"$R\"; exit 0; }}; \
             t \"$D\" || {{ echo {MARK}foreign \"$D\"; exit 0; }}; \
             {HASH}case $H in {digest}{unhashed}) echo {MARK}ok; {run};; *) echo {MARK}wrong; exit 0;; esac; \
             else echo {MARK}absent; fi"
        )
    }

    /// The agent's first answer proves that it runs.
    async fn greeted(&self, lines: &mut Lines) -> Result<Have, RemoteError> {
        match lines.answer().await {
            Err(RemoteError::Ended { how, said, .. }) => Err(self.does_not_run(how, said).await),
            other => other,
        }
    }

    /// Finds out why the program did not start.
    async fn does_not_run(&self, how: String, said: String) -> RemoteError {
        let is = |code: u32| how == ExitStatus::Code(code).to_string();
        if said.contains("GLIBC_") || said.contains("loading shared libraries") {
            return self.failed(StartFailure::Libc { said });
        }
        if is(126) && self.is_noexec().await {
            return self.failed(StartFailure::NoExec { folder: self.folder() });
        }
        // The file is there: what was not found is its loader.
        if is(127) && said.contains("not found") {
            return self.failed(StartFailure::Libc { said });
        }
        self.failed(StartFailure::Other { how, said })
    }

    /// Whether not even a script of two lines can be run in the agent's folder.
    async fn is_noexec(&self) -> bool {
        let folder = Connection::quote(self.folder().as_str());
        let script = format!(
            "P={folder}/.try-$$; C=none; (echo '#''/bin/sh'; echo exit 0) >\"$P\" && chmod 700 \"$P\" && \
             {{ \"$P\"; C=$?; }}; rm -f -- \"$P\"; echo {MARK}$C"
        );
        let Ok(mut lines) = self.script(&script).await else { return false };
        lines.marked(MARK).await.as_deref() == Some("126")
    }

    /// Makes the folders, sends the program, and lets old ones go.
    async fn upload(&self, size: u64) -> Result<(), RemoteError> {
        self.prepare().await?;
        let fail = |source| RemoteError::Binary { path: self.agent.path().to_owned(), source };
        let file = tokio::fs::File::open(self.agent.path()).await.map_err(fail)?;
        let sent = self.connection.upload(file, size, self.path().as_str(), 0o755).await;
        match sent {
            Ok(()) => Ok(()),
            Err(error) => Err(match error.reason() {
                Reason::Upload { what, .. } => self.failed(refusal(self.folder(), what)),
                _ => error.into(),
            }),
        }
    }

    async fn prepare(&self) -> Result<(), RemoteError> {
        let parent = self.root.parent().unwrap_or(Utf8Path::new("/"));
        let parent = Connection::quote(parent.as_str());
        let (root, folder) =
            (Connection::quote(self.root.as_str()), Connection::quote(self.folder().as_str()));
        let script = format!(
            "LC_ALL=C; export LC_ALL; umask 022; R={root}; D={folder}; {TRUST}{WAY}F=$(w); \
             test -z \"$F\" || {{ echo {MARK}foreign \"$F\"; exit 0; }}; mkdir -p -- {parent} || exit 1; test -d \"$R\" || (umask 077; mkdir -- \"$R\") || exit 1; \
             t \"$R\" || {{ echo {MARK}foreign \"$R\"; exit 0; }}; \
             test -d \"$D\" || mkdir -- \"$D\" || exit 1; \
             t \"$D\" || {{ echo {MARK}foreign \"$D\"; exit 0; }}; \
             cd -- \"$D\" && ls -t | {{ N=0; while read -r F; do case $F in windlass-????????????) N=$((N+1)); \
             test $N -le {KEPT} || rm -f -- \"$F\";; .try-*) rm -f -- \"$F\";; esac; done; }}; \
             find . -name 'windlass-*.part' -mtime +0 -exec rm -f -- '{{}}' ';' 2>/dev/null; \
             echo {MARK}ready"
        );
        let mut lines = self.script(&script).await?;
        match lines.marked(MARK).await.as_deref() {
            Some("ready") => Ok(()),
            Some(other) => {
                let folder = other.strip_prefix("foreign ").unwrap_or(self.root.as_str()).into();
                Err(self.failed(StartFailure::Foreign { folder }))
            }
            None => {
                let Ended { said, .. } = lines.ended().await?;
                Err(self.failed(refusal(self.root.to_owned(), &said)))
            }
        }
    }
}

fn refusal(folder: Utf8PathBuf, said: &str) -> StartFailure {
    let said = said.to_owned();
    // `fewer or more bytes` is what an upload says where `cat` could not write them all.
    if said.contains("No space left") || said.contains("quota") || said.contains("fewer or more bytes") {
        return StartFailure::Full { folder, said };
    }
    StartFailure::NotWritable { folder, said }
}

/// A question that every agent answers and that changes nothing.
fn greeting() -> bytes::Bytes {
    let call = Call { token: None, claim: Claim::default(), request: Request::Have { objects: Vec::new() } };
    // It has nothing that could not be JSON.
    let mut line = serde_json::to_vec(&call).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_safe_inside_any_shells_quotes() {
        for text in [TRUST, WAY, HASH] {
            assert!(!text.contains(['\n', '\\', '!']), "{text}");
        }
    }
}
