//! One HTTP request to a service, through the node's own connection, and its JSON answer.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::fleet::Member;
use crate::adapters::{Question, Want};
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

async fn get(member: &Member, host: &str, port: u16, path: &str) -> Result<(u16, Vec<u8>), String> {
    let tunnel = member.remote.connection().forward(host, port).await;
    let tunnel = tunnel.map_err(|_| "nothing listens there".to_owned())?;
    let question = Question::get(path, format!("{host}:{port}"), Want::Whole(MAX_BODY));
    let answer = question.ask(tunnel).await?;
    Ok((answer.status, answer.body))
}
