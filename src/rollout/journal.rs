//! `out/rollouts/<id>/`: `plan.json`, then `journal.jsonl`, an event a line.
//!
//! # Invariants
//!
//! * The plan is on the disk before the first event, and is never changed.
//! * What announces an effect is on the disk before the effect; the rest may be lost with a power cut.

use std::cell::RefCell;
use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use super::event::{At, Event, Line, NodeState, Outcome};
use super::plan::{PLAN_FORMAT, Plan};
use crate::fs::{AppendLog, IoError, IoResultExt as _, calls, replace, sync_dir};
use crate::model::Timestamp;

const PLAN: &str = "plan.json";
const JOURNAL: &str = "journal.jsonl";

/// Why a plan or a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It is not what it should be.
    #[error("{path} is not valid{}", line.map_or_else(String::new, |line| format!(", line {line}")))]
    Invalid {
        /// The file.
        path: Utf8PathBuf,
        /// Which line.
        line: Option<usize>,
        /// Why.
        source: serde_json::Error,
    },
    /// A newer windlass wrote it.
    #[error("{path} has format {found}; this windlass reads format {PLAN_FORMAT}")]
    Newer {
        /// The file.
        path: Utf8PathBuf,
        /// Its format.
        found: u32,
    },
    /// There is no such rollout.
    #[error("there is no rollout {id} in {path}")]
    Absent {
        /// Which.
        id: String,
        /// Where it was looked for.
        path: Utf8PathBuf,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl JournalError {
    /// What to do about it, a line each.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Invalid { .. } => vec!["make the plan again; the nodes say where they are".to_owned()],
            Self::Newer { .. } => vec!["use the windlass that wrote it, or a newer one".to_owned()],
            Self::Absent { .. } => vec!["`windlass history` lists them".to_owned()],
            Self::Io(error) => error.help(),
        }
    }
}

/// Every rollout that was begun from here.
#[derive(Clone, Debug)]
pub struct Rollouts(Utf8PathBuf);

/// One that is over, or was broken off.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its id.
    pub id: String,
    /// What was to be done.
    pub plan: Plan,
    /// What happened.
    pub lines: Vec<Line>,
}

impl Past {
    /// How it ended; `None` if it was broken off, or still runs.
    pub fn outcome(&self) -> Option<Outcome> {
        self.lines.iter().rev().find_map(|line| match &line.event {
            Event::RolloutFinished { outcome, .. } => Some(*outcome),
            _ => None,
        })
    }
}

impl Past {
    /// It was broken off while everything went back.
    pub fn is_going_back(&self) -> bool {
        self.outcome().is_none()
            && self.lines.iter().any(|line| matches!(line.event, Event::WaveStarted { back: true, .. }))
    }

    /// What reached its target.
    pub fn done(&self) -> BTreeSet<At> {
        let done = |line: &Line| match &line.event {
            Event::NodeDone { result } if result.state == NodeState::Done => Some(result.at.clone()),
            _ => None,
        };
        self.lines.iter().filter_map(done).collect()
    }
}

impl Rollouts {
    /// Those below `out`.
    pub fn new(out: &Utf8Path) -> Self {
        Self(out.join("rollouts"))
    }

    /// Begins one: its folder and its plan. The id sorts after those before it.
    pub fn begin(&self, plan: &Plan) -> Result<Journal, JournalError> {
        let id = new_id(self.ids()?.last().map(String::as_str));
        let folder = self.0.join(&id);
        calls::create_dir_all(&folder).at("create", &folder)?;
        sync_dir(&self.0)?;
        save_plan(&folder.join(PLAN), plan)?;
        let log = AppendLog::open(&folder.join(JOURNAL))?;
        Ok(Journal { id, log: RefCell::new(log) })
    }

    /// The ids, the oldest first.
    pub fn ids(&self) -> Result<Vec<String>, IoError> {
        let entries = match self.0.read_dir_utf8() {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).at("read", &self.0),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.at("read", &self.0)?;
            // One that was killed before its plan was on the disk changed nothing.
            if entry.path().join(PLAN).is_file() {
                ids.push(entry.file_name().to_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Reads one.
    pub fn read(&self, id: &str) -> Result<Past, JournalError> {
        let folder = self.0.join(id);
        if id.contains('/') || !folder.join(PLAN).is_file() {
            return Err(JournalError::Absent { id: id.to_owned(), path: self.0.clone() });
        }
        let plan = load_plan(&folder.join(PLAN))?;
        Ok(Past { id: id.to_owned(), plan, lines: read_lines(&folder.join(JOURNAL))? })
    }

    /// The last one, if there is any.
    pub fn last(&self) -> Result<Option<Past>, JournalError> {
        self.ids()?.last().map(|id| self.read(id)).transpose()
    }
}

/// A rollout's id: its moment, and some letters that tell apart two of the same moment.
///
/// Where the clock was set back since the last one, it is the moment after that one: what was begun last has the
/// last id.
fn new_id(last: Option<&str>) -> String {
    let moment = |text: &str| text.chars().filter(char::is_ascii_digit).take(17).collect::<String>();
    let mut digits = moment(Timestamp::now().as_str());
    let before = last.and_then(|last| last.get(..18)).map(moment).filter(|before| before.len() == 17);
    if let Some(before) = before.filter(|before| *before >= digits)
        && let Ok(before) = before.parse::<u64>()
    {
        digits = format!("{:017}", before + 1);
    }
    let mut bytes = [0u8; 3];
    // Without randomness the process's number has to do.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        bytes.copy_from_slice(&std::process::id().to_le_bytes()[..3]);
    }
    let (day, time) = digits.split_at(digits.len().min(8));
    format!("{day}-{time}-{}", data_encoding::HEXLOWER.encode(&bytes))
}

/// Writes a plan to a file.
pub(super) fn save_plan(path: &Utf8Path, plan: &Plan) -> Result<(), JournalError> {
    let invalid = |source| JournalError::Invalid { path: path.to_owned(), line: None, source };
    let mut text = serde_json::to_vec_pretty(plan).map_err(invalid)?;
    text.push(b'\n');
    Ok(replace(path, &text)?)
}

/// Reads a plan from a file.
pub(super) fn load_plan(path: &Utf8Path) -> Result<Plan, JournalError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let bytes = std::fs::read(path).at("read", path)?;
    let invalid = |source| JournalError::Invalid { path: path.to_owned(), line: None, source };
    let head: Head = serde_json::from_slice(&bytes).map_err(invalid)?;
    if head.format > PLAN_FORMAT {
        return Err(JournalError::Newer { path: path.to_owned(), found: head.format });
    }
    serde_json::from_slice(&bytes).map_err(invalid)
}

impl Plan {
    /// Reads a plan that was saved.
    pub fn load(path: &Utf8Path) -> Result<Self, JournalError> {
        load_plan(path)
    }

    /// Saves it to a file.
    pub fn save(&self, path: &Utf8Path) -> Result<(), JournalError> {
        save_plan(path, self)
    }
}

fn read_lines(path: &Utf8Path) -> Result<Vec<Line>, JournalError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("read", path)?,
    };
    // What stands after the last newline was torn by a crash.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|source| JournalError::Invalid {
            path: path.to_owned(),
            line: Some(index + 1),
            source,
        })
    };
    whole.lines().enumerate().map(parse).collect()
}

/// A rollout's journal, being written.
#[derive(Debug)]
pub struct Journal {
    id: String,
    log: RefCell<AppendLog>,
}

impl Journal {
    /// The rollout's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Appends an event; with `durable` it is on the disk when this returns. Gives the line.
    pub fn append(&self, event: Event, durable: bool) -> Result<Line, IoError> {
        let line = Line { time: Timestamp::now(), rollout: self.id.clone(), event };
        // Every part of an event can be written as JSON.
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        self.log.borrow_mut().append_lines(&text, durable)?;
        Ok(line)
    }
}
