//! Who is told of an archive's members.

use std::error::Error;
use std::io::Read;

use crate::model::BundlePath;

/// A failure of the visitor's own; [`super::ArchiveError::Visitor`] carries it through untouched.
pub type VisitError = Box<dyn Error + Send + Sync>;

/// Is told of the members that were taken, in the archive's order.
///
/// Paths are below [`super::Selection::into`] and already stripped. A directory is told at most once,
/// possibly after what is in it, and not at all where the archive only implies it.
/// Everything told is provisional until [`super::read`] has returned `Ok`.
pub trait Visitor {
    /// Forget everything told: the archive is read again from its start.
    ///
    /// At most twice in one reading: when an assumed single top directory was not the only entry, and
    /// when a hard link needs the content of a member that was left out.
    fn restart(&mut self) -> Result<(), VisitError>;

    /// A directory.
    fn directory(&mut self, path: BundlePath) -> Result<(), VisitError>;

    /// A file with `size` bytes to read from `data`.
    ///
    /// `mode` is 0755 if its owner may execute it, else 0644; with `keep_setuid` also 04000 and 02000.
    /// What is left unread is read and checked, then dropped. An error from `data` may be returned or
    /// dropped: [`super::read`] remembers its own failures and returns those.
    fn file(&mut self, path: BundlePath, mode: u16, size: u64, data: &mut dyn Read)
    -> Result<(), VisitError>;

    /// A symlink. `target` is relative and does not leave the bundle, as far as this archive knows.
    fn symlink(&mut self, path: BundlePath, target: String) -> Result<(), VisitError>;

    /// A second name for `target`, a file told before.
    fn hard_link(&mut self, path: BundlePath, target: BundlePath) -> Result<(), VisitError>;
}
