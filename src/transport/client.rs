//! One SSH session: the handshake with russh, and what becomes known when it ends.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, DisconnectReason, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::{Preferred, cipher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::Reason;
use super::host_key::HostKeys;
use super::route::Hop;
use super::stall::Stall;

/// What the server may send ahead of us on one channel. 16 MiB fill a link of 1 Gbit/s at 100 ms.
const WINDOW: u32 = 16 << 20;

/// OpenSSH takes and makes no larger packets than this.
const PACKET: u32 = 32 << 10;

/// AES-GCM runs in hardware: 500 to 660 MB/s against 365 for russh's first choice, `ChaCha20`.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Hears from russh what happens to a session.
pub(super) struct Client {
    host_keys: HostKeys,
    refusal: Arc<Mutex<Option<Reason>>>,
    ended: watch::Sender<Option<Arc<str>>>,
}

/// Tells when a session has ended, and why.
#[derive(Clone, Debug)]
pub(super) struct Ended(watch::Receiver<Option<Arc<str>>>);

impl Ended {
    /// Waits for the end.
    pub(super) async fn wait(&self) -> Arc<str> {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_else(unsaid),
            Err(_) => unsaid(),
        }
    }

    /// Why it has ended, a moment later at the latest: russh closes channels before it says why.
    pub(super) async fn why(&self) -> Arc<str> {
        timeout(Duration::from_secs(1), self.wait()).await.unwrap_or_else(|_| unsaid())
    }
}

fn unsaid() -> Arc<str> {
    "the server closed it".into()
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        match self.host_keys.check(shown) {
            Ok(()) => Ok(true),
            Err(reason) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                Ok(false)
            }
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.ended.send_replace(Some(format!("the server says: {}", info.message).into()));
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.ended.send_replace(Some(describe(&error).into()));
                Err(error)
            }
        }
    }
}

fn describe(error: &russh::Error) -> String {
    match error {
        russh::Error::KeepaliveTimeout => "the server no longer answers".to_owned(),
        russh::Error::HUP | russh::Error::Disconnect => "the server closed it".to_owned(),
        russh::Error::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the server closed it".to_owned()
        }
        other => other.to_string(),
    }
}

/// Agrees on a session over `stream` and judges the host's key. Nobody is logged in yet.
pub(super) async fn handshake<S>(stream: S, hop: &Hop) -> Result<(Handle<Client>, Ended), Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host_keys = HostKeys::new(hop.clone())?;
    let config = Arc::new(config(hop, &host_keys));
    let refusal = Arc::new(Mutex::new(None));
    let (ended, receiver) = watch::channel(None);
    let client = Client { host_keys, refusal: refusal.clone(), ended };
    let attempts = u32::try_from(hop.keepalive_max).unwrap_or(u32::MAX).saturating_add(1);
    let stream = Stall::new(stream, hop.keepalive.map(|interval| interval.saturating_mul(attempts)));
    let agreed = timeout(hop.connect_timeout, client::connect_stream(config, stream, client)).await;
    if let Some(reason) = refusal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(reason);
    }
    match agreed {
        Ok(Ok(handle)) => Ok((handle, Ended(receiver))),
        Ok(Err(source)) => Err(Reason::Handshake { source }),
        Err(_) => Err(Reason::Timeout { doing: "the SSH handshake", after: hop.connect_timeout }),
    }
}

fn config(hop: &Hop, host_keys: &HostKeys) -> client::Config {
    client::Config {
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        preferred: Preferred {
            key: Cow::Owned(host_keys.preference()),
            host_key_certificates: Cow::Owned(host_keys.certificates()),
            cipher: Cow::Borrowed(CIPHERS),
            ..Preferred::DEFAULT
        },
        keepalive_interval: hop.keepalive,
        keepalive_max: hop.keepalive_max,
        nodelay: true,
        ..client::Config::default()
    }
}
