//! A command on a node that is spoken to in lines, and what is known when it falls silent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::RemoteError;
use crate::agent::Line;
use crate::model::NodeName;
use crate::transport::{Exit, ExitStatus, Process, Stderr, Stdin, Stdout};

/// The longest line that an agent answers with: a journal of years. As long as the longest request.
const MAX_LINE: u64 = 64 << 20;

/// What is kept of stderr.
const MAX_SAID: usize = 4 << 10;

/// How long the end of a command that fell silent is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command on a node, spoken to in lines.
#[derive(Debug)]
pub(super) struct Lines {
    node: NodeName,
    stdin: Option<Stdin>,
    stdout: BufReader<Stdout>,
    exit: Option<Exit>,
    said: Arc<Mutex<Vec<u8>>>,
    listening: Option<JoinHandle<()>>,
    /// A line had no end.
    endless: bool,
}

/// How a command ended, and what it complained about.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: Option<ExitStatus>,
    pub(super) said: String,
}

impl Lines {
    pub(super) fn new(node: &NodeName, process: Process) -> Self {
        let Process { stdin, stdout, stderr, exit } = process;
        let said = Arc::default();
        let listening = tokio::spawn(listen(stderr, Arc::clone(&said)));
        Self {
            node: node.clone(),
            stdin: Some(stdin),
            stdout: BufReader::with_capacity(16 << 10, stdout),
            exit: Some(exit),
            said,
            listening: Some(listening),
            endless: false,
        }
    }

    /// Writes bytes; an error is told by [`Self::failure`], which knows more.
    pub(super) async fn send(&mut self, bytes: Bytes) -> Result<(), ()> {
        match &mut self.stdin {
            Some(stdin) => stdin.send(bytes).await.map_err(drop),
            None => Err(()),
        }
    }

    /// Its stdin, for one who writes to it alone.
    pub(super) fn take_stdin(&mut self) -> Option<Stdin> {
        self.stdin.take()
    }

    /// Ends what the command reads.
    pub(super) async fn finish(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            // It may have ended by itself.
            let _gone = stdin.shutdown().await;
        }
    }

    /// The next line, without its end; `None` where there is none any more.
    pub(super) async fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let read = (&mut self.stdout).take(MAX_LINE).read_until(b'\n', &mut line).await;
        if read.is_err() || line.last() != Some(&b'\n') {
            self.endless = line.len() as u64 >= MAX_LINE;
            return None;
        }
        line.pop();
        Some(line)
    }

    /// The next line that starts with `mark`, without it; others are what a shell's start-up files say.
    pub(super) async fn marked(&mut self, mark: &str) -> Option<String> {
        for _ in 0..1000 {
            let line = self.line().await?;
            if let Some(rest) = line.strip_prefix(mark.as_bytes()) {
                return Some(String::from_utf8_lossy(rest).trim().to_owned());
            }
        }
        None
    }

    /// The next line as an answer of the agent.
    pub(super) async fn answer<T: DeserializeOwned>(&mut self) -> Result<T, RemoteError> {
        match self.parsed().await? {
            Line::Done(done) => Ok(done),
            Line::Error(line) => Err(RemoteError::agent(&self.node, line)),
        }
    }

    /// The next line, parsed.
    pub(super) async fn parsed<T: DeserializeOwned>(&mut self) -> Result<T, RemoteError> {
        let Some(line) = self.line().await else { return Err(self.failure().await) };
        serde_json::from_slice(&line).map_err(|error| {
            let start = String::from_utf8_lossy(&line[..line.len().min(120)]).escape_debug().to_string();
            RemoteError::Protocol { node: self.node.clone(), what: format!("{error}, in `{start}`") }
        })
    }

    /// How it ended; the connection's error where that is why.
    pub(super) async fn ended(&mut self) -> Result<Ended, RemoteError> {
        self.finish().await;
        let status = match self.exit.take() {
            Some(exit) => match timeout(PATIENCE, exit.wait()).await {
                Ok(status) => Some(status?),
                Err(_) => None,
            },
            None => None,
        };
        if let Some(listening) = self.listening.take() {
            let _heard = timeout(Duration::from_secs(1), listening).await;
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Ended { status, said: String::from_utf8_lossy(&said).trim().to_owned() })
    }

    /// Why there is no further line.
    pub(super) async fn failure(&mut self) -> RemoteError {
        if self.endless {
            let what = format!("it has more than {} MiB", MAX_LINE >> 20);
            return RemoteError::Protocol { node: self.node.clone(), what };
        }
        match self.ended().await {
            Ok(Ended { status, said }) => {
                let how = status.map_or_else(|| "it says nothing".to_owned(), |status| status.to_string());
                RemoteError::Ended { node: self.node.clone(), how, said }
            }
            Err(error) => error,
        }
    }

    /// Whether it waits for a line to read: nothing is left unread of what it wrote.
    pub(super) fn is_quiet(&self) -> bool {
        self.stdout.buffer().is_empty()
    }
}

/// Keeps the end of what a command complains about.
async fn listen(mut stderr: Stderr, said: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&buffer[..read]);
        let surplus = said.len().saturating_sub(MAX_SAID);
        said.drain(..surplus);
    }
}
