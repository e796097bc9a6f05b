//! Whether a host is the one it says it is: the key it shows against the records.
//!
//! # Invariants
//!
//! * Nothing is sent to a host (no user name, no signature) before its key was judged.
//! * The algorithms of keys on record are asked for first, so that a host that has an Ed25519 key on record
//!   is not refused for the ECDSA key that it might show otherwise.
//! * A certificate counts only if an authority on record for the host signed it, as a host certificate, for
//!   this name, for now, with no critical option (none is defined for hosts).

use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::error::Reason;
use super::known_hosts::{self, Entry, KnownHosts, Verdict, fingerprint};
use super::route::Hop;

/// Judges the keys that one host shows.
#[derive(Debug)]
pub(super) struct HostKeys {
    hop: Hop,
    known: KnownHosts,
    /// What was accepted: a new exchange of keys shows the same again.
    accepted: Option<PublicKey>,
}

impl HostKeys {
    /// Reads the records that count for `hop`.
    pub(super) fn new(hop: Hop) -> Result<Self, Reason> {
        let known =
            KnownHosts::read(&hop.known_hosts).map_err(|(file, source)| Reason::File { file, source })?;
        Ok(Self { hop, known, accepted: None })
    }

    /// The algorithms to offer, those on record first.
    pub(super) fn preference(&self) -> Vec<Algorithm> {
        let on_record = self.known.algorithms(&self.hop.record, self.hop.port);
        // RSA keys are on record without a hash; both hashes of SHA-2 are meant.
        let is_on_record = |offered: &Algorithm| {
            on_record.iter().any(|known| match (known, offered) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (known, offered) => known == offered,
            })
        };
        let (mut first, rest): (Vec<_>, Vec<_>) = offered().into_iter().partition(is_on_record);
        first.extend(rest);
        first
    }

    /// The certificate algorithms to offer: none without an authority on record.
    pub(super) fn certificates(&self) -> Vec<Algorithm> {
        let has_authority = self.known.authorities(&self.hop.record, self.hop.port).next().is_some();
        if has_authority { offered() } else { Vec::new() }
    }

    /// Accepts or refuses what the host shows; records a new key where that was asked for.
    pub(super) fn check(&mut self, shown: &PublicKeyOrCertificate) -> Result<(), Reason> {
        let key = shown.public_key();
        if self.accepted.as_ref().is_some_and(|accepted| accepted.key_data() == key.key_data()) {
            return Ok(());
        }
        match shown.certificate() {
            Some(certificate) => self.check_certificate(certificate, &key)?,
            None => self.check_key(&key)?,
        }
        self.accepted = Some(key);
        Ok(())
    }

    fn check_key(&self, key: &PublicKey) -> Result<(), Reason> {
        let Hop { record, port, .. } = &self.hop;
        match self.known.check(record, *port, key) {
            Verdict::Unknown(others) if others.is_empty() && self.hop.accept_new => self.record(key),
            verdict => self.judge(verdict, key),
        }
    }

    fn record(&self, key: &PublicKey) -> Result<(), Reason> {
        let Hop { record, port, hash_known_hosts, .. } = &self.hop;
        let Some(file) = self.hop.known_hosts.first() else { return Ok(()) };
        let verdict = known_hosts::record(file, record, *port, key, *hash_known_hosts)
            .map_err(|source| Reason::Record { file: file.clone(), source })?;
        self.judge(verdict, key)
    }

    fn judge(&self, verdict: Verdict, key: &PublicKey) -> Result<(), Reason> {
        match verdict {
            Verdict::Known => Ok(()),
            Verdict::Changed(entry) => Err(Reason::HostKeyChanged {
                algorithm: key.algorithm().to_string(),
                expected: fingerprint(&entry.key),
                found: fingerprint(key),
                file: entry.file.to_path_buf(),
                line: entry.line,
            }),
            Verdict::Revoked(entry) => Err(revoked(&entry, key)),
            Verdict::Unknown(others) => Err(Reason::HostKeyUnknown {
                algorithm: key.algorithm().to_string(),
                fingerprint: fingerprint(key),
                entry: known_hosts::line(&self.hop.record, self.hop.port, key),
                file: self.hop.known_hosts.first().cloned().unwrap_or_else(|| "known_hosts".into()),
                others: others.iter().map(Entry::describe).collect(),
            }),
        }
    }

    fn check_certificate(&self, certificate: &Certificate, key: &PublicKey) -> Result<(), Reason> {
        let Hop { record, port, .. } = &self.hop;
        let authority = PublicKey::from(certificate.signature_key().clone());
        for revocable in [key, &authority] {
            if let Some(entry) = self.known.revoked(record, *port, revocable) {
                return Err(revoked(entry, revocable));
            }
        }
        let no = |what: String| Err(Reason::HostCertificate(what));
        let trusted: Vec<_> =
            self.known.authorities(record, *port).map(|key| key.fingerprint(HashAlg::Sha256)).collect();
        if !trusted.contains(&authority.fingerprint(HashAlg::Sha256)) {
            return no(format!("{} signed it, which is no authority on record", fingerprint(&authority)));
        }
        if certificate.cert_type() != CertType::Host {
            return no("it is a user's".to_owned());
        }
        let principals = certificate.valid_principals();
        if !principals.iter().any(|name| name.eq_ignore_ascii_case(record)) {
            return no(format!("it is for {}, not for {record}", principals.join(", ")));
        }
        if !certificate.critical_options().is_empty() {
            return no("it has a critical option".to_owned());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        certificate
            .validate_at(now, &trusted)
            .or_else(|_| no("it is not valid now, or its signature is wrong".to_owned()))
    }
}

fn revoked(entry: &Entry, key: &PublicKey) -> Reason {
    Reason::HostKeyRevoked { fingerprint: fingerprint(key), file: entry.file.to_path_buf(), line: entry.line }
}

/// The algorithms that windlass takes from a host, the best first; SHA-1 is not among them.
fn offered() -> Vec<Algorithm> {
    vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}
