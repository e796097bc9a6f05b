//! Gates, asked once: the process, then http, tcp or a command, through the node's own connection.
//!
//! # Invariants
//!
//! * Only the release that is asked about can pass: an answer of another one's process does not count.
//! * An address is resolved on the node, where the service listens, and 127.0.0.1 is asked after it.

use std::time::Duration;

use tokio::time::timeout;

use super::error::node_error;
use super::fleet::Member;
use super::services::Services;
use crate::adapters::{Question, Want, hosts};
use crate::agent::supervise::ProcessState;
use crate::agent::{NodeStatus, Probed, ReleaseName, Request};
use crate::model::{Role, Span};
use crate::recipe::{Probe, Ready};
use crate::rollout::{At, Held, NodeError};

/// How long one address may take to answer.
const ANSWER: Duration = Duration::from_secs(4);

/// The most that is read of an answer.
const MOST: usize = 1 << 20;

/// Whether the service of `release` is ready, asked once.
pub async fn probe(
    member: &Member,
    services: &Services<'_>,
    role: &Role,
    release: &ReleaseName,
    ready: Option<&Ready>,
) -> Result<Held, NodeError> {
    let request = Request::Status { role: Some(role.clone()) };
    let status: NodeStatus = member.call(request).await.map_err(|error| node_error(&error))?;
    services.heard(&member.node.name, &status);
    if let Some(held) = process(&status, role, release) {
        return Ok(held);
    }
    let held = match ready {
        Some(ready) => asked(member, role, ready).await?,
        None => Held::Yes,
    };
    if held != Held::Yes {
        return Ok(held);
    }
    services.ready(&At { node: member.node.name.clone(), role: role.clone() }).await
}

/// Whether the recipe's own gate holds.
async fn asked(member: &Member, role: &Role, ready: &Ready) -> Result<Held, NodeError> {
    match &ready.probe {
        Probe::Http { port, path, status, body } => match (port.value(), status.value()) {
            (Some(port), Some(status)) => Ok(http(member, *port, path, *status, body.as_deref()).await),
            _ => Ok(Held::Never("[service.ready] http has no number for its port or status".to_owned())),
        },
        Probe::Tcp(port) => match port.value() {
            Some(port) => Ok(tcp(member, *port).await),
            None => Ok(Held::Never("[service.ready] tcp has no number".to_owned())),
        },
        Probe::Command(words) => command(member, role, words).await,
    }
}

/// What the process says; `None` if it lives and is of that release.
fn process(status: &NodeStatus, role: &Role, release: &ReleaseName) -> Option<Held> {
    let Some(found) = status.roles.iter().find(|one| one.role == *role) else {
        return Some(Held::Never(format!("role {role} is not there any more")));
    };
    if found.release.as_ref() != Some(release) {
        let current = found.release.as_ref().map_or_else(|| "no release".to_owned(), ToString::to_string);
        return Some(Held::Never(format!("{current} is current: the node went back by itself")));
    }
    if found.kind.is_none() {
        // It has no service, so that nothing can be asked.
        return Some(Held::Yes);
    }
    match (found.process, &found.runs) {
        (ProcessState::Running, Some(runs)) if runs == release => None,
        (ProcessState::Running, Some(runs)) => Some(Held::NotYet(format!("{runs} still runs"))),
        (ProcessState::Running, None) => None,
        (ProcessState::Failed, _) => Some(Held::Never(match &found.said {
            Some(said) => format!("the service ended by itself: {said}"),
            None => {
                format!(
                    "the service ended by itself; what it said is on the node in roles/{role}/shared/logs/"
                )
            }
        })),
        (ProcessState::Stopped, _) => Some(Held::NotYet("the service is stopped".to_owned())),
        (ProcessState::Unknown, _) => {
            Some(Held::NotYet("the node does not say whether the service runs".to_owned()))
        }
    }
}

async fn tcp(member: &Member, port: u16) -> Held {
    for host in hosts(&member.node.address) {
        let opened = timeout(ANSWER, member.remote.connection().forward(host, port)).await;
        if matches!(opened, Ok(Ok(_))) {
            return Held::Yes;
        }
    }
    Held::NotYet(format!("nothing listens on port {port}"))
}

async fn http(member: &Member, port: u16, path: &str, wanted: u16, text: Option<&str>) -> Held {
    let mut why = format!("nothing listens on port {port}");
    for host in hosts(&member.node.address) {
        match timeout(ANSWER, get(member, host, port, path, text.is_some())).await {
            Ok(Ok(Some((status, body)))) if status == wanted => {
                let has = |text: &str| contains(&body, text.as_bytes());
                if text.is_none_or(has) {
                    return Held::Yes;
                }
                // The text may be a secret, and what was answered instead anything.
                why = format!(
                    "http://{host}:{port}{path} answers {status} without the text that [service.ready] wants: \
                     what ran before still answers, or something else does"
                );
                break;
            }
            Ok(Ok(Some((status, _)))) => {
                why = format!("http://{host}:{port}{path} answers {status}, not {wanted}");
                // Somebody answered: another address would be another service.
                break;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => why = format!("http://{host}:{port}{path} gives no answer: {error}"),
            Err(_) => {
                why = format!("http://{host}:{port}{path} gives no answer within {}", Span(ANSWER));
            }
        }
    }
    Held::NotYet(why)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The status of the answer and, if wanted, its first bytes; `None` if nobody listens.
async fn get(
    member: &Member,
    host: &str,
    port: u16,
    path: &str,
    wanted: bool,
) -> Result<Option<(u16, Vec<u8>)>, String> {
    let Ok(tunnel) = member.remote.connection().forward(host, port).await else { return Ok(None) };
    let want = Want::Start(if wanted { MOST } else { 0 });
    let question = Question::get(path, format!("{host}:{port}"), want);
    let answer = question.ask(tunnel).await?;
    Ok(Some((answer.status, answer.body)))
}

async fn command(member: &Member, role: &Role, words: &[String]) -> Result<Held, NodeError> {
    let request = Request::Probe { role: role.clone(), within: None };
    let probed: Probed = member.call(request).await.map_err(|error| node_error(&error))?;
    // Arguments may hold secrets; the program's name does not.
    let program = words.first().map_or("the command", String::as_str);
    Ok(match (probed.ready, probed.exit) {
        (true, _) => Held::Yes,
        (false, Some(exit)) => Held::NotYet(format!("`{program}` exits with {exit}")),
        (false, None) => Held::NotYet(format!("`{program}` does not end within 10s")),
    })
}
