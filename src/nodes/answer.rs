//! One HTTP request to a service, through the node's own connection, and its JSON answer.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use super::fleet::Member;
use crate::model::Span;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The most bytes of an answer; settings of ten thousand indices are well below.
const MAX_BODY: usize = 32 << 20;

/// Asks for `path`; the error says why there is no answer.
pub(super) async fn json(member: &Member, host: &str, port: u16, path: &str) -> Result<Value, String> {
    let url = format!("http://{host}:{port}{}", path.split('?').next().unwrap_or(path));
    match timeout(ANSWER, get(member, host, port, path)).await {
        Ok(Ok((200, body))) => serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}")),
        Ok(Ok((401 | 403, _))) => Err(format!("{url} asks for a login")),
        Ok(Ok((status, _))) => Err(format!("{url} answers {status}")),
        Ok(Err(error)) => Err(format!("{url}: {error}")),
        Err(_) => Err(format!("{url} gives no answer within {}", Span(ANSWER))),
    }
}

async fn get(member: &Member, host: &str, port: u16, path: &str) -> Result<(u16, Bytes), String> {
    let tunnel = member.remote.connection().forward(host, port).await;
    let tunnel = tunnel.map_err(|_| "nothing listens there".to_owned())?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(tunnel)).await.map_err(text)?;
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, format!("{host}:{port}"))
        .header(hyper::header::CONNECTION, "close")
        .header(hyper::header::USER_AGENT, "windlass")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    let mut answer = std::pin::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}
