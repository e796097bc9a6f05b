//! The program that becomes the agent on nodes: this one, or another file that the operator names.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::error::RemoteError;
use crate::model::{Digest, Hasher};

/// A program for nodes: where it is here, its digest and its size. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentBinary(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: Utf8PathBuf,
    digest: Digest,
    size: u64,
    machines: Machines,
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
            .map_err(|path| fail(std::io::Error::other(format!("{} is not UTF-8", path.display()))))?;
        Self::at(&path)
    }

    /// The program in a file; it must be one for Linux.
    pub fn at(path: &Utf8Path) -> Result<Self, RemoteError> {
        let fail = |source| RemoteError::Binary { path: path.to_owned(), source };
        let path = path.canonicalize_utf8().map_err(fail)?;
        let mut file = File::open(&path).map_err(fail)?;
        let mut head = Vec::new();
        file.by_ref().take(20).read_to_end(&mut head).map_err(fail)?;
        let machines = machines(&head).ok_or_else(|| RemoteError::NoProgram { path: path.clone() })?;
        let mut hasher = Hasher::new();
        hasher.update(&head);
        let mut size = head.len() as u64;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(fail)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
        Ok(Self(Arc::new(Inner { path, digest: hasher.finish(), size, machines })))
    }

    /// Its name on nodes: `windlass-` and 12 digits of its sha256.
    pub fn name(&self) -> String {
        format!("windlass-{}", &self.0.digest.hex()[..12])
    }

    /// Where it is here; absolute.
    pub fn path(&self) -> &Utf8Path {
        &self.0.path
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    pub(super) fn machines(&self) -> Machines {
        self.0.machines
    }
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

    #[test]
    fn a_program_is_known_by_its_header() {
        let own = AgentBinary::own().unwrap();
        assert_eq!(own.size(), own.path().metadata().unwrap().len());
        assert!(own.name().starts_with("windlass-") && own.name().len() == 21, "{}", own.name());
        assert_eq!(own.machines().name, std::env::consts::ARCH);
        let temporary = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().join("script")).unwrap();
        std::fs::write(&path, "#!/bin/sh\nexit 0\n# long enough\n").unwrap();
        let error = AgentBinary::at(&path).unwrap_err();
        assert!(error.to_string().contains("is not a program for Linux"), "{error}");
        assert!(matches!(AgentBinary::at(Utf8Path::new("/not/there")), Err(RemoteError::Binary { .. })));
    }
}
