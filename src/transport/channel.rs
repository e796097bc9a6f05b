//! One channel of a session as streams and an exit.
//!
//! Two tasks stand between a channel and its user. russh delivers all channels of a connection from one loop
//! and waits there for a channel whose queue is full, so a reader that is slow on one would hold up the others,
//! and two that wait for each other would hold up for ever. The tasks take what comes at once and keep up to
//! [`BACKLOG`] for each stream; only a reader further behind than that holds up its connection.
//!
//! # Invariants
//!
//! * When the connection is lost every stream and the exit fail; none ends as if all had been well.
//! * When all of a channel's ends are dropped the channel is closed.

use std::io;
use std::sync::Arc;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::oneshot;

use super::client::Ended;
use super::pipe::{Failure, PipeReader, PipeWriter, pipe};
use super::process::ExitStatus;

/// What a stream's reader may be behind before it holds up its connection.
const BACKLOG: usize = 64 << 20;

/// What a writer may be ahead of the channel.
const AHEAD: usize = 1 << 20;

/// The near ends of a channel.
pub(super) struct Ends {
    pub(super) input: PipeWriter,
    pub(super) output: PipeReader,
    pub(super) errors: PipeReader,
    /// The exit; `None` where the channel was closed without one.
    pub(super) exit: oneshot::Receiver<Told>,
}

/// What becomes known of an exit; an error is why the connection was lost.
pub(super) type Told = Result<Option<ExitStatus>, Arc<str>>;

type Far = Arc<ChannelWriteHalf<Msg>>;

/// Starts the tasks of `channel`; `kept` is dropped when the channel is closed.
pub(super) fn drive<K: Send + 'static>(channel: Channel<Msg>, ended: &Ended, kept: K) -> Ends {
    let (input, to_send) = pipe(AHEAD);
    let (out, output) = pipe(BACKLOG);
    let (err, errors) = pipe(BACKLOG);
    let (exit_sender, exit) = oneshot::channel();
    let (read, write) = channel.split();
    let write = Arc::new(write);
    let (closed_sender, closed) = oneshot::channel::<()>();
    tokio::spawn(send(to_send, write.clone(), ended.clone(), closed));
    let ended = ended.clone();
    tokio::spawn(async move {
        receive(read, write, Streams { out, err, exit: Some(exit_sender) }, ended).await;
        drop((closed_sender, kept));
    });
    Ends { input, output, errors, exit }
}

async fn send(mut from: PipeReader, to: Far, ended: Ended, closed: oneshot::Receiver<()>) {
    let sending = async {
        while let Some(bytes) = from.next().await? {
            to.data_bytes(bytes).await.map_err(|_| broken("the connection was lost"))?;
        }
        to.eof().await.map_err(|_| broken("the connection was lost"))
    };
    let outcome: io::Result<()> = tokio::select! {
        outcome = sending => outcome,
        _ = closed => Err(broken("the other side reads no more")),
        // A writer that waits for window is not woken by russh when the session ends.
        why = ended.wait() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.to_string())),
    };
    from.settle(outcome.map_err(|error| Failure { kind: error.kind(), text: error.to_string().into() }));
}

fn broken(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, text)
}

struct Streams {
    out: PipeWriter,
    err: PipeWriter,
    /// None once the exit was told.
    exit: Option<oneshot::Sender<Told>>,
}

impl Streams {
    fn finish(&self, end: &Result<(), Failure>) {
        self.out.finish(end.clone());
        self.err.finish(end.clone());
    }

    fn tell(&mut self, told: Told) {
        if let Some(exit) = self.exit.take() {
            let _unwanted = exit.send(told);
        }
    }

    /// Ready once nobody is left to read or to wait.
    async fn unwanted(&mut self) {
        let exit = async {
            if let Some(exit) = &mut self.exit {
                exit.closed().await;
            }
        };
        tokio::join!(self.out.reader_gone(), self.err.reader_gone(), exit);
    }
}

async fn receive(mut from: ChannelReadHalf, to: Far, mut streams: Streams, ended: Ended) {
    loop {
        let message = tokio::select! {
            message = from.wait() => message,
            () = streams.unwanted() => {
                // Nobody reads any more, and a writer alone cannot tell what became of its bytes.
                let _gone = to.close().await;
                return;
            }
        };
        match message {
            Some(ChannelMsg::Data { data }) => streams.out.send_lossy(data).await,
            Some(ChannelMsg::ExtendedData { data, ext: 1 }) => streams.err.send_lossy(data).await,
            Some(ChannelMsg::Eof) => streams.finish(&Ok(())),
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                // Told at once: the channel stays open while something left behind holds the streams.
                streams.tell(Ok(Some(ExitStatus::Code(exit_status))));
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                streams.tell(Ok(Some(ExitStatus::Signal(signal_text(&signal_name)))));
            }
            Some(ChannelMsg::Close) => {
                streams.finish(&Ok(()));
                streams.tell(Ok(None));
                return;
            }
            Some(_) => {}
            None => {
                let why = ended.why().await;
                streams.finish(&Err(Failure { kind: io::ErrorKind::ConnectionAborted, text: why.clone() }));
                streams.tell(Err(why));
                return;
            }
        }
    }
}

/// The signal's name as POSIX has it, without `SIG`.
fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.trim_end_matches("@openssh.com").to_owned(),
        known => format!("{known:?}"),
    }
}
