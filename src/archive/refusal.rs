//! Why an archive is not taken.

use crate::model::{ByteSize, PathError};

/// What is wrong with an archive or one of its members.
///
/// [`super::ArchiveError`] says in which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each text below is the documentation")]
pub enum Refusal {
    // The archive as a whole.
    #[error("the file is empty")]
    Empty,
    #[error("expected {expected}, but it starts like {found}")]
    LooksLike { expected: &'static str, found: &'static str },
    #[error("expected {expected}, but it does not start like one")]
    NotA { expected: &'static str },
    #[error("it is truncated: it ends after {at} bytes, {within}")]
    Truncated { at: u64, within: &'static str },
    #[error("it is corrupt: {what}")]
    Corrupt { what: String },
    #[error("it is corrupt at byte {at} of its tar: {what}")]
    CorruptTar { at: u64, what: &'static str },
    #[error("it needs more memory to decompress than the {limit} that are allowed")]
    Memory { limit: ByteSize },
    #[error("it uses a feature that is not supported: {what}")]
    Unsupported { what: String },
    #[error("it unpacks to more than max_unpacked, which is {limit}")]
    TooBig { limit: ByteSize },
    #[error("it unpacks to more than 1000 times its own size of {size}")]
    Ratio { size: ByteSize },
    #[error("it has more than {limit} members")]
    TooManyMembers { limit: u64 },
    #[error("it holds {size} that belong to no file, which is more than its members can need")]
    Overhead { size: ByteSize },
    #[error("nothing of it is selected; {holds}")]
    EmptySelection { holds: String },

    // A member's name.
    #[error("the name is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    Path(PathError),
    #[error("a name that starts with `.wh.` means a deletion in an OCI layer")]
    Whiteout,
    #[error("two entries for one path")]
    TwoEntries,
    #[error("it lies below `{file}`, which is not a directory in this archive")]
    BelowFile { file: String },
    #[error("it lies below `{link}`, which is a symlink in this archive")]
    ThroughSymlink { link: String },
    #[error("it is a symlink, but other members lie below it")]
    SymlinkAbove,

    // A member's kind and size.
    #[error("it is {what}; only files, directories and links are taken")]
    Special { what: &'static str },
    #[error("its tar entry type `{0}` is not known")]
    UnknownType(String),
    #[error("it is {what} that declares {size} bytes of content")]
    Content { what: &'static str, size: u64 },
    #[error("it is encrypted")]
    Encrypted,
    #[error("it is compressed with {name} (method {id}), which is not supported")]
    Method { id: u16, name: &'static str },
    #[error("it holds more or fewer bytes than the {size} that it declares")]
    WrongSize { size: u64 },

    // Where a link leads.
    #[error("the symlink has no target")]
    NoTarget,
    #[error("the symlink's target is longer than {limit} bytes")]
    LongTarget { limit: u64 },
    #[error("the symlink's target is not UTF-8 or holds a NUL byte")]
    BadTarget,
    #[error("the symlink leads to the absolute path `{target}`")]
    AbsoluteTarget { target: String },
    #[error("the symlink leads out of the bundle: `{target}`")]
    Escapes { target: String },
    #[error("the symlink leads through more than 40 symlinks: `{target}`")]
    Loop { target: String },
    #[error("it is a hard link to `{target}`, which is no earlier file of this archive")]
    LinkToNothing { target: String },
    #[error("it is a hard link to `{target}`, which is a directory")]
    LinkToDirectory { target: String },
    #[error("it is a hard link to itself")]
    LinkToItself,
}

impl Refusal {
    /// What to do about it.
    ///
    /// Exhaustive on purpose: a new refusal must say what comes next.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Empty
            | Self::LooksLike { .. }
            | Self::NotA { .. }
            | Self::Truncated { .. }
            | Self::Corrupt { .. }
            | Self::CorruptTar { .. }
            | Self::WrongSize { .. } => {
                "was the download complete? compare its size and sha256 with the vendor's"
            }
            Self::TooBig { .. } => "if the archive is genuine, raise max_unpacked in windlass.toml",
            Self::Ratio { .. } | Self::TooManyMembers { .. } | Self::Overhead { .. } => {
                "no vendor archive looks like that; if it is genuine, repack it"
            }
            Self::EmptySelection { .. } => "see strip, include and exclude of this [[unpack]]",
            Self::Memory { .. } | Self::Unsupported { .. } | Self::Encrypted | Self::Method { .. } => {
                "repack it as .tar.gz, .tar.zst or a plain zip"
            }
            Self::Whiteout
            | Self::TwoEntries
            | Self::BelowFile { .. }
            | Self::ThroughSymlink { .. }
            | Self::SymlinkAbove
            | Self::Special { .. }
            | Self::UnknownType(_)
            | Self::AbsoluteTarget { .. }
            | Self::Escapes { .. }
            | Self::Loop { .. } => "leave it out with `exclude`, or repack the archive",
            Self::NotUtf8
            | Self::Path(_)
            | Self::Content { .. }
            | Self::NoTarget
            | Self::LongTarget { .. }
            | Self::BadTarget
            | Self::LinkToNothing { .. }
            | Self::LinkToDirectory { .. }
            | Self::LinkToItself => "a genuine archive has no such member; if need be, repack it",
        }
    }
}
