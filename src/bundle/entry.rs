//! What a layer holds: one entry a path.

use crate::model::{BundlePath, Digest};

/// One path of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the bundle.
    pub path: BundlePath,
    /// What stands there.
    pub node: Node,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory; always mode 0755.
    Directory,
    /// A regular file.
    File {
        /// 0755 or 0644, with 04000 and 02000 where the recipe keeps them.
        mode: u16,
        /// Bytes.
        size: u64,
        /// Of the content.
        digest: Digest,
    },
    /// A symbolic link, its target as written.
    Symlink {
        /// As written; resolves inside the bundle.
        target: String,
    },
    /// Another name of a file of the same layer, which stands before it in path order.
    HardLink {
        /// A regular file of the layer.
        target: BundlePath,
    },
}

impl Entry {
    /// Bytes of content; 0 for what is no regular file.
    pub fn size(&self) -> u64 {
        match self.node {
            Node::File { size, .. } => size,
            Node::Directory | Node::Symlink { .. } | Node::HardLink { .. } => 0,
        }
    }
}

impl Node {
    /// One word for messages and JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File { .. } => "file",
            Self::Symlink { .. } => "symlink",
            Self::HardLink { .. } => "hardlink",
        }
    }
}
