//! What every command needs: the project, the store, and where to write.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::args::{Common, Format};
use super::error::{Failure, exit};
use crate::fs::{IoError, IoResultExt as _};
use crate::model::{Cancel, Reference, Role, nearest};
use crate::recipe::{Lock, Project};
use crate::store::{Store, StoredBundle};

/// What every command needs.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) common: Common,
    pub(super) cancel: Cancel,
}

impl Context {
    pub(super) fn new(common: Common, cancel: Cancel) -> Self {
        Self { common, cancel }
    }

    /// The project's folder: `--dir`, or the nearest with a windlass.toml, or this one.
    pub(super) fn folder(&self) -> Result<Utf8PathBuf, Failure> {
        if let Some(dir) = &self.common.dir {
            return Ok(dir.clone());
        }
        let here = std::env::current_dir().at("find", Utf8Path::new("."))?;
        let here = Utf8PathBuf::from_path_buf(here).map_err(|path| {
            Failure::new(exit::INVALID, "usage", format!("{} is not UTF-8", path.display()))
        })?;
        let found = here.ancestors().find(|dir| dir.join("windlass.toml").is_file());
        // A path relative to where the person stands reads better in messages.
        Ok(match found {
            Some(dir) if dir == here => Utf8PathBuf::from("."),
            Some(dir) => dir.to_owned(),
            None => Utf8PathBuf::from("."),
        })
    }

    /// The project.
    pub(super) fn project(&self, folder: &Utf8Path) -> Result<Project, Failure> {
        Ok(crate::recipe::load(folder)?)
    }

    /// windlass.lock; an empty one where there is none.
    pub(super) fn lock(&self, folder: &Utf8Path) -> Result<Lock, Failure> {
        let path = folder.join(Lock::FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Lock::parse(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Lock::new()),
            Err(source) => Err(IoError { action: "read", path, source }.into()),
        }
    }

    /// The project's store, which must be there.
    pub(super) fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.folder()?.join("out"), &self.cancel)?)
    }

    /// The roles that are named, in order and each once; all of `known` if none is.
    pub(super) fn roles<'a>(
        &self,
        named: impl Iterator<Item = &'a String>,
        known: &BTreeSet<Role>,
    ) -> Result<Vec<Role>, Failure> {
        let mut roles = BTreeSet::new();
        for name in named {
            let role = known.iter().find(|role| role.as_str() == name);
            let Some(role) = role else {
                let near = nearest(name, known.iter().map(Role::as_str));
                let all: Vec<&str> = known.iter().map(Role::as_str).collect();
                let failure = Failure::new(exit::INVALID, "usage", format!("there is no role `{name}`"));
                let failure = match near.first() {
                    Some(near) => failure.help(format!("did you mean `{near}`?")),
                    None => failure,
                };
                return Err(failure.help(format!("roles: {}", all.join(", "))));
            };
            roles.insert(role.clone());
        }
        Ok(if roles.is_empty() { known.iter().cloned().collect() } else { roles.into_iter().collect() })
    }

    /// The bundle that a reference names.
    pub(super) fn bundle(&self, store: &Store, text: &str) -> Result<StoredBundle, Failure> {
        let reference: Reference = text.parse()?;
        Ok(store.bundle(&reference)?)
    }

    pub(super) fn is_json(&self) -> bool {
        self.common.format == Format::Json
    }

    /// Writes the result: text for people, or JSON for programs.
    pub(super) fn result(
        &self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let out = if self.is_json() { format!("{}\n", json()) } else { text() };
        print(&out)
    }

    /// A remark on stderr, unless `--quiet`.
    pub(super) fn remark(&self, text: &str) {
        if !self.common.quiet {
            // A remark that cannot be written is not worth failing for.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    pub(super) fn colour_stderr(&self) -> bool {
        colour(std::io::stderr().is_terminal())
    }

    pub(super) fn colour_stdout(&self) -> bool {
        !self.is_json() && colour(std::io::stdout().is_terminal())
    }

    /// Whether moving bars may be drawn.
    pub(super) fn bars(&self) -> bool {
        !self.common.quiet
            && std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
    }
}

fn colour(terminal: bool) -> bool {
    terminal
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes to stdout; a reader that went away (`windlass ls | head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other.at("write to", Utf8Path::new("stdout"))?),
    }
}
