//! One HTTP exchange on an open stream: the handshake, one request, and as much of the answer as is wanted.
//!
//! # Invariants
//!
//! * An answer is read up to a limit: a service that never stops talking fills nobody's memory.
//! * No credential is part of an error.
//! * There is no clock here: whoever asks knows how long an answer may take.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;

use super::wire::{HttpAnswer, Stream};

/// A request.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The method.
    pub method: Method,
    /// The path, with what follows it.
    pub path: &'a str,
    /// What the `Host` header says: `address:port`.
    pub host: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The body.
    pub json: Option<&'a serde_json::Value>,
    /// How much of the answer is wanted.
    pub want: Want,
}

/// How much of an answer's body is wanted, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// All of it; a longer one is an error, and so is one that breaks off.
    Whole(usize),
    /// About as much of its start; a body that breaks off is as good as what came of it.
    Start(usize),
}

impl<'a> Question<'a> {
    /// Asks for `path` without a login.
    pub fn get(path: &'a str, host: String, want: Want) -> Self {
        Self { method: Method::GET, path, host, authorization: None, json: None, want }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.path)
            .header(header::HOST, &self.host)
            .header(header::CONNECTION, "close")
            .header(header::USER_AGENT, "windlass");
        if let Some(text) = &self.authorization {
            request = request.header(header::AUTHORIZATION, text);
        }
        let bytes = match self.json {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(bytes)).map_err(|_| "the request cannot be made".to_owned())
    }

    /// Asks on a stream, which is used up; an error says in one line why there is no answer.
    pub async fn ask(&self, stream: impl Stream) -> Result<HttpAnswer, String> {
        let text = |error: hyper::Error| error.to_string();
        let request = self.request()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(async {
            let response = sender.send_request(request).await.map_err(text)?;
            let status = response.status().as_u16();
            let body = match self.want {
                Want::Whole(most) => {
                    let body = Limited::new(response.into_body(), most).collect().await;
                    body.map_err(|error| error.to_string())?.to_bytes().to_vec()
                }
                Want::Start(most) => start(response.into_body(), most).await,
            };
            Ok(HttpAnswer { status, body })
        });
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    }
}

async fn start(mut body: hyper::body::Incoming, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < most
        && let Some(Ok(frame)) = body.frame().await
    {
        let Ok(data) = Frame::into_data(frame) else { break };
        bytes.extend_from_slice(&data);
    }
    bytes
}
