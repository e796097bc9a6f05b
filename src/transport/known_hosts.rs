//! `known_hosts`: which key a host had before.
//!
//! The format is that of sshd(8): plain and hashed names, `[host]:port`, wildcards, `!`, `@revoked` and
//! `@cert-authority`. Lines that cannot be read are skipped, as OpenSSH does: an old DSA key must not keep
//! anybody from the rest.
//!
//! # Invariants
//!
//! * A revoked key is refused whatever else the files say.
//! * A host that has a key of some algorithm on record and shows another of that algorithm has changed.
//! * A host that has only keys of other algorithms on record is unknown, and is never accepted as new.
//! * Recording appends one line, under the file's lock, and only where no other process did so meanwhile.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::Arc;

use aws_lc_rs::hmac;
use camino::{Utf8Path, Utf8PathBuf};
use data_encoding::BASE64;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::pattern;

/// The records of some files.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    entries: Vec<Entry>,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) file: Arc<Utf8Path>,
    pub(super) line: usize,
    marker: Marker,
    hosts: String,
    pub(super) key: PublicKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    CertAuthority,
}

/// What the records say about a key.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is on record for this host.
    Known,
    /// The host is not on record with this algorithm; the entries that it has with others.
    Unknown(Vec<Entry>),
    /// The host is on record with this other key.
    Changed(Entry),
    /// The key is marked as revoked.
    Revoked(Entry),
}

impl KnownHosts {
    /// Reads `files`; those that do not exist have no records.
    pub(super) fn read(files: &[Utf8PathBuf]) -> Result<Self, (Utf8PathBuf, io::Error)> {
        let mut known = Self::default();
        for file in files {
            match fs::read(file) {
                Ok(bytes) => known.parse(&String::from_utf8_lossy(&bytes), &file.as_path().into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((file.clone(), error)),
            }
        }
        Ok(known)
    }

    fn parse(&mut self, text: &str, file: &Arc<Utf8Path>) {
        let entries = text.lines().enumerate().filter_map(|(at, line)| entry(line, at + 1, file));
        self.entries.extend(entries);
    }

    /// What the records say about `key` as the key of `host` at `port`.
    pub(super) fn check(&self, host: &str, port: u16, key: &PublicKey) -> Verdict {
        let name = record_name(host, port);
        let verdict = self.check_name(&name, key);
        // A record without port holds for every port, but only where it says yes: as OpenSSH has it.
        if matches!(verdict, Verdict::Unknown(_))
            && port != 22
            && matches!(self.check_name(host, key), Verdict::Known)
        {
            return Verdict::Known;
        }
        verdict
    }

    fn check_name(&self, name: &str, key: &PublicKey) -> Verdict {
        let (mut known, mut changed, mut others) = (false, None, Vec::new());
        for entry in self.entries.iter().filter(|entry| entry.is_for(name)) {
            let same = entry.key.key_data() == key.key_data();
            match entry.marker {
                Marker::Revoked if same => return Verdict::Revoked(entry.clone()),
                Marker::Revoked | Marker::CertAuthority => {}
                Marker::None if same => known = true,
                Marker::None if entry.key.algorithm() == key.algorithm() => {
                    changed.get_or_insert(entry);
                }
                Marker::None => others.push(entry.clone()),
            }
        }
        match changed {
            _ if known => Verdict::Known,
            Some(entry) => Verdict::Changed(entry.clone()),
            None => Verdict::Unknown(others),
        }
    }

    /// The certificate authorities on record for `host` at `port`.
    pub(super) fn authorities(&self, host: &str, port: u16) -> impl Iterator<Item = &PublicKey> {
        let (name, bare) = (record_name(host, port), host.to_owned());
        self.entries
            .iter()
            .filter(|entry| entry.marker == Marker::CertAuthority)
            .filter(move |entry| entry.is_for(&name) || entry.is_for(&bare))
            .map(|entry| &entry.key)
    }

    /// The entry that revokes `key` for `host` at `port`.
    pub(super) fn revoked(&self, host: &str, port: u16, key: &PublicKey) -> Option<&Entry> {
        let name = record_name(host, port);
        self.entries.iter().find(|entry| {
            entry.marker == Marker::Revoked
                && entry.key.key_data() == key.key_data()
                && (entry.is_for(&name) || entry.is_for(host))
        })
    }

    /// The algorithms of the keys on record for `host` at `port`: the ones to ask the host for first.
    pub(super) fn algorithms(&self, host: &str, port: u16) -> Vec<Algorithm> {
        let name = record_name(host, port);
        let on_record = |name: &str| -> Vec<Algorithm> {
            self.entries
                .iter()
                .filter(|entry| entry.marker == Marker::None && entry.is_for(name))
                .map(|entry| entry.key.algorithm())
                .collect()
        };
        let found = on_record(&name);
        if found.is_empty() { on_record(host) } else { found }
    }
}

impl Entry {
    fn is_for(&self, name: &str) -> bool {
        if let Some(hashed) = self.hosts.strip_prefix("|1|") {
            return hashed_matches(hashed, name);
        }
        pattern::any(self.hosts.split(','), &name.to_ascii_lowercase())
    }

    /// Where it is and what it has, for an error.
    pub(super) fn describe(&self) -> String {
        format!("{} at {}:{}", self.key.algorithm(), self.file, self.line)
    }
}

fn entry(line: &str, number: usize, file: &Arc<Utf8Path>) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace().peekable();
    let marker = match *fields.peek()? {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::CertAuthority,
        other if other.starts_with(['#', '@']) => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        fields.next();
    }
    let hosts = fields.next()?;
    let hosts = if hosts.starts_with('|') { hosts.to_owned() } else { hosts.to_ascii_lowercase() };
    let key = PublicKey::from_openssh(&format!("{} {}", fields.next()?, fields.next()?)).ok()?;
    Some(Entry { file: file.clone(), line: number, marker, hosts, key })
}

fn hashed_matches(hashed: &str, name: &str) -> bool {
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    let (Ok(salt), Ok(hash)) = (BASE64.decode(salt.as_bytes()), BASE64.decode(hash.as_bytes())) else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    hmac::verify(&key, name.to_ascii_lowercase().as_bytes(), &hash).is_ok()
}

/// A host's name as the files have it.
pub(super) fn record_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

fn hashed_name(name: &str) -> io::Result<String> {
    let mut salt = [0; 20];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("no random bytes"))?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    let hash = hmac::sign(&key, name.as_bytes());
    Ok(format!("|1|{}|{}", BASE64.encode(&salt), BASE64.encode(hash.as_ref())))
}

/// The line that makes `key` known for `host` at `port`.
pub(super) fn line(host: &str, port: u16, key: &PublicKey) -> String {
    let mut bare = key.clone();
    bare.set_comment("");
    let text = bare.to_openssh().unwrap_or_else(|_| fingerprint(&bare));
    format!("{} {}", record_name(host, port), text.trim_end())
}

/// `SHA256:...`, as every OpenSSH tool shows it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Appends the record of `key` to `file`; says what the file has got meanwhile where that differs.
pub(super) fn record(
    file: &Utf8Path,
    host: &str,
    port: u16,
    key: &PublicKey,
    hashed: bool,
) -> io::Result<Verdict> {
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut open: File = File::options().read(true).append(true).create(true).mode(0o600).open(file)?;
    rustix::fs::flock(&open, rustix::fs::FlockOperation::LockExclusive)?;
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut known = KnownHosts::default();
    known.parse(&text, &file.into());
    let now = known.check(host, port, key);
    if !matches!(&now, Verdict::Unknown(others) if others.is_empty()) {
        return Ok(now);
    }
    let mut added = line(host, port, key);
    if hashed && let Some((name, rest)) = added.split_once(' ') {
        added = format!("{} {rest}", hashed_name(name)?);
    }
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    open.write_all(format!("{gap}{added}\n").as_bytes())?;
    // `/dev/null`, as some have it, cannot be synced.
    if open.metadata()?.is_file() {
        open.sync_data()?;
    }
    Ok(Verdict::Known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    const ED2: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G2sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn known(text: &str) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.parse(text, &Utf8Path::new("known_hosts").into());
        known
    }

    #[test]
    fn names_ports_patterns_and_hashes() {
        let text =
            format!("# comment\nes1,10.0.0.* {ED} c\n[es1]:2222 {ED2}\nold ssh-dss AAAA\n!es3,es* {ED}\n");
        let hosts = known(&text);
        assert!(matches!(hosts.check("ES1", 22, &key(ED)), Verdict::Known));
        assert!(matches!(hosts.check("10.0.0.7", 22, &key(ED)), Verdict::Known));
        assert!(matches!(hosts.check("es1", 2222, &key(ED2)), Verdict::Known));
        assert!(matches!(hosts.check("es1", 2222, &key(ED)), Verdict::Changed(entry) if entry.line == 3));
        assert!(matches!(hosts.check("es2", 2222, &key(ED)), Verdict::Known));
        assert!(matches!(hosts.check("es3", 22, &key(ED)), Verdict::Unknown(_)));
        let hashed = known(&format!("{} {ED}\n", hashed_name("[es1]:2222").unwrap()));
        assert!(matches!(hashed.check("es1", 2222, &key(ED)), Verdict::Known));
        assert!(matches!(hashed.check("es1", 22, &key(ED)), Verdict::Unknown(_)));
        // From `ssh-keygen -H`.
        let real = known(&format!("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= {ED}"));
        assert_eq!(real.entries.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(hosts in "(\\|1\\|)?[\\PC]*", host in "\\PC*", port: u16) {
            let verdict = known(&format!("{hosts} {ED}\n{hosts}")).check(&host, port, &key(ED2));
            proptest::prop_assert!(!matches!(verdict, Verdict::Known | Verdict::Revoked(_)));
        }
    }

    #[test]
    fn revoked_wins() {
        let hosts = known(&format!("es1 {ED}\n@revoked * {ED}\n@cert-authority *.net {ED2}\n"));
        assert!(matches!(hosts.check("es1", 22, &key(ED)), Verdict::Revoked(entry) if entry.line == 2));
        assert!(matches!(hosts.check("a.net", 22, &key(ED2)), Verdict::Unknown(_)));
        assert_eq!(hosts.authorities("a.net", 22).count(), 1);
    }

    #[test]
    fn recording_appends_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(folder.path()).unwrap().join(".ssh/known_hosts");
        for hashed in [false, true] {
            record(&file, "es1", 22, &key(ED), hashed).unwrap();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("es1 {ED}\n"));
        assert!(matches!(record(&file, "es1", 22, &key(ED2), false).unwrap(), Verdict::Changed(_)));
        record(&file, "es2", 2200, &key(ED), true).unwrap();
        let all = KnownHosts::read(std::slice::from_ref(&file)).unwrap();
        assert!(matches!(all.check("es2", 2200, &key(ED)), Verdict::Known));
    }
}
