//! A role's journal on its node: what was meant, what happened, in order.
//!
//! One JSON object a line: `seq`, `time`, and the record. What a record means is in [`super::state`].
//!
//! # Invariants
//!
//! * A record is on the disk before what it announces is done, or before its fact is told to anyone.
//! * Records are appended; none is ever changed. `seq` counts from 1 without a gap.
//! * A torn last line is what a crash leaves, and is dropped. Anything else that is wrong is an error.

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use super::record::{Entry, FORMAT, Record};
use super::state::{Illegal, State};
use crate::fs::{AppendLog, IoError, IoResultExt as _};
use crate::model::{Role, Timestamp};

/// Why a journal cannot be read or added to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A newer windlass wrote it.
    #[error("{path} has format {found}; this windlass reads format {FORMAT}")]
    Newer {
        /// The journal.
        path: Utf8PathBuf,
        /// Its format.
        found: u32,
    },
    /// A line that no crash leaves.
    #[error("line {line} of {path} is not a record: {what}")]
    Damaged {
        /// The journal.
        path: Utf8PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A record that cannot follow what is there.
    #[error("{path}: {source}")]
    Illegal {
        /// The journal.
        path: Utf8PathBuf,
        /// Why not.
        source: Illegal,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl JournalError {
    /// What a person might do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Newer { .. } => vec!["use the windlass that wrote it, or a newer one".to_owned()],
            Self::Damaged { path, .. } => {
                vec![format!(
                    "`current` still works; keep a copy of {path}, then remove the bad line by hand"
                )]
            }
            Self::Illegal { .. } => Vec::new(),
            Self::Io(error) => error.help(),
        }
    }
}

/// A journal that is open to be added to. The caller holds the role's lock.
#[derive(Debug)]
pub(super) struct Journal {
    log: AppendLog,
    path: Utf8PathBuf,
    state: State,
    next: u64,
}

impl Journal {
    /// Opens a role's journal, making it if it is not there.
    pub(super) fn open(path: &Utf8Path, role: &Role) -> Result<Self, JournalError> {
        let log = AppendLog::open(path)?;
        let (state, entries) = read(path)?;
        let next = entries.last().map_or(1, |entry| entry.seq + 1);
        let mut journal = Self { log, path: path.to_owned(), state, next };
        if journal.next == 1 {
            journal.append(Record::Created { format: FORMAT, role: role.clone() })?;
        }
        Ok(journal)
    }

    /// What the records say.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The number that the next record will have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Appends a record that may follow, and waits until it is on the disk.
    pub(super) fn append(&mut self, record: Record) -> Result<(), JournalError> {
        let illegal = |source| JournalError::Illegal { path: self.path.clone(), source };
        let after = self.state.after(&record, self.next).map_err(illegal)?;
        let entry = Entry { seq: self.next, time: Timestamp::now(), record };
        let line = serde_json::to_vec(&entry).map_err(std::io::Error::from).at("write", &self.path)?;
        self.log.append(&line)?;
        self.state = after;
        self.next += 1;
        Ok(())
    }
}

/// Reads a journal without changing it; one that is not there is empty.
pub(super) fn read(path: &Utf8Path) -> Result<(State, Vec<Entry>), JournalError> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.at("read", path)?,
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut state = State::default();
    let mut entries: Vec<Entry> = Vec::new();
    for (index, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
        let damaged = |what: String| JournalError::Damaged { path: path.to_owned(), line: index + 1, what };
        newer(path, index, line)?;
        let entry: Entry = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        if entry.seq != index as u64 + 1 {
            return Err(damaged(format!("its number is {}, not {}", entry.seq, index + 1)));
        }
        state
            .advance(&entry.record, entry.seq)
            .map_err(|source| JournalError::Illegal { path: path.to_owned(), source })?;
        entries.push(entry);
    }
    Ok((state, entries))
}

/// Refuses the first line of a newer journal before its other lines look damaged.
fn newer(path: &Utf8Path, index: usize, line: &[u8]) -> Result<(), JournalError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    match serde_json::from_slice::<Head>(line) {
        Ok(head) if index == 0 && head.format > FORMAT => {
            Err(JournalError::Newer { path: path.to_owned(), found: head.format })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    fn staged(release: &str) -> Record {
        let release = release.parse().unwrap();
        Record::Staged { release, bundle: Digest::of(b"b"), rollout: None, who: "me".to_owned() }
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().join("journal")).unwrap();
        let role: Role = "kafka".parse().unwrap();
        let mut journal = Journal::open(&path, &role).unwrap();
        journal.append(staged("1-a")).unwrap();
        journal.append(staged("2-b")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let lines = whole[..cut].split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(read(&path).unwrap().1.len(), lines);
            let mut journal = Journal::open(&path, &role).unwrap();
            journal.append(staged("7-c")).unwrap();
            assert!(read(&path).unwrap().0.releases.contains_key(&"7-c".parse().unwrap()));
        }
        let text = String::from_utf8(whole).unwrap();
        std::fs::write(&path, text.replacen("\"seq\":2", "\"seq\":3", 1)).unwrap();
        assert!(matches!(read(&path), Err(JournalError::Damaged { line: 2, .. })));
        std::fs::write(&path, text.replacen("\"staged\"", "\"stagged\"", 1)).unwrap();
        assert!(matches!(read(&path), Err(JournalError::Damaged { line: 2, .. })));
        std::fs::write(&path, text.replacen("\"format\":1", "\"format\":2", 1)).unwrap();
        assert!(matches!(read(&path), Err(JournalError::Newer { found: 2, .. })));
    }
}
