//! The program that becomes the agent on nodes: this one, or another file that the operator names.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::OnceCell;

use super::error::RemoteError;
use crate::model::{Digest, Hasher};

/// A program for nodes: where it is here, and what is in it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentBinary(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: Utf8PathBuf,
    machines: Machines,
    /// Found out while the first node is connected to that has to be told.
    contents: OnceCell<Contents>,
}

/// What is in a program for nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents {
    pub(super) digest: Digest,
    /// Bytes.
    pub(super) size: u64,
}

impl Contents {
    /// The program's name on nodes: `windlass-` and 12 digits of its sha256.
    pub(super) fn name(&self) -> String {
        format!("windlass-{}", self.digest.short())
    }
}

/// What `uname -m` says where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machines {
    /// For people.
    pub(super) name: &'static str,
    /// As patterns of a shell, for `uname -s`/`uname -m`.
    pub(super) patterns: &'static str,
}

const ANY: Machines = Machines { name: "another machine", patterns: "*" };

impl AgentBinary {
    /// The program that is running.
    pub fn own() -> Result<Self, RemoteError> {
        let fail = |source| RemoteError::Binary { path: "/proc/self/exe".into(), source };
        let path = std::env::current_exe().map_err(fail)?;
        let path = Utf8PathBuf::from_path_buf(path)
            .map_err(|path| fail(io::Error::other(format!("{} is not UTF-8", path.display()))))?;
        Self::at(&path)
    }

    /// The program in a file; it must be one for Linux.
    pub fn at(path: &Utf8Path) -> Result<Self, RemoteError> {
        let fail = |source| RemoteError::Binary { path: path.to_owned(), source };
        let path = path.canonicalize_utf8().map_err(fail)?;
        let file = File::open(&path).map_err(fail)?;
        let mut head = Vec::new();
        file.take(20).read_to_end(&mut head).map_err(fail)?;
        let machines = machines(&head).ok_or_else(|| RemoteError::NoProgram { path: path.clone() })?;
        Ok(Self(Arc::new(Inner { path, machines, contents: OnceCell::new() })))
    }

    /// Where it is here; absolute.
    pub fn path(&self) -> &Utf8Path {
        &self.0.path
    }

    /// Its digest and size; it is read once, on a thread of its own.
    pub(super) async fn contents(&self) -> Result<Contents, RemoteError> {
        let read = async || {
            let path = self.0.path.clone();
            let given_up = |_| Err(io::Error::other("reading it was given up"));
            let read = tokio::task::spawn_blocking(move || read(&path)).await.unwrap_or_else(given_up);
            read.map_err(|source| RemoteError::Binary { path: self.0.path.clone(), source })
        };
        self.0.contents.get_or_try_init(read).await.copied()
    }

    pub(super) fn machines(&self) -> Machines {
        self.0.machines
    }
}

fn read(path: &Utf8Path) -> io::Result<Contents> {
    let mut hasher = Hasher::new();
    let size = hasher.read_all(&mut File::open(path)?)?;
    Ok(Contents { digest: hasher.finish(), size })
}

/// Which machines run a program, by its ELF header; `None` if it has none.
///
/// A shell takes a file that the kernel refuses for a script, so what is no program must not get that far.
fn machines(head: &[u8]) -> Option<Machines> {
    if head.len() < 20 || !head.starts_with(b"\x7fELF") {
        return None;
    }
    let number = [head[18], head[19]];
    let machine = if head[5] == 2 { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) };
    Some(match machine {
        3 => Machines { name: "x86", patterns: "Linux/i?86|Linux/x86_64|Linux/amd64" },
        21 => Machines { name: "ppc64", patterns: "Linux/ppc64*" },
        22 => Machines { name: "s390x", patterns: "Linux/s390*" },
        40 => Machines { name: "arm", patterns: "Linux/arm*|Linux/aarch64" },
        62 => Machines { name: "x86_64", patterns: "Linux/x86_64|Linux/amd64" },
        183 => Machines { name: "aarch64", patterns: "Linux/aarch64|Linux/arm64" },
        243 => Machines { name: "riscv64", patterns: "Linux/riscv*" },
        _ => ANY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_known_by_its_header_and_its_contents() {
        let own = AgentBinary::own().unwrap();
        let contents = own.contents().await.unwrap();
        assert_eq!(contents.size, own.path().metadata().unwrap().len());
        assert_eq!(contents.digest, Digest::of(&std::fs::read(own.path()).unwrap()));
        assert!(contents.name().starts_with("windlass-") && contents.name().len() == 21);
        assert_eq!(own.machines().name, std::env::consts::ARCH);
        let temporary = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().join("script")).unwrap();
        std::fs::write(&path, "#!/bin/sh\nexit 0\n# long enough\n").unwrap();
        let error = AgentBinary::at(&path).unwrap_err();
        assert!(error.to_string().contains("is not a program for Linux"), "{error}");
        assert!(matches!(AgentBinary::at(Utf8Path::new("/not/there")), Err(RemoteError::Binary { .. })));
    }
}
