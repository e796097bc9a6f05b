//! Identities: keys that prove who we are, from files and from an agent.
//!
//! # Invariants
//!
//! * A key file is decrypted only once a server has said that it would take the key, so a passphrase is asked
//!   for where it is needed, and once for each file in a run.
//! * RSA signatures are made by aws-lc. The `rsa` crate, which russh uses, has an open advisory about the
//!   timing of its private operations (RUSTSEC-2023-0071); here it only reads keys and checks signatures.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use data_encoding::BASE64;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey, decode_secret_key, encode_pkcs8_pem};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::Ask;
use super::error::Reason;
use super::known_hosts::fingerprint;

/// The decrypted keys of a run, by path.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    // Held while a person types: two connections must not ask at once, nor for the same file twice.
    open: Mutex<HashMap<Utf8PathBuf, Arc<PrivateKey>>>,
    ask: Ask,
    /// Signatures under way: a person may be typing, or be asked by the agent to touch a token.
    signing: AtomicUsize,
}

/// A key that may be tried.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) public: PublicKey,
    pub(super) holder: Holder,
}

/// Who has the private half.
#[derive(Debug)]
pub(super) enum Holder {
    /// The agent.
    Agent,
    /// A file, decrypted when it is needed.
    File(Utf8PathBuf),
}

impl Identity {
    /// For an error: where it is and its fingerprint.
    pub(super) fn describe(&self) -> String {
        let place = match &self.holder {
            Holder::Agent => format!("the agent's `{}`", self.public.comment()),
            Holder::File(path) => path.to_string(),
        };
        format!("{place} ({})", fingerprint(&self.public))
    }
}

impl Keyring {
    pub(super) fn new(ask: Ask) -> Self {
        Self { open: Mutex::default(), ask, signing: AtomicUsize::new(0) }
    }

    /// Whether a signature is under way, which may take as long as a person takes.
    pub(super) fn is_signing(&self) -> bool {
        self.signing.load(Ordering::Relaxed) > 0
    }

    /// The identity in `path`; `None` where there is no such file.
    pub(super) async fn find(&self, path: &Utf8Path) -> Result<Option<Identity>, Reason> {
        let Some(text) = read(path)? else { return Ok(None) };
        let public = match public_half(&text, path) {
            Some(public) => public,
            // An old encrypted format without a public half anywhere: only the passphrase tells.
            None => self.private(path).await?.public_key().clone(),
        };
        Ok(Some(Identity { public, holder: Holder::File(path.to_owned()) }))
    }

    /// The private key in `path`; asks for its passphrase where it has one.
    async fn private(&self, path: &Utf8Path) -> Result<Arc<PrivateKey>, Reason> {
        let mut open = self.open.lock().await;
        if let Some(key) = open.get(path) {
            return Ok(key.clone());
        }
        let unusable = |what: String| Reason::Identity { file: path.to_owned(), what };
        let text = read(path)?.ok_or_else(|| unusable("it is gone".to_owned()))?;
        let key = match decode_secret_key(&text, None) {
            Ok(key) => key,
            Err(error) if !is_encrypted(&text, &error) => return Err(unusable(error.to_string())),
            Err(_) => {
                let (ask, asked) = (self.ask.clone(), path.to_owned());
                let answer = tokio::task::spawn_blocking(move || ask.passphrase(&asked)).await;
                let answer = answer.map_err(io::Error::other).and_then(|answer| answer);
                let passphrase = answer
                    .map_err(|error| unusable(error.to_string()))?
                    .ok_or_else(|| Reason::NeedsPassphrase { file: path.to_owned() })?;
                decode_secret_key(&text, Some(&passphrase))
                    .map_err(|_| unusable("the passphrase is wrong, or the file is damaged".to_owned()))?
            }
        };
        let key = Arc::new(key);
        open.insert(path.to_owned(), key.clone());
        Ok(key)
    }
}

/// Where an old PEM says that it is encrypted, its reader says only that it makes no sense.
fn is_encrypted(text: &str, error: &russh::keys::Error) -> bool {
    matches!(error, russh::keys::Error::KeyIsEncrypted) || text.contains("ENCRYPTED")
}

fn read(path: &Utf8Path) -> Result<Option<String>, Reason> {
    let fail = |source| Reason::File { file: path.to_owned(), source };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if metadata.mode() & 0o077 != 0 && metadata.uid() == rustix::process::getuid().as_raw() {
        let what = format!("others may read it (mode {:o}); chmod 600 it", metadata.mode() & 0o777);
        return Err(Reason::Identity { file: path.to_owned(), what });
    }
    std::fs::read_to_string(path).map(Some).map_err(fail)
}

/// The public key of a key file, as far as it can be had without a passphrase.
fn public_half(text: &str, path: &Utf8Path) -> Option<PublicKey> {
    if let Ok(key) = PrivateKey::from_openssh(text) {
        return Some(key.public_key().clone());
    }
    if let Ok(key) = decode_secret_key(text, None) {
        return Some(key.public_key().clone());
    }
    let beside = std::fs::read_to_string(format!("{path}.pub")).ok()?;
    PublicKey::from_openssh(&beside).ok()
}

/// An agent that answered.
pub(super) struct Agent {
    client: AgentClient<UnixStream>,
}

impl Agent {
    /// Asks the agent behind `socket` for its identities. Certificates are left out.
    pub(super) async fn open(socket: &Utf8Path) -> Result<(Self, Vec<PublicKey>), russh::keys::Error> {
        let mut client = AgentClient::connect_uds(socket).await?;
        let keys = client.request_identities().await?;
        let keys = keys.into_iter().filter_map(|identity| match identity {
            AgentIdentity::PublicKey { mut key, comment } => {
                key.set_comment(comment);
                Some(key)
            }
            AgentIdentity::Certificate { .. } => None,
        });
        Ok((Self { client }, keys.collect()))
    }
}

/// Signs what a server wants signed, with whatever holds the key that the server took.
pub(super) struct Signer<'a> {
    pub(super) keyring: &'a Keyring,
    pub(super) agent: Option<&'a mut Agent>,
    pub(super) holder: &'a Holder,
}

/// Why nothing was signed.
#[derive(Debug)]
pub(super) enum SignError {
    /// The session is gone.
    Session,
    /// The key is of no use.
    Key(Reason),
    /// The agent would not.
    Agent(russh::keys::Error),
}

impl From<russh::SendError> for SignError {
    fn from(_: russh::SendError) -> Self {
        Self::Session
    }
}

impl russh::Signer for Signer<'_> {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        self.keyring.signing.fetch_add(1, Ordering::Relaxed);
        let signed = self.sign(identity, hash, data).await;
        self.keyring.signing.fetch_sub(1, Ordering::Relaxed);
        signed
    }
}

impl Signer<'_> {
    async fn sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        match (self.holder, &mut self.agent) {
            (Holder::Agent, Some(agent)) => {
                agent.client.sign_request(identity, hash, data).await.map_err(SignError::Agent)
            }
            (Holder::Agent, None) => Err(SignError::Session),
            (Holder::File(path), _) => {
                let key = self.keyring.private(path).await.map_err(SignError::Key)?;
                let unusable = |what| SignError::Key(Reason::Identity { file: path.clone(), what });
                let signature = signature(&key, hash, &data).map_err(unusable)?;
                signature.encode(&mut data).map_err(|error| unusable(error.to_string()))?;
                Ok(data)
            }
        }
    }
}

/// The signature as the protocol has it: the algorithm's name and the raw signature.
fn signature(key: &PrivateKey, hash: Option<HashAlg>, data: &[u8]) -> Result<Vec<u8>, String> {
    let (name, raw) = if matches!(key.algorithm(), Algorithm::Rsa { .. }) {
        rsa_signature(key, hash, data)?
    } else {
        let made = key.try_sign(data).map_err(|error| error.to_string())?;
        (made.algorithm().to_string(), made.as_bytes().to_vec())
    };
    let mut out = Vec::new();
    name.encode(&mut out).and_then(|()| raw.encode(&mut out)).map_err(|error| error.to_string())?;
    Ok(out)
}

fn rsa_signature(key: &PrivateKey, hash: Option<HashAlg>, data: &[u8]) -> Result<(String, Vec<u8>), String> {
    use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair};
    let (name, padding) = match hash {
        Some(HashAlg::Sha256) => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
        Some(_) => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
        None => return Err("the server wants SHA-1 signatures, which are broken".to_owned()),
    };
    let mut pem = Vec::new();
    encode_pkcs8_pem(key, &mut pem).map_err(|error| error.to_string())?;
    let lines = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let body = lines.filter(|line| !line.starts_with(b"-")).collect::<Vec<_>>().concat();
    let der = BASE64.decode(&body).map_err(|error| error.to_string())?;
    let pair = RsaKeyPair::from_pkcs8(&der).map_err(|error| error.to_string())?;
    let mut raw = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &aws_lc_rs::rand::SystemRandom::new(), data, &mut raw)
        .map_err(|_| "the key does not sign".to_owned())?;
    Ok((name.to_owned(), raw))
}
