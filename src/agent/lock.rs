//! The node's lock: one rollout at a time, and who it is.
//!
//! `flock` on `<root>/lock`, held by a process on the holder's connection (`windlass node lock`), so that the
//! kernel lets go when the connection goes: it cannot go stale and needs no command to undo it. An operation
//! of that rollout brings the token that the lock was given with; one that brings none takes the lock itself.
//!
//! # Invariants
//!
//! * A token is larger than any before it on the node. An operation whose token is not the holder's is refused.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::layout::Root;
use crate::fs::{FileLock, IoError, IoResultExt as _};
use crate::model::Timestamp;

/// Who asks for the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// For which rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// Who: a user's name.
    #[serde(default)]
    pub who: String,
    /// From which machine.
    #[serde(default)]
    pub host: String,
}

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// For which rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// Who.
    pub who: String,
    /// From which machine.
    pub host: String,
    /// Since when.
    pub since: Timestamp,
    /// The process on this node that holds it.
    pub pid: u32,
    /// What its operations must bring.
    pub token: u64,
}

/// Why an operation may not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else has it.
    #[error("{}", held(owner.as_ref()))]
    Held {
        /// Who; unknown if they are just writing it down.
        owner: Option<Owner>,
    },
    /// The operation's rollout has it no more.
    #[error("the rollout no longer holds this node's lock; {}", held(owner.as_ref()))]
    Lost {
        /// Who has it now.
        owner: Option<Owner>,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

fn held(owner: Option<&Owner>) -> String {
    let Some(owner) = owner else { return "nobody holds it, or does not say".to_owned() };
    let Owner { who, host, since, pid, rollout, .. } = owner;
    let what = rollout.as_ref().map_or_else(String::new, |rollout| format!(" for rollout {rollout}"));
    format!("{who} on {host} holds this node's lock{what} since {since} (process {pid} here)")
}

impl LockError {
    /// What a person might do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Held { .. } => vec!["wait for it; the lock goes when its connection goes".to_owned()],
            Self::Lost { .. } => {
                vec!["`windlass resume` takes the lock again and looks where things are".to_owned()]
            }
            Self::Io(error) => error.help(),
        }
    }
}

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct HeldLock {
    _lock: FileLock,
    /// What it says.
    pub owner: Owner,
}

/// What lets an operation change the node.
#[derive(Debug)]
pub enum Authority {
    /// Its rollout holds the lock through another process.
    Token(u64),
    /// It holds the lock itself.
    Own(HeldLock),
}

impl Authority {
    /// By the token if there is one, else by taking the lock.
    pub fn new(root: &Root, token: Option<u64>, claim: &Claim) -> Result<Self, LockError> {
        match token {
            Some(token) => {
                let authority = Self::Token(token);
                authority.check(root)?;
                Ok(authority)
            }
            None => Ok(Self::Own(acquire(root, claim)?)),
        }
    }

    /// Whether it still lets: asked again after waiting for anything.
    pub fn check(&self, root: &Root) -> Result<(), LockError> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Token(token) => match owner(root)? {
                Some(owner) if owner.token == *token => Ok(()),
                owner => Err(LockError::Lost { owner }),
            },
        }
    }
}

/// Takes the lock.
pub fn acquire(root: &Root, claim: &Claim) -> Result<HeldLock, LockError> {
    let path = root.lock();
    let lock = attempt_or_owner(root)?;
    let before = read(lock.file()).map_or(0, |owner| owner.token);
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let named = |text: &str, or: &str| if text.is_empty() { or.to_owned() } else { text.to_owned() };
    let owner = Owner {
        rollout: claim.rollout.clone(),
        who: named(&claim.who, "somebody"),
        host: named(&claim.host, "this node"),
        since: Timestamp::now(),
        pid: std::process::id(),
        // The clock helps only where the file before was torn.
        token: (before + 1).max(u64::try_from(micros).unwrap_or(0)),
    };
    let bytes = serde_json::to_vec(&owner).map_err(std::io::Error::from).at("write", &path)?;
    let mut file = lock.file();
    file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(&bytes)).at("write", &path)?;
    Ok(HeldLock { _lock: lock, owner })
}

/// Takes the lock, or says who has it: where that one let go meanwhile, it is tried again.
fn attempt_or_owner(root: &Root) -> Result<FileLock, LockError> {
    for _ in 0..25 {
        if let Some(lock) = attempt(root)? {
            return Ok(lock);
        }
        if let Some(owner) = owner(root)? {
            return Err(LockError::Held { owner: Some(owner) });
        }
    }
    Err(LockError::Held { owner: None })
}

/// A few times: who only looks whether it is held holds it for a moment as well.
fn attempt(root: &Root) -> Result<Option<FileLock>, IoError> {
    for _ in 0..5 {
        if let Some(lock) = FileLock::attempt(&root.lock())? {
            return Ok(Some(lock));
        }
        std::thread::sleep(Duration::from_millis(4));
    }
    Ok(None)
}

/// Who holds the lock; `None` if nobody does.
pub fn owner(root: &Root) -> Result<Option<Owner>, IoError> {
    let path = root.lock();
    for _ in 0..5 {
        if !FileLock::is_held(&path)? {
            return Ok(None);
        }
        if let Some(owner) = File::open(&path).ok().and_then(|file| read(&file)) {
            return Ok(Some(owner));
        }
        // The holder has not written it yet, or only looked.
        std::thread::sleep(Duration::from_millis(4));
    }
    Ok(None)
}

fn read(mut file: &File) -> Option<Owner> {
    let mut bytes = Vec::new();
    file.rewind().ok()?;
    file.take(64 << 10).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;

    #[test]
    fn a_token_lets_until_the_lock_is_somebody_elses() {
        let temporary = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().join("root")).unwrap();
        let root = Root::create(&path, 0o700).unwrap();
        let claim = Claim { rollout: Some("r1".to_owned()), who: "ann".to_owned(), host: "h".to_owned() };
        let held = acquire(&root, &claim).unwrap();
        let token = held.owner.token;
        let authority = Authority::new(&root, Some(token), &claim).unwrap();
        let refused = Authority::new(&root, None, &Claim::default()).unwrap_err();
        assert!(
            refused.to_string().starts_with("ann on h holds this node's lock for rollout r1 since "),
            "{refused}"
        );
        drop(held);
        assert!(matches!(authority.check(&root), Err(LockError::Lost { owner: None })));
        let other = acquire(&root, &Claim::default()).unwrap();
        assert!(other.owner.token > token);
        assert!(matches!(authority.check(&root), Err(LockError::Lost { owner: Some(_) })));
    }
}
