//! The values of `[secrets]`: read when one is wanted, once, and shown to nobody.
//!
//! # Invariants
//!
//! * No value is part of an error, of a `Debug` output or of anything that is written.
//! * A source is asked once; an answer is kept until the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};

use crate::inventory::{Cluster, Secret, SecretFrom};
use crate::model::nearest;

/// The longest secret: a chain of certificates.
const MAX_SECRET: u64 = 1 << 20;

/// A secret's value. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// The value itself, for what is sent to a node and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a cluster's secrets come from, and those that were asked for.
pub struct Secrets {
    sources: BTreeMap<String, Secret>,
    folder: Utf8PathBuf,
    known: Mutex<BTreeMap<String, SecretText>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.names().collect::<Vec<_>>()).finish()
    }
}

/// Why a secret has no value. It names the secret and the source.
#[derive(Debug, thiserror::Error)]
#[error("secret `{name}`: {what}")]
pub struct SecretError {
    /// Which secret.
    pub name: String,
    what: String,
    help: Vec<String>,
    source: Option<std::io::Error>,
}

impl SecretError {
    /// What a person might do about it, a line each.
    pub fn help(&self) -> Vec<String> {
        self.help.clone()
    }
}

impl Secrets {
    /// Those of a cluster; `folder` is where its cluster.toml is. Nothing is read yet.
    pub fn new(cluster: &Cluster, folder: &Utf8Path) -> Self {
        Self { sources: cluster.secrets.clone(), folder: folder.to_owned(), known: Mutex::default() }
    }

    /// Every name in `[secrets]`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// The value of a secret. May wait for a command, or for a person whom that asks.
    pub fn get(&self, name: &str) -> Result<SecretText, SecretError> {
        // Held meanwhile: a second one who wants it must not start the command again.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = known.get(name) {
            return Ok(text.clone());
        }
        let text = SecretText(self.read(name)?);
        known.insert(name.to_owned(), text.clone());
        Ok(text)
    }

    /// The values of several secrets, as a stage request wants them.
    pub fn gather(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>, SecretError> {
        names.iter().map(|name| Ok((name.clone(), self.get(name)?.expose().to_owned()))).collect()
    }

    fn read(&self, name: &str) -> Result<String, SecretError> {
        let fail = |what: String, source: Option<std::io::Error>| SecretError {
            name: name.to_owned(),
            what,
            help: Vec::new(),
            source,
        };
        let Some(secret) = self.sources.get(name) else {
            let near = nearest(name, self.names());
            let mut error = fail("cluster.toml has no source for it".to_owned(), None);
            error.help = near.first().map(|near| format!("did you mean `{near}`?")).into_iter().collect();
            error
                .help
                .push(format!("add below [secrets]: {name} = {{ env = \"NAME\" }}, or file, or command"));
            return Err(error);
        };
        let text = match &secret.from {
            SecretFrom::Env(variable) => match std::env::var(variable) {
                Ok(text) => text,
                Err(std::env::VarError::NotPresent) => {
                    let mut error = fail(format!("the environment has no {variable}"), None);
                    error.help.push(format!("export {variable}=... before windlass is run"));
                    return Err(error);
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(fail(format!("{variable} is not UTF-8"), None));
                }
            },
            SecretFrom::File(path) => {
                let path = self.folder.join(path);
                let unreadable = |error| fail(format!("could not read {path}"), Some(error));
                let file = std::fs::File::open(&path).map_err(unreadable)?;
                let bytes = read_all(file).map_err(unreadable)?;
                // Editors end a file with a newline that is no part of the secret.
                let text = text_of(bytes).ok_or_else(|| fail(format!("{path} is not UTF-8"), None))?;
                text.strip_suffix('\n')
                    .map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text))
                    .to_owned()
            }
            SecretFrom::Command(words) => self.command(words).map_err(|(what, source)| fail(what, source))?,
        };
        if text.is_empty() {
            return Err(fail(format!("{} gives nothing", shown(&secret.from)), None));
        }
        Ok(text)
    }

    /// The first line of a command's output. It may ask a person on the terminal.
    fn command(&self, words: &[String]) -> Result<String, (String, Option<std::io::Error>)> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(("its command has no program".to_owned(), None));
        };
        // Arguments may be secrets themselves; the program's name is not.
        let failed = |what: &str, source| (format!("its command `{program}` {what}"), source);
        let folder = if self.folder.as_str().is_empty() { Utf8Path::new(".") } else { &self.folder };
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed("could not be started", Some(error)))?;
        let read = child.stdout.take().map_or_else(|| Ok(Vec::new()), read_all);
        let status = child.wait().map_err(|error| failed("could not be waited for", Some(error)))?;
        if !status.success() {
            return Err(failed(&format!("failed: {status}"), None));
        }
        let bytes = read.map_err(|error| failed("said too much", Some(error)))?;
        let text = text_of(bytes).ok_or_else(|| failed("said what is not UTF-8", None))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

fn shown(from: &SecretFrom) -> String {
    match from {
        SecretFrom::Env(variable) => format!("the environment's {variable}"),
        SecretFrom::File(path) => path.to_string(),
        SecretFrom::Command(words) => {
            format!("its command `{}`", words.first().map_or("", String::as_str))
        }
    }
}

fn text_of(bytes: Vec<u8>) -> Option<String> {
    // The error of `from_utf8` would hold the bytes.
    String::from_utf8(bytes).ok()
}

fn read_all(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_SECRET + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(std::io::Error::other("it has more than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::read_cluster;
    use crate::recipe::Source;

    fn secrets(folder: &Utf8Path, lines: &str) -> Secrets {
        let text = format!("schema = 1\nname = \"x\"\n[nodes]\na = {{}}\n[secrets]\n{lines}");
        let cluster = read_cluster(&Source::new("cluster.toml", &text), &BTreeMap::new()).unwrap();
        Secrets::new(&cluster, folder)
    }

    #[test]
    fn each_source_is_read_once_and_never_shown() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(temporary.path()).unwrap();
        std::fs::write(folder.join("pw"), "from a file\n").unwrap();
        let secrets = secrets(
            folder,
            "file = { file = \"pw\" }\nhome = { env = \"PATH\" }\n\
             said = { command = [\"sh\", \"-c\", \"echo x >>count; echo first; echo second\"] }",
        );
        let all: BTreeSet<String> = secrets.names().map(str::to_owned).collect();
        for _ in 0..2 {
            let values = secrets.gather(&all).unwrap();
            assert_eq!((values["file"].as_str(), values["said"].as_str()), ("from a file", "first"));
            assert_eq!(values["home"], std::env::var("PATH").unwrap());
        }
        assert_eq!(std::fs::read_to_string(folder.join("count")).unwrap(), "x\n");
        assert!(!format!("{secrets:?}").contains("first"), "{secrets:?}");
    }

    #[test]
    fn errors_name_the_secret_and_the_source_only() {
        let folder = Utf8Path::new("/");
        let secrets = secrets(
            folder,
            "gone = { file = \"not/there\" }\nunset = { env = \"WINDLASS_NOT_SET\" }\n\
             fails = { command = [\"sh\", \"-c\", \"echo hunter2; exit 3\"] }\nempty = { command = [\"true\"] }",
        );
        let said = |name: &str| {
            let error = secrets.get(name).unwrap_err();
            format!("{error} {:?} {error:?}", error.help())
        };
        assert!(said("gone").starts_with("secret `gone`: could not read /not/there"));
        assert!(said("unset").contains("the environment has no WINDLASS_NOT_SET"));
        assert!(said("fails").contains("`sh` failed: exit status: 3") && !said("fails").contains("hunter2"));
        assert!(said("empty").contains("its command `true` gives nothing"));
        assert!(said("unsett").contains("did you mean `unset`?"));
    }
}
