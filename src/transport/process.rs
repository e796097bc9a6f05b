//! A command that runs on a node, and a stream to a port there: the same over SSH and on this machine.
//!
//! The parts of a [`Process`] are public so that they can go to different tasks: a command that writes much
//! while it reads much needs somebody at either end.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::oneshot;

use super::channel::Told;
use super::error::{Reason, TransportError};
use super::pipe::{PipeReader, PipeWriter};

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(u32),
    /// By this signal, named without `SIG`, or by its number where the name is not known.
    Signal(String),
}

impl ExitStatus {
    /// Whether the code is 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// A command under way. Dropping it closes its streams; the command itself is not killed.
#[derive(Debug)]
pub struct Process {
    /// What it reads. Shut it down, or drop it, for an end of file.
    pub stdin: Stdin,
    /// What it writes.
    pub stdout: Stdout,
    /// What it complains about.
    pub stderr: Stderr,
    /// How it ends.
    pub exit: Exit,
}

/// All that came of a command.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: Vec<u8>,
}

impl Process {
    /// Closes stdin, reads nothing and waits for the end; not for what the command left behind.
    pub async fn wait(self) -> Result<ExitStatus, TransportError> {
        let Self { stdin, stdout, stderr, exit } = self;
        drop(stdin);
        // Read on rather than close: a command must not die of SIGPIPE because nobody wants its words.
        let swallowing = async {
            let _words = tokio::join!(swallow(stdout), swallow(stderr));
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            status = exit.wait() => status,
            never = swallowing => match never {},
        }
    }

    /// Writes `input`, reads everything and waits for the end. For commands that say little.
    pub async fn output(self, input: impl Into<Bytes>) -> Result<Output, TransportError> {
        let Self { mut stdin, mut stdout, mut stderr, exit } = self;
        let input = input.into();
        let place = exit.place.clone();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let feed = async move {
            // A command may end without reading all; its exit says whether that was well.
            if stdin.send(input).await.is_ok() {
                let _unread = stdin.shutdown().await;
            }
        };
        let ((), read, complained, status) =
            tokio::join!(feed, stdout.read_to_end(&mut out), stderr.read_to_end(&mut err), exit.wait());
        let status = status?;
        read.and(complained).map_err(|error| place.error(Reason::Lost(error.to_string())))?;
        Ok(Output { status, stdout: out, stderr: err })
    }
}

async fn swallow(mut stream: impl AsyncRead + Unpin) -> io::Result<u64> {
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
}

/// A node and its address, for errors.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) node: String,
    pub(super) address: String,
}

impl Place {
    pub(super) fn error(&self, reason: Reason) -> TransportError {
        TransportError::new(&self.node, &self.address, reason)
    }
}

/// The end of a command.
#[derive(Debug)]
pub struct Exit {
    pub(super) place: Arc<Place>,
    pub(super) from: ExitFrom,
}

#[derive(Debug)]
pub(super) enum ExitFrom {
    Local(Box<Child>),
    Ssh(oneshot::Receiver<Told>),
}

impl Exit {
    /// Waits for the end. Somebody must read the command's streams, or have dropped them.
    pub async fn wait(self) -> Result<ExitStatus, TransportError> {
        match self.from {
            ExitFrom::Local(mut child) => {
                let what = "wait for the command".to_owned();
                let ended =
                    child.wait().await.map_err(|source| self.place.error(Reason::Local { what, source }))?;
                Ok(local_status(ended))
            }
            ExitFrom::Ssh(receiver) => match receiver.await {
                Ok(Ok(Some(status))) => Ok(status),
                Ok(Ok(None)) => {
                    Err(self.place.error(Reason::Lost("the command's exit was not told".to_owned())))
                }
                Ok(Err(why)) => Err(self.place.error(Reason::Lost(why.to_string()))),
                Err(_) => Err(self.place.error(Reason::Lost("it was closed here".to_owned()))),
            },
        }
    }
}

fn local_status(ended: std::process::ExitStatus) -> ExitStatus {
    match (ended.code(), ended.signal()) {
        (Some(code), _) => ExitStatus::Code(code.cast_unsigned()),
        (None, signal) => ExitStatus::Signal(signal.map_or_else(|| "unknown".to_owned(), signal_name)),
    }
}

/// The names that sshd would send.
fn signal_name(number: i32) -> String {
    let known = [
        (1, "HUP"),
        (2, "INT"),
        (3, "QUIT"),
        (4, "ILL"),
        (6, "ABRT"),
        (8, "FPE"),
        (9, "KILL"),
        (11, "SEGV"),
        (13, "PIPE"),
        (14, "ALRM"),
        (15, "TERM"),
    ];
    let name = known.iter().find(|(known, _)| *known == number);
    name.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// What a command reads.
#[derive(Debug)]
pub struct Stdin(pub(super) Input);

#[derive(Debug)]
pub(super) enum Input {
    Local(ChildStdin),
    Ssh(PipeWriter),
}

impl Stdin {
    /// Writes all of `bytes`; over SSH without copying them.
    pub async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match &mut self.0 {
            Input::Local(stdin) => stdin.write_all(&bytes).await,
            Input::Ssh(pipe) => pipe.send(bytes).await,
        }
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Input::Local(stdin) => Pin::new(stdin).poll_write(cx, buf),
            Input::Ssh(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Input::Local(stdin) => Pin::new(stdin).poll_flush(cx),
            Input::Ssh(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Input::Local(stdin) => Pin::new(stdin).poll_shutdown(cx),
            Input::Ssh(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

macro_rules! output {
    ($(#[$doc:meta])* $name:ident, $from:ident, $child:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(pub(super) $from);

        #[derive(Debug)]
        pub(super) enum $from {
            Local($child),
            Ssh(PipeReader),
        }

        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match &mut self.0 {
                    $from::Local(stream) => Pin::new(stream).poll_read(cx, buf),
                    $from::Ssh(pipe) => Pin::new(pipe).poll_read(cx, buf),
                }
            }
        }
    };
}

output!(
    /// What a command writes.
    Stdout,
    StdoutFrom,
    ChildStdout
);
output!(
    /// What a command complains about.
    Stderr,
    StderrFrom,
    ChildStderr
);

/// A stream to a port, as seen from a node.
#[derive(Debug)]
pub struct Tunnel(pub(super) Through);

#[derive(Debug)]
pub(super) enum Through {
    Local(TcpStream),
    Ssh { input: PipeWriter, output: PipeReader },
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Through::Local(stream) => Pin::new(stream).poll_read(cx, buf),
            Through::Ssh { output, .. } => Pin::new(output).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Through::Local(stream) => Pin::new(stream).poll_write(cx, buf),
            Through::Ssh { input, .. } => Pin::new(input).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Through::Local(stream) => Pin::new(stream).poll_flush(cx),
            Through::Ssh { input, .. } => Pin::new(input).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Through::Local(stream) => Pin::new(stream).poll_shutdown(cx),
            Through::Ssh { input, .. } => Pin::new(input).poll_shutdown(cx),
        }
    }
}
