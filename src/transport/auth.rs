//! Being let in: which identities are tried, in which order.
//!
//! As in OpenSSH: identities of the agent that are also named as files, then the agent's others, then the
//! remaining files. With `identity` in cluster.toml or `IdentitiesOnly`, only the files named count (the
//! agent still signs for those it holds). Servers close the door after a few failures, so nothing is tried twice.
//!
//! # Not here
//!
//! No passwords, no keyboard-interactive, no user certificates: windlass runs unattended.

use std::pin::pin;
use std::time::Duration;

use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::{MethodKind, client};
use tokio::time::timeout;

use super::client::Client;
use super::error::Reason;
use super::identity::{Agent, Holder, Identity, Keyring, SignError, Signer};
use super::route::Hop;

/// The identities to try, and what was found wrong with others.
struct Candidates {
    agent: Option<Agent>,
    identities: Vec<Identity>,
    unusable: Vec<Reason>,
    notes: Vec<String>,
}

async fn candidates(hop: &Hop, keyring: &Keyring) -> Candidates {
    let mut found =
        Candidates { agent: None, identities: Vec::new(), unusable: Vec::new(), notes: Vec::new() };
    let mut held: Vec<PublicKey> = Vec::new();
    if let Some(socket) = &hop.agent {
        match Agent::open(socket).await {
            Ok((agent, keys)) => {
                found.agent = Some(agent);
                held = keys;
            }
            Err(error) => found.notes.push(format!("the agent at {socket}: {error}")),
        }
    }
    let mut files = Vec::new();
    for path in &hop.identities {
        match keyring.find(path).await {
            Ok(Some(identity)) => files.push(identity),
            Ok(None) => found.notes.push(format!("{path}: there is no such file")),
            Err(reason) => found.unusable.push(reason),
        }
    }
    let (named, others): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|key| files.iter().any(|file| file.public.key_data() == key.key_data()));
    files.retain(|file| !named.iter().any(|key| key.key_data() == file.public.key_data()));
    let others = if hop.identities_only { Vec::new() } else { others };
    let of_agent = named.into_iter().chain(others);
    found.identities = of_agent.map(|public| Identity { public, holder: Holder::Agent }).collect();
    found.identities.extend(files);
    found
}

/// Tries identities until the server takes one.
pub(super) async fn authenticate(
    handle: &mut client::Handle<Client>,
    hop: &Hop,
    keyring: &Keyring,
) -> Result<(), Reason> {
    let mut found = candidates(hop, keyring).await;
    let (mut tried, mut methods) = (Vec::new(), Vec::new());
    for identity in &found.identities {
        let hash = match rsa_hash(handle, &identity.public).await {
            Ok(hash) => hash,
            Err(reason) => return Err(reason),
        };
        tried.push(identity.describe());
        let mut signer = Signer { keyring, agent: found.agent.as_mut(), holder: &identity.holder };
        let attempt =
            handle.authenticate_publickey_with(hop.user.clone(), identity.public.clone(), hash, &mut signer);
        match unless_silent(hop.connect_timeout, keyring, attempt).await? {
            Ok(client::AuthResult::Success) => return Ok(()),
            Ok(client::AuthResult::Failure { remaining_methods, .. }) => {
                methods = remaining_methods.iter().copied().map(method_name).collect();
                if handle.is_closed() {
                    break;
                }
            }
            Err(SignError::Session) => break,
            Err(SignError::Key(reason)) => found.unusable.push(reason),
            Err(SignError::Agent(error)) => {
                found.notes.push(format!("{}: the agent would not sign: {error}", identity.describe()));
            }
        }
    }
    refused(hop, found, tried, methods)
}

/// What `answer` comes to, unless the server says nothing for `limit` while nobody here is signing.
async fn unless_silent<T>(
    limit: Duration,
    keyring: &Keyring,
    answer: impl Future<Output = T>,
) -> Result<T, Reason> {
    let mut answer = pin!(answer);
    loop {
        match timeout(limit, &mut answer).await {
            Ok(answer) => return Ok(answer),
            Err(_) if keyring.is_signing() => {}
            Err(_) => return Err(Reason::Timeout { doing: "logging in", after: limit }),
        }
    }
}

/// One cause of trouble is the error itself; several are notes of a refusal.
fn refused(hop: &Hop, found: Candidates, tried: Vec<String>, methods: Vec<String>) -> Result<(), Reason> {
    let mut unusable = found.unusable;
    if let Some(at) = unusable.iter().position(|reason| matches!(reason, Reason::NeedsPassphrase { .. })) {
        return Err(unusable.swap_remove(at));
    }
    if tried.len() <= 1 && unusable.len() == 1 {
        return Err(unusable.swap_remove(0));
    }
    let mut notes: Vec<String> = unusable.iter().map(ToString::to_string).collect();
    notes.extend(found.notes);
    Err(Reason::Refused { user: hop.user.clone(), tried, unusable: notes, methods })
}

fn method_name(method: MethodKind) -> String {
    <&str>::from(&method).to_owned()
}

/// The hash that an RSA key signs with here; none for other keys.
async fn rsa_hash(handle: &client::Handle<Client>, key: &PublicKey) -> Result<Option<HashAlg>, Reason> {
    if !matches!(key.algorithm(), Algorithm::Rsa { .. }) {
        return Ok(None);
    }
    // Servers that do not say know SHA-256: those that know SHA-1 only are refused when signing.
    let said = handle.best_supported_rsa_hash().await.map_err(|source| Reason::Handshake { source })?;
    Ok(said.unwrap_or(Some(HashAlg::Sha256)))
}
