//! One reading of an archive: each member checked, selected, and told to the visitor.
//!
//! Formats differ only in how they find members; what a member may be is decided here, once.
//! Two things can only be known too late for a stream, and then the archive is read again:
//! that an assumed single top directory is not alone, and that a hard link is taken whose file was not.

mod links;

use std::collections::HashMap;
use std::io::Read;

use super::content::Content;
use super::error::Halt;
use super::globs::Matcher;
use super::input::Input;
use super::names::{TOPS_SHOWN, entry_path, stripped, tops_in_words};
use super::tree::Tree;
use super::{ArchiveError, Format, Limits, Refusal, Selection, Strip, Summary, Visitor};
use crate::model::{BundlePath, ByteSize, PathError};

/// No vendor ships so many, and each costs memory here and an inode on every node.
const MAX_MEMBERS: u64 = 1 << 20;
/// An archive may unpack to so many times its size...
const MAX_RATIO: u64 = 1000;
/// ...once it has unpacked to more than this.
const RATIO_FROM: u64 = 1 << 20;

/// An entry, as its archive describes it.
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) size: u64,
}

/// What an entry is.
pub(super) enum Kind {
    Directory,
    File,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    /// Nothing that can be taken; refused unless the selection leaves it out.
    Refused(Refusal),
}

/// What a reading knows beforehand, from those before it.
pub(super) struct Plan {
    /// `None` assumes a single top directory.
    strip: Option<u32>,
    /// Files to be taken although the selection leaves them out, by their number in the archive, and the
    /// name of the hard link that each becomes.
    retained: HashMap<usize, BundlePath>,
}

impl Plan {
    pub(super) fn first(strip: Strip, format: Format) -> Self {
        let strip = match (strip, format) {
            (Strip::Auto, Format::Tar(_) | Format::Zip) => None,
            (Strip::Auto, Format::File) => Some(0),
            (Strip::Count(count), _) => Some(count),
        };
        Self { strip, retained: HashMap::new() }
    }
}

/// Whether to go on with this reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Stop,
}

pub(super) enum Outcome {
    Done(Summary),
    Again(Plan),
}

/// What a name in the archive stands for; hard links ask.
#[derive(Clone)]
enum Seen {
    Directory,
    /// The so-manieth file, or a hard link to it.
    File(usize),
    Symlink(String),
}

pub(super) struct Pass<'a> {
    input: &'a Input<'a>,
    selection: &'a Selection,
    limits: &'a Limits,
    visitor: &'a mut dyn Visitor,
    plan: Plan,
    include: Matcher<'a>,
    exclude: Matcher<'a>,
    tree: Tree,
    seen: HashMap<String, Seen>,
    /// Where each file of the archive was put.
    files: Vec<Option<BundlePath>>,
    /// Files that the next reading has to retain. Not empty: this one is lost, and only looks for more.
    wanted: HashMap<usize, BundlePath>,
    /// The first few top names.
    tops: Vec<String>,
    not_single: bool,
    members: u64,
    unpacked: u64,
    taken: u64,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        input: &'a Input<'a>,
        selection: &'a Selection,
        limits: &'a Limits,
        plan: Plan,
        visitor: &'a mut dyn Visitor,
    ) -> Self {
        Self {
            input,
            selection,
            limits,
            visitor,
            plan,
            include: Matcher::new(&selection.include),
            exclude: Matcher::new(&selection.exclude),
            tree: Tree::default(),
            seen: HashMap::new(),
            files: Vec::new(),
            wanted: HashMap::new(),
            tops: Vec::new(),
            not_single: false,
            members: 0,
            unpacked: 0,
            taken: 0,
        }
    }

    /// Takes in the next member; `data` has to give its `size` bytes and end.
    pub(super) fn member(&mut self, member: &Member, data: &mut dyn Read) -> Result<Flow, ArchiveError> {
        self.input.check_cancel()?;
        self.take(member, data).map_err(|halt| match halt {
            Halt::Refused(why) => self.input.refuse(Some(&member.name), why),
            Halt::Failed(error) => error,
        })
    }

    fn take(&mut self, member: &Member, data: &mut dyn Read) -> Result<Flow, Halt> {
        self.account(member.size)?;
        let directory = matches!(member.kind, Kind::Directory);
        let name = match entry_path(&member.name) {
            Ok(name) => name,
            // The entry for the archive's own top, `./`.
            Err(Refusal::Path(PathError::Empty)) if directory && !member.name.is_empty() => {
                return Ok(Flow::Next);
            }
            Err(why) => return Err(why.into()),
        };
        let Some(strip) = self.strip(&name, directory) else { return Ok(Flow::Stop) };
        let path = self.select(&name, strip)?;
        match &member.kind {
            Kind::Directory => self.directory(&name, path)?,
            Kind::File => self.file(member, &name, path, data)?,
            Kind::Symlink(target) => self.symlink(&name, path, target)?,
            Kind::HardLink(target) => self.hard_link(&name, path, target)?,
            Kind::Refused(why) if path.is_some() => return Err(why.clone().into()),
            Kind::Refused(_) => {}
        }
        Ok(Flow::Next)
    }

    /// Takes note of a member to come: a format that knows all names beforehand need not start in vain.
    pub(super) fn foresee(&mut self, name: &[u8], directory: bool) -> Flow {
        // A bad name is refused when its member comes.
        match entry_path(name) {
            Ok(name) if self.strip(&name, directory).is_none() => Flow::Stop,
            Ok(_) | Err(_) => Flow::Next,
        }
    }

    fn account(&mut self, size: u64) -> Result<(), Refusal> {
        self.members += 1;
        if self.members > MAX_MEMBERS {
            return Err(Refusal::TooManyMembers { limit: MAX_MEMBERS });
        }
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked > self.limits.max_unpacked {
            return Err(Refusal::TooBig { limit: ByteSize(self.limits.max_unpacked) });
        }
        let own = self.input.size();
        if self.unpacked > RATIO_FROM && self.unpacked > own.saturating_mul(MAX_RATIO) {
            return Err(Refusal::Ratio { size: ByteSize(own) });
        }
        Ok(())
    }

    /// How many components `name` loses; `None` where the assumption of a single top directory fails.
    fn strip(&mut self, name: &BundlePath, directory: bool) -> Option<u32> {
        let top = name.components().next().unwrap_or_default();
        if self.tops.len() <= TOPS_SHOWN && !self.tops.iter().any(|known| known == top) {
            self.tops.push(top.to_owned());
        }
        if let Some(count) = self.plan.strip {
            return Some(count);
        }
        if self.tops.len() > 1 || (top.len() == name.as_str().len() && !directory) {
            self.not_single = true;
            return None;
        }
        Some(1)
    }

    /// Where a member goes; `None` if nowhere.
    fn select(&mut self, name: &BundlePath, strip: u32) -> Result<Option<BundlePath>, Refusal> {
        let Some(path) = stripped(name, strip) else { return Ok(None) };
        let included = self.selection.include.is_empty() || self.include.covers(path.as_str());
        let excluded = self.exclude.covers(path.as_str());
        if !included || excluded {
            return Ok(None);
        }
        if path.components().any(|component| component.starts_with(".wh.")) {
            return Err(Refusal::Whiteout);
        }
        if let Some(into) = &self.selection.into {
            into.join(&path).map_err(Refusal::Path)?;
        }
        Ok(Some(path))
    }

    fn directory(&mut self, name: &BundlePath, path: Option<BundlePath>) -> Result<(), Halt> {
        self.seen.insert(name.as_str().to_owned(), Seen::Directory);
        let Some(path) = path else { return Ok(()) };
        let new = self.tree.directory(&path)?;
        self.taken += 1;
        if new && self.wanted.is_empty() {
            self.visitor.directory(path).map_err(ArchiveError::Visitor)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        member: &Member,
        name: &BundlePath,
        path: Option<BundlePath>,
        data: &mut dyn Read,
    ) -> Result<(), Halt> {
        let number = self.files.len();
        self.seen.insert(name.as_str().to_owned(), Seen::File(number));
        let path = path.or_else(|| self.plan.retained.get(&number).cloned());
        self.files.push(path.clone());
        let Some(path) = path else { return Ok(()) };
        self.tree.file(&path)?;
        self.taken += 1;
        if !self.wanted.is_empty() {
            return Ok(());
        }
        let mut content = Content::new(data, member.size, self.input);
        let mode = self.mode(member.mode);
        let visited = self.visitor.file(path, mode, member.size, &mut content);
        // Before the visitor's own error, which may only repeat that its data failed.
        content.finish(&member.name, visited.is_ok())?;
        visited.map_err(|error| ArchiveError::Visitor(error).into())
    }

    fn mode(&self, mode: u32) -> u16 {
        let plain = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
        let setuid = if self.selection.keep_setuid && mode & 0o4000 != 0 { 0o4000 } else { 0 };
        let setgid = if self.selection.keep_setuid && mode & 0o2000 != 0 { 0o2000 } else { 0 };
        plain | setuid | setgid
    }

    /// Checks what only the whole archive can tell.
    pub(super) fn finish(self) -> Result<Outcome, ArchiveError> {
        if self.not_single {
            return Ok(Outcome::Again(Plan { strip: Some(0), retained: HashMap::new() }));
        }
        self.tree
            .check_symlinks(self.selection.into.as_ref())
            .map_err(|(path, why)| self.input.refuse(Some(path.as_bytes()), why))?;
        if !self.wanted.is_empty() {
            return Ok(Outcome::Again(Plan { strip: self.plan.strip, retained: self.wanted }));
        }
        if self.taken == 0 {
            let holds = tops_in_words(&self.tops);
            return Err(self.input.refuse(None, Refusal::EmptySelection { holds }));
        }
        Ok(Outcome::Done(Summary {
            size: self.input.size(),
            digest: self.input.digest(),
            members: self.members,
            unpacked: self.unpacked,
            unmatched: self.include.unmatched().chain(self.exclude.unmatched()).map(str::to_owned).collect(),
        }))
    }
}
