//! A role's journal on its node: what was meant, what happened, in order.
//!
//! One JSON object a line: `seq`, `time`, and the record. What a record means is in [`super::state`].
//!
//! # Invariants
//!
//! * A record that announces something is on the disk before it is done. A fact that the announcement and the
//!   link tell as well (see [`Record::must_last`]) gets there with the next that is waited for.
//! * Records are appended; none is ever changed. `seq` counts from 1 without a gap.
//! * A torn last line is what a crash leaves, and is dropped. Anything else that is wrong is an error.

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use super::memory::Memory;
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

/// What a journal's lines say, up to some line.
#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    state: State,
    /// Records so far.
    count: u64,
    /// Bytes of their lines.
    length: u64,
    last: Vec<u8>,
}

impl Replay {
    /// What the records say.
    pub(super) fn into_state(self) -> State {
        self.state
    }

    /// Bytes of the lines that were read.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The last line that was read, with its end.
    pub(super) fn last_line(&self) -> &[u8] {
        &self.last
    }

    /// Reads the lines that follow; what stands after the last line's end is left out.
    pub(super) fn extend(
        &mut self,
        path: &Utf8Path,
        bytes: &[u8],
        mut each: impl FnMut(Entry),
    ) -> Result<(), JournalError> {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
            let number = self.count + 1;
            let damaged = |what: String| {
                let line = usize::try_from(number).unwrap_or(usize::MAX);
                JournalError::Damaged { path: path.to_owned(), line, what }
            };
            if number == 1 {
                newer(path, line)?;
            }
            let entry: Entry = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
            if entry.seq != number {
                return Err(damaged(format!("its number is {}, not {number}", entry.seq)));
            }
            self.advance(path, &entry.record, line)?;
            each(entry);
        }
        Ok(())
    }

    /// Takes one more record, which `line` holds; one that may not follow changes nothing.
    fn advance(&mut self, path: &Utf8Path, record: &Record, line: &[u8]) -> Result<(), JournalError> {
        self.state
            .advance(record, self.count + 1)
            .map_err(|source| JournalError::Illegal { path: path.to_owned(), source })?;
        self.count += 1;
        self.length += line.len() as u64;
        self.last.clear();
        self.last.extend_from_slice(line);
        Ok(())
    }
}

/// A journal that is open to be added to. The caller holds the role's lock.
#[derive(Debug)]
pub(super) struct Journal {
    log: AppendLog,
    path: Utf8PathBuf,
    replay: Replay,
    memory: Memory,
    /// A record could not be written: what is known is not what is on the disk.
    broken: bool,
}

impl Journal {
    /// Opens a role's journal, making it if it is not there.
    pub(super) fn open(memory: &Memory, path: &Utf8Path, role: &Role) -> Result<Self, JournalError> {
        let log = AppendLog::open(path)?;
        let replay = memory.read(path)?;
        let mut journal = Self { log, path: path.to_owned(), replay, memory: memory.clone(), broken: false };
        if journal.replay.count == 0 {
            journal.append([Record::Created { format: FORMAT, role: role.clone() }])?;
        }
        Ok(journal)
    }

    /// What the records say.
    pub(super) fn state(&self) -> &State {
        &self.replay.state
    }

    /// Appends records that may follow, and waits until they are on the disk if one of them must be.
    ///
    /// After an error it takes no more: the next that opens it reads what is really there.
    pub(super) fn append<const N: usize>(&mut self, records: [Record; N]) -> Result<(), JournalError> {
        let path = self.path.clone();
        if self.broken {
            let earlier = std::io::Error::other("an earlier record could not be written");
            return Err(IoError::new("append to", &path, earlier).into());
        }
        let must_last = records.iter().any(Record::must_last);
        let mut lines = Vec::new();
        for record in records {
            let entry = Entry { seq: self.replay.count + 1, time: Timestamp::now(), record };
            let mut line = serde_json::to_vec(&entry).map_err(std::io::Error::from).at("write", &path)?;
            line.push(b'\n');
            // The first that may not follow ends it before anything of these was written.
            self.replay
                .advance(&path, &entry.record, &line)
                .inspect_err(|_| self.broken |= !lines.is_empty())?;
            lines.extend_from_slice(&line);
        }
        self.log.append_lines(&lines, must_last).inspect_err(|_| self.broken = true)?;
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !self.broken {
            self.memory.store(&self.path, self.log.file(), std::mem::take(&mut self.replay));
        }
    }
}

/// Every record of a journal, which is not changed; one that is not there is empty.
pub(super) fn entries(path: &Utf8Path) -> Result<Vec<Entry>, JournalError> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.at("read", path)?,
    };
    let mut entries = Vec::new();
    Replay::default().extend(path, &bytes, |entry| entries.push(entry))?;
    Ok(entries)
}

/// Refuses the first line of a newer journal before its other lines look damaged.
fn newer(path: &Utf8Path, line: &[u8]) -> Result<(), JournalError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    match serde_json::from_slice::<Head>(line) {
        Ok(head) if head.format > FORMAT => {
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
        let memory = Memory::default();
        let mut journal = Journal::open(&memory, &path, &role).unwrap();
        journal.append([staged("1-a")]).unwrap();
        journal.append([staged("2-b")]).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let lines = whole[..cut].split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(entries(&path).unwrap().len(), lines);
            let mut journal = Journal::open(&memory, &path, &role).unwrap();
            journal.append([staged("7-c")]).unwrap();
            drop(journal);
            for memory in [&memory, &Memory::default()] {
                let state = memory.read(&path).unwrap().into_state();
                assert!(state.releases.contains_key(&"7-c".parse().unwrap()));
                assert_eq!(state.releases.len(), entries(&path).unwrap().len() - 1);
            }
        }
        let text = String::from_utf8(whole).unwrap();
        std::fs::write(&path, text.replacen("\"seq\":2", "\"seq\":3", 1)).unwrap();
        assert!(matches!(entries(&path), Err(JournalError::Damaged { line: 2, .. })));
        std::fs::write(&path, text.replacen("\"staged\"", "\"stagged\"", 1)).unwrap();
        assert!(matches!(entries(&path), Err(JournalError::Damaged { line: 2, .. })));
        std::fs::write(&path, text.replacen("\"format\":1", "\"format\":2", 1)).unwrap();
        assert!(matches!(entries(&path), Err(JournalError::Newer { found: 2, .. })));
    }

    #[test]
    fn what_is_remembered_is_what_is_there() {
        let temporary = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().join("journal")).unwrap();
        let role: Role = "kafka".parse().unwrap();
        let (here, elsewhere) = (Memory::default(), Memory::default());
        let names = |memory: &Memory| -> Vec<String> {
            memory.read(&path).unwrap().into_state().releases.keys().map(ToString::to_string).collect()
        };
        let add = |memory: &Memory, release: &str| {
            Journal::open(memory, &path, &role).unwrap().append([staged(release)]).unwrap();
        };
        assert_eq!(names(&here), [""; 0]);
        for (memory, release) in [(&here, "1-a"), (&elsewhere, "2-b"), (&elsewhere, "3-c"), (&here, "4-d")] {
            add(memory, release);
            assert_eq!(names(&here), names(&Memory::default()));
        }
        // A record that may not follow is not written, and the next one may be.
        let mut journal = Journal::open(&here, &path, &role).unwrap();
        assert!(matches!(journal.append([staged("2-e")]), Err(JournalError::Illegal { .. })));
        journal.append([staged("5-e")]).unwrap();
        drop(journal);
        assert_eq!(names(&here), ["1-a", "2-b", "3-c", "4-d", "5-e"]);
        // A person edits it: at the same length, shorter, and by another file of that name.
        let text = std::fs::read_to_string(&path).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&path, text.replace("2-b", "2-x")).unwrap();
        assert_eq!(names(&here), ["1-a", "2-x", "3-c", "4-d", "5-e"]);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        std::fs::write(&path, lines[..3].concat()).unwrap();
        assert_eq!(names(&here), ["1-a", "2-b"]);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(names(&here).len(), 5);
    }
}
