//! Where everything is on a node, and whether that place is ours.
//!
//! ```text
//! <root>/                            0700, or as set; nobody else may write to it
//!   agent/windlass-<sha256 12>       the binary itself
//!   objects/<2 hex>/<62 hex>[.x]     contents, by sha256 (.x: executable), read-only
//!   bundles/<sha256>/                manifest and tables of contents
//!   roles/<role>/
//!     releases/<n>-<version>/        a release; read-only but for its scratch directories
//!     releases/<n>-<version>.json    where it is from; what was rendered
//!     releases/<n>-<version>.service how it runs, rendered: 0600, secrets may be in it
//!     releases/.spare-<n>-<version>/ directories and hard links for the release after that one, made ahead
//!     current -> releases/<n>-<version>
//!     shared/<name>/                 persistent directories; shared/logs/<role>.log
//!     journal.jsonl                  every change of state
//!     pid                            the process that the pidfile supervisor started
//!     supervised                     under which other supervisor the service is, and as what
//!     run.json, environment          0600; what that supervisor starts the service with, secrets included
//!     windlass                       this program, for a supervisor to start the service with
//!     guard                          locked by the guard that waits for a confirmation
//!   key                              0600; hides the digests of what holds secrets
//!   lock                             held by a rollout; says by whom
//! ```

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};

use super::memory::Memory;
use super::names::ReleaseName;
use super::trust::{check, check_way};
use crate::fs::{IoError, IoResultExt as _, calls};
use crate::model::Role;

/// A spare has a name that starts so.
pub(super) const SPARE: &str = ".spare-";

/// The folder that windlass has on a node.
#[derive(Clone, Debug)]
pub struct Root {
    path: Utf8PathBuf,
    memory: Memory,
}

/// One role's folder.
#[derive(Clone, Debug)]
pub struct RoleDir {
    root: Utf8PathBuf,
    path: Utf8PathBuf,
    role: Role,
}

/// Why a folder is not trusted as a root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Somebody else put a link there.
    #[error("{path} is a symlink that belongs to {owner}, who could point it anywhere")]
    Planted {
        /// The link.
        path: Utf8PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// It is somebody else's.
    #[error("{path} belongs to {owner}; the agent runs as {us}")]
    Owner {
        /// The folder.
        path: Utf8PathBuf,
        /// Whose it is.
        owner: String,
        /// Who we are.
        us: String,
    },
    /// Others may write to it.
    #[error("{path} (of {owner}, mode {mode:o}) can be written to by others")]
    Writable {
        /// The folder.
        path: Utf8PathBuf,
        /// Whose it is.
        owner: String,
        /// Its mode.
        mode: u32,
    },
    /// Something else is there.
    #[error("{0} is not a directory")]
    NotADirectory(Utf8PathBuf),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl LayoutError {
    /// What a person might do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Planted { path, .. } => {
                vec![format!("look at it with `ls -l {path}`, remove it, or choose another root")]
            }
            Self::Owner { path, us, .. } => vec![format!("`chown -R {us} {path}`, or choose another root")],
            Self::Writable { path, .. } => vec![format!("`chmod go-w {path}`, once you know what is in it")],
            Self::NotADirectory(_) => Vec::new(),
            Self::Io(error) => error.help(),
        }
    }
}

impl Root {
    /// The root at `path`; `None` if there is nothing.
    pub fn open(path: &Utf8Path) -> Result<Option<Self>, LayoutError> {
        check_way(path)?;
        match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IoError::new("read", path, error).into()),
            Ok(meta) => {
                check(path, &meta)?;
                let path = path.canonicalize_utf8().at("resolve", path)?;
                Ok(Some(Self { path, memory: Memory::default() }))
            }
        }
    }

    /// The root at `path`, made with `mode` if it is not there.
    pub fn create(path: &Utf8Path, mode: u32) -> Result<Self, LayoutError> {
        let root = if let Some(root) = Self::open(path)? {
            root
        } else {
            if let Some(parent) = path.parent() {
                calls::create_dir_all(parent).at("create", parent)?;
            }
            match calls::create_dir(path, mode) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other.at("create", path)?,
            }
            Self::open(path)?.ok_or_else(|| LayoutError::NotADirectory(path.to_owned()))?
        };
        for dir in [root.objects(), root.bundles(), root.roles_dir()] {
            make_dir(&dir, 0o755)?;
        }
        Ok(root)
    }

    /// The root that [`Root::create`] would make at `path`, where there is nothing yet. Nothing is made.
    pub(super) fn imagined(path: &Utf8Path) -> Self {
        let there = path.ancestors().find_map(|above| Some((above, above.canonicalize_utf8().ok()?)));
        let path = match there {
            Some((above, resolved)) => resolved.join(path.strip_prefix(above).unwrap_or(path)),
            None => path.to_owned(),
        };
        Self { path, memory: Memory::default() }
    }

    /// The same root, with what was read of it before.
    pub(super) fn remembering(self, memory: &Memory) -> Self {
        Self { memory: memory.clone(), ..self }
    }

    /// What was read of it so far.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Its folder, absolute and without symlinks.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The object store.
    pub fn objects(&self) -> Utf8PathBuf {
        self.path.join("objects")
    }

    /// Manifests and tables of contents.
    pub fn bundles(&self) -> Utf8PathBuf {
        self.path.join("bundles")
    }

    /// The lock that a rollout holds.
    pub fn lock(&self) -> Utf8PathBuf {
        self.path.join("lock")
    }

    /// What hides digests of files with secrets.
    pub fn key(&self) -> Utf8PathBuf {
        self.path.join("key")
    }

    fn roles_dir(&self) -> Utf8PathBuf {
        self.path.join("roles")
    }

    /// One role's folder, whether it is there or not.
    pub fn role(&self, role: &Role) -> RoleDir {
        let (root, path) = (self.path.clone(), self.roles_dir().join(role.as_str()));
        RoleDir { root, path, role: role.clone() }
    }

    /// Every role that has a folder, in order.
    pub fn roles(&self) -> Result<Vec<RoleDir>, IoError> {
        let dir = self.roles_dir();
        let entries = match dir.read_dir_utf8() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.at("read", &dir)?,
        };
        let mut roles = Vec::new();
        for entry in entries {
            let entry = entry.at("read", &dir)?;
            if let Ok(role) = entry.file_name().parse() {
                roles.push(self.role(&role));
            }
        }
        roles.sort_by(|a, b| a.role.cmp(&b.role));
        Ok(roles)
    }

    /// Lets other users pass through, as a service of another user must, without letting them list anything.
    pub fn let_pass(&self, role: &RoleDir) -> Result<(), IoError> {
        for dir in [self.path.clone(), self.roles_dir(), role.path.clone(), role.releases(), role.shared()] {
            let mode = dir.metadata().at("read", &dir)?.mode() & 0o7777;
            if mode & 0o011 != 0o011 {
                let mode = std::fs::Permissions::from_mode(mode | 0o011);
                std::fs::set_permissions(&dir, mode).at("change the mode of", &dir)?;
            }
        }
        Ok(())
    }
}

impl RoleDir {
    /// Makes what a role has from its first release on.
    pub fn create(&self) -> Result<(), IoError> {
        for dir in [self.path.clone(), self.releases(), self.shared()] {
            make_dir(&dir, 0o755)?;
        }
        Ok(())
    }

    /// Whether the role was ever staged here.
    pub fn exists(&self) -> bool {
        self.journal().exists()
    }

    /// Which role.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Its folder.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Where releases are.
    pub fn releases(&self) -> Utf8PathBuf {
        self.path.join("releases")
    }

    /// A release's tree.
    pub fn release(&self, name: &ReleaseName) -> Utf8PathBuf {
        self.releases().join(name.to_string())
    }

    /// What was made ahead with what a release has.
    pub fn spare(&self, name: &ReleaseName) -> Utf8PathBuf {
        self.releases().join(format!("{SPARE}{name}"))
    }

    /// What a release was made from.
    pub fn release_record(&self, name: &ReleaseName) -> Utf8PathBuf {
        self.releases().join(format!("{name}.json"))
    }

    /// How a release runs.
    pub fn release_service(&self, name: &ReleaseName) -> Utf8PathBuf {
        self.releases().join(format!("{name}.service"))
    }

    /// The link to what is current.
    pub fn current(&self) -> Utf8PathBuf {
        self.path.join("current")
    }

    /// What outlives releases.
    pub fn shared(&self) -> Utf8PathBuf {
        self.path.join("shared")
    }

    /// Every change of state.
    pub fn journal(&self) -> Utf8PathBuf {
        self.path.join("journal.jsonl")
    }

    /// Where the service's output goes.
    pub fn log(&self) -> Utf8PathBuf {
        self.shared().join("logs").join(format!("{}.log", self.role))
    }

    /// The root that it is in.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// Under which supervisor the service is, if that is not the embedded one.
    pub fn supervised(&self) -> Utf8PathBuf {
        self.path.join("supervised")
    }

    /// What supervisord starts the service with; secrets may be in it.
    pub fn run_spec(&self) -> Utf8PathBuf {
        self.path.join("run.json")
    }

    /// What systemd starts the service with; secrets may be in it.
    pub fn environment(&self) -> Utf8PathBuf {
        self.path.join("environment")
    }

    /// This program, where a supervisor finds it for as long as the role is there.
    pub fn runner(&self) -> Utf8PathBuf {
        self.path.join("windlass")
    }

    /// Why what a supervisor started did not become the service.
    pub fn run_log(&self) -> Utf8PathBuf {
        self.path.join("run.log")
    }

    /// The process that runs.
    pub fn pid(&self) -> Utf8PathBuf {
        self.path.join("pid")
    }

    /// Locked by the guard that waits.
    pub fn guard(&self) -> Utf8PathBuf {
        self.path.join("guard")
    }
}

/// Makes a directory unless it is there; a link in its place is an error.
fn make_dir(path: &Utf8Path, mode: u32) -> Result<(), IoError> {
    match calls::create_dir(path, mode) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            crate::fs::open_directory(path).map(drop)
        }
        other => other.at("create", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_private_and_ours() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(temporary.path().canonicalize().unwrap()).unwrap();
        let path = dir.join("a/root");
        assert!(Root::open(&path).unwrap().is_none());
        let root = Root::create(&path, 0o700).unwrap();
        assert_eq!(root.path(), path);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Root::open(&path), Err(LayoutError::Writable { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711)).unwrap();
        std::os::unix::fs::symlink(&path, dir.join("link")).unwrap();
        assert_eq!(Root::open(&dir.join("link")).unwrap().unwrap().path(), path);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(dir.join("link"), Some(65534), None).unwrap();
            let error = Root::open(&dir.join("link")).unwrap_err();
            assert!(error.to_string().contains("nobody"), "{error}");
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(matches!(Root::open(&path), Err(LayoutError::Owner { .. })));
        }
        std::fs::write(dir.join("file"), "").unwrap();
        assert!(matches!(Root::open(&dir.join("file")), Err(LayoutError::NotADirectory(_))));
    }
}
