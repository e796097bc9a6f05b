//! A push's stream to one node.

use bytes::Bytes;

use super::error::RemoteError;
use super::lines::Lines;
use crate::agent::ErrorLine;
use crate::agent::wire::PushLine;
use crate::model::NodeName;

/// `node receive` under way: bytes go in, [`PushLine`]s come out.
#[derive(Debug)]
pub struct Receiving {
    node: NodeName,
    lines: Lines,
    sent: u64,
}

/// A line, or the error that ends the stream.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Said {
    Line(PushLine),
    Error { error: ErrorLine },
}

impl Receiving {
    pub(super) fn new(node: &NodeName, lines: Lines) -> Self {
        Self { node: node.clone(), lines, sent: 0 }
    }

    /// Sends bytes; over SSH without copying them. Fails with what the node said, if it said anything.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), RemoteError> {
        let count = bytes.len() as u64;
        match self.lines.send(bytes).await {
            Ok(()) => {
                self.sent += count;
                Ok(())
            }
            // The node gave up in the middle; its last line says why.
            Err(()) => Err(match self.line().await {
                Err(error) => error,
                Ok(_) => self.lines.failure().await,
            }),
        }
    }

    /// Bytes that were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The node's next line.
    pub async fn line(&mut self) -> Result<PushLine, RemoteError> {
        match self.lines.parsed().await? {
            Said::Line(line) => Ok(line),
            Said::Error { error } => Err(RemoteError::agent(&self.node, error)),
        }
    }
}
