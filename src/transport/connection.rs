//! A node that is connected: commands, ports, uploads. Cheap to clone; one SSH session for all clones.
//!
//! # Invariants
//!
//! * Over SSH every command and every port is a channel of the one session; sshd allows ten commands at a time
//!   (`MaxSessions`), so a further one waits for a free place.
//! * No command line is part of an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelOpenFailure, Disconnect};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::channel;
use super::client::{Client, Ended};
use super::error::{Reason, TransportError};
use super::local;
use super::process::{
    Exit, ExitFrom, Input, Place, Process, Stderr, StderrFrom, Stdin, Stdout, StdoutFrom, Through, Tunnel,
};

/// How long a command waits for a place among sshd's sessions.
const PATIENCE: Duration = Duration::from_mins(2);
/// For how long that may be where nothing of ours is known to run.
const ALONE: Duration = Duration::from_secs(2);

/// A node that is connected. It is disconnected when the last clone and the last stream are dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    place: Arc<Place>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Local,
    Ssh(Arc<Session>),
}

struct Session {
    handle: Handle<Client>,
    ended: Ended,
    commands: Arc<Commands>,
    /// The jump host that the session runs through.
    _via: Option<Connection>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// The commands that run in a session.
#[derive(Debug, Default)]
struct Commands {
    running: AtomicUsize,
    freed: Notify,
}

/// One of them; dropped when its channel is closed.
struct Running(Arc<Commands>);

impl Running {
    fn new(commands: &Arc<Commands>) -> Self {
        commands.running.fetch_add(1, Ordering::SeqCst);
        Self(commands.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.freed.notify_waiters();
    }
}

impl Connection {
    pub(super) fn local(node: &str) -> Self {
        let place = Place { node: node.to_owned(), address: "local".to_owned() };
        Self { place: Arc::new(place), way: Way::Local }
    }

    pub(super) fn ssh(place: Arc<Place>, handle: Handle<Client>, ended: Ended, via: Option<Self>) -> Self {
        let session = Session { handle, ended, commands: Arc::default(), _via: via };
        Self { place, way: Way::Ssh(Arc::new(session)) }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.place.node
    }

    /// Whether the node is this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.way, Way::Local)
    }

    /// Whether the connection is known to be gone.
    pub fn is_closed(&self) -> bool {
        match &self.way {
            Way::Local => false,
            Way::Ssh(session) => session.handle.is_closed(),
        }
    }

    /// Waits until the connection is gone and says why; never ends for this machine.
    pub async fn lost(&self) -> TransportError {
        match &self.way {
            Way::Local => std::future::pending().await,
            Way::Ssh(session) => self.place.error(Reason::Lost(session.ended.wait().await.to_string())),
        }
    }

    /// Runs `command` with the user's shell (`/bin/sh` on this machine).
    ///
    /// Quote what is not to be the shell's with [`Self::quote`].
    pub async fn exec(&self, command: &str) -> Result<Process, TransportError> {
        let session = match &self.way {
            Way::Local => return local::exec(&self.place, command),
            Way::Ssh(session) => session,
        };
        let (channel, running) = self.session_channel(session).await?;
        let (what, command) = ("run a command".to_owned(), command.as_bytes());
        if let Err(error) = channel.exec(false, command).await {
            return Err(self.failed(session, what, error).await);
        }
        let ends = channel::drive(channel, &session.ended, running);
        Ok(Process {
            stdin: Stdin(Input::Ssh(ends.input)),
            stdout: Stdout(StdoutFrom::Ssh(ends.output)),
            stderr: Stderr(StderrFrom::Ssh(ends.errors)),
            exit: Exit { place: self.place.clone(), from: ExitFrom::Ssh(ends.exit) },
        })
    }

    async fn session_channel(&self, session: &Session) -> Result<(Channel<Msg>, Running), TransportError> {
        let deadline = Instant::now() + PATIENCE;
        let mut alone = None;
        loop {
            let freed = session.commands.freed.notified();
            let error = match session.handle.channel_open_session().await {
                Ok(channel) => return Ok((channel, Running::new(&session.commands))),
                Err(error) => error,
            };
            if session.commands.running.load(Ordering::SeqCst) > 0 {
                alone = None;
            }
            // Others that were let in may not be counted yet, and sshd may not have freed the place of one that ended.
            let alone = *alone.get_or_insert_with(Instant::now);
            if !is_full(&error) || alone.elapsed() >= ALONE {
                return Err(self.failed(session, "open a session".to_owned(), error).await);
            }
            if Instant::now() >= deadline {
                return Err(self.place.error(Reason::Sessions { after: PATIENCE }));
            }
            // sshd frees the place a moment after it has closed the channel, hence the second look.
            let _looked_again = timeout(Duration::from_millis(200), freed).await;
        }
    }

    /// Connects to `port` of `host`, both as the node sees them.
    pub async fn forward(&self, host: &str, port: u16) -> Result<Tunnel, TransportError> {
        let session = match &self.way {
            Way::Local => return local::forward(&self.place, host, port).await,
            Way::Ssh(session) => session,
        };
        let opened = session.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await;
        match opened {
            Ok(channel) => {
                let ends = channel::drive(channel, &session.ended, self.clone());
                Ok(Tunnel(Through::Ssh { input: ends.input, output: ends.output }))
            }
            Err(error) => Err(self.failed(session, format!("connect to {host}:{port}"), error).await),
        }
    }

    async fn failed(&self, session: &Session, what: String, error: russh::Error) -> TransportError {
        self.place.error(match error {
            russh::Error::ChannelOpenFailure(_) => Reason::Channel { what, source: Some(error) },
            _ => Reason::Lost(session.ended.why().await.to_string()),
        })
    }

    /// Writes the `size` bytes of `source` to `path` on the node, by way of a temporary name beside it.
    ///
    /// A file that is there already is replaced; folders above it are made. `path` never holds a part of the
    /// content: when the connection breaks, the shell there counts too few bytes and drops them.
    pub async fn upload(
        &self,
        source: impl AsyncRead + Unpin,
        size: u64,
        path: &str,
        mode: u32,
    ) -> Result<(), TransportError> {
        let script = upload_script(path, size, mode).map_err(|what| self.upload_error(path, what))?;
        let process = self.exec(&format!("exec /bin/sh -c {}", Self::quote(&script))).await?;
        let Process { stdin, mut stdout, mut stderr, exit } = process;
        let (mut said, mut complaint) = (Vec::new(), Vec::new());
        let (fed, heard, complained, status) = tokio::join!(
            feed(stdin, source),
            stdout.read_to_end(&mut said),
            stderr.read_to_end(&mut complaint),
            exit.wait()
        );
        let status = status?;
        if let Err(Fed::Source(source)) = fed {
            return Err(self.place.error(Reason::Source { path: path.to_owned(), source }));
        }
        heard.and(complained).map_err(|error| self.place.error(Reason::Lost(error.to_string())))?;
        if status.success() && fed.is_ok() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&complaint);
        let what = match complaint.trim() {
            "" => status.to_string(),
            said => said.to_owned(),
        };
        Err(self.upload_error(path, what))
    }

    fn upload_error(&self, path: &str, what: String) -> TransportError {
        self.place.error(Reason::Upload { path: path.to_owned(), what })
    }

    /// Disconnects, for all clones. What runs on the node sees its streams end.
    pub async fn close(&self) {
        if let Way::Ssh(session) = &self.way {
            // An error means that it is closed already.
            let _closed = session.handle.disconnect(Disconnect::ByApplication, "", "").await;
            let _said = timeout(Duration::from_secs(1), session.ended.wait()).await;
        }
    }

    /// `text` as one word for a POSIX shell, and for csh and fish.
    pub fn quote(text: &str) -> String {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn is_full(error: &russh::Error) -> bool {
    matches!(
        error,
        russh::Error::ChannelOpenFailure(
            ChannelOpenFailure::ConnectFailed
                | ChannelOpenFailure::AdministrativelyProhibited
                | ChannelOpenFailure::ResourceShortage
        )
    )
}

enum Fed {
    Source(std::io::Error),
    Node,
}

async fn feed(mut to: Stdin, mut from: impl AsyncRead + Unpin) -> Result<(), Fed> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(256 << 10);
        match from.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(_) => to.send(buffer.split().freeze()).await.map_err(|_| Fed::Node)?,
            Err(error) => return Err(Fed::Source(error)),
        }
    }
    to.shutdown().await.map_err(|_| Fed::Node)
}

fn upload_script(path: &str, size: u64, mode: u32) -> Result<String, String> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "there are no random bytes".to_owned())?;
    let part = Connection::quote(&format!("{path}.{:016x}.part", u64::from_ne_bytes(random)));
    let folder =
        path.rsplit_once('/').map_or(".", |(folder, _)| if folder.is_empty() { "/" } else { folder });
    let (path, folder) = (Connection::quote(path), Connection::quote(folder));
    Ok(format!(
        "set -e; LC_ALL=C; export LC_ALL; umask 077; trap 'rm -f -- {}' EXIT; (umask 022; mkdir -p -- {folder}); cat >{part}; \
         test $(wc -c <{part}) -eq {size} || {{ echo 'fewer or more bytes arrived than were sent' >&2; exit 1; }}; \
         chmod {mode:o} {part}; mv -f -- {part} {path}",
        // Inside the quotes of `trap`.
        part.replace('\'', r"'\''"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_a_node_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("{}/it's/a file", folder.path().display());
        let node = Connection::local("here");
        node.upload(&b"content"[..], 7, &path, 0o640).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        let error = node.upload(&b"content"[..], 8, &path, 0o640).await.unwrap_err();
        assert!(error.to_string().contains("fewer or more bytes"), "{error}");
        assert_eq!(std::fs::read_dir(format!("{}/it's", folder.path().display())).unwrap().count(), 1);
        let output = node.exec("cat; echo no >&2; exit 3").await.unwrap().output("yes").await.unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"yes"[..], &b"no\n"[..]));
        assert_eq!(output.status.to_string(), "exit code 3");
        assert_eq!(node.exec("kill -9 $$").await.unwrap().wait().await.unwrap().to_string(), "signal KILL");
    }
}
