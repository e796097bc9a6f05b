//! HTTP and lines of text, over a node's own connection.
//!
//! # Invariants
//!
//! * An answer is read up to a limit: a service that never stops talking fills nobody's memory.
//! * No credential is part of an error.

use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::adapter::AdapterError;
use super::exchange::{Question, Want};
use super::tls;
use super::view::{Instance, hosts};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(8);

/// The most that is read of an answer.
const MAX_ANSWER: usize = 64 << 20;

/// A stream to a service.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What a service answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value, AdapterError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            AdapterError::new(format!("an answer of status {} is no JSON: {error}", self.status))
        })
    }
}

impl Instance<'_> {
    /// Opens a stream to the service, where it listens.
    pub(super) async fn open(&self) -> Result<Box<dyn Stream>, AdapterError> {
        let Some(reach) = self.reach else {
            return Err(AdapterError::new(format!("{} cannot be reached", self.node)));
        };
        let port = self.port();
        let mut why = String::new();
        for host in hosts(&self.address) {
            match timeout(ANSWER, reach.open(host, port)).await {
                Ok(Ok(stream)) => return self.secured(stream).await,
                Ok(Err(error)) => why = error,
                Err(_) => "no answer".clone_into(&mut why),
            }
        }
        Err(AdapterError::new(format!(
            "{} of {}: nothing answers on port {port}: {why}",
            self.role, self.node
        )))
    }

    /// The stream itself, or TLS on it.
    async fn secured(&self, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>, AdapterError> {
        if !self.api.tls {
            return Ok(stream);
        }
        let name = self.api.server_name.as_deref().unwrap_or(&self.address);
        let outcome = match timeout(ANSWER, tls::wrap(stream, name, self.credentials.ca.as_deref())).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer to the TLS handshake".to_owned()),
        };
        outcome.map_err(|why| {
            AdapterError::new(format!("{} of {}: port {}: {why}", self.role, self.node, self.port())).help(
                "[service.api] of its recipe says which authority (`ca`) and name (`server_name`) are right",
            )
        })
    }

    /// Asks over HTTP; `body` is sent as JSON.
    pub(super) async fn http(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<HttpAnswer, AdapterError> {
        let stream = self.open().await?;
        let port = self.port();
        let said = |what: String| {
            AdapterError::new(format!(
                "{} of {}: {method} {path} on port {port}: {what}",
                self.role, self.node
            ))
        };
        let question = Question {
            method: method.clone(),
            path,
            host: format!("{}:{port}", self.address),
            authorization: self.credentials.authorization(),
            json: body,
            want: Want::Whole(MAX_ANSWER),
        };
        match timeout(ANSWER, question.ask(stream)).await {
            Ok(outcome) => outcome.map_err(said),
            Err(_) => Err(said("no answer in time".to_owned())),
        }
    }

    /// Sends a text and reads what comes back until the service closes, as ZooKeeper's four-letter words have it.
    pub(super) async fn word(&self, word: &str) -> Result<String, AdapterError> {
        let mut stream = self.open().await?;
        let work = async {
            stream.write_all(word.as_bytes()).await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            stream.take(MAX_ANSWER as u64).read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        let said = |what: String| {
            AdapterError::new(format!(
                "{} of {}: `{word}` on port {}: {what}",
                self.role,
                self.node,
                self.port()
            ))
        };
        match timeout(ANSWER, work).await {
            Ok(outcome) => outcome.map_err(|error| said(error.to_string())),
            Err(_) => Err(said("no answer in time".to_owned())),
        }
    }
}
