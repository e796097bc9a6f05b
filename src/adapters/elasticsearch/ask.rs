//! Requests to a node, with errors that say what to do.

use hyper::Method;
use serde_json::Value;

use super::super::adapter::AdapterError;
use super::super::view::Instance;
use super::super::wire::HttpAnswer;

/// Asks for JSON. Whatever is no 2xx is an error.
pub async fn get(instance: &Instance<'_>, path: &str) -> Result<Value, AdapterError> {
    let answer = send(instance, Method::GET, path, None).await?;
    accepted(instance, path, &answer)?;
    answer.json()
}

/// Asks; a refused credential is an error, any other status is for the caller.
pub(super) async fn send(
    instance: &Instance<'_>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<HttpAnswer, AdapterError> {
    let answer = instance.http(method, path, body).await?;
    match answer.status {
        401 | 403 => {
            let what = if answer.status == 401 { "does not know who asks" } else { "does not allow" };
            let message = format!("{} of {} {what}: {path}", instance.role, instance.node);
            Err(AdapterError::new(message).help(
                "give [service.api] of the recipe a `user` and `password`, or an `api_key`, with the \
                 privileges `monitor` and `manage` on the cluster",
            ))
        }
        _ => Ok(answer),
    }
}

/// An error, unless the answer is a 2xx.
pub(super) fn accepted(instance: &Instance<'_>, path: &str, answer: &HttpAnswer) -> Result<(), AdapterError> {
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let why = answer.json().ok().and_then(|body| reason(&body)).unwrap_or_default();
    let colon = if why.is_empty() { "" } else { ": " };
    let message =
        format!("{} of {} answers {path} with {}{colon}{why}", instance.role, instance.node, answer.status);
    Err(AdapterError::new(message))
}

/// Why a request failed, in the service's words, cut to a line.
fn reason(body: &Value) -> Option<String> {
    let error = &body["error"];
    let text = error["reason"].as_str().or(error["type"].as_str()).or(error.as_str())?;
    Some(text.lines().next().unwrap_or_default().chars().take(200).collect())
}
