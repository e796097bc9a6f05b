//! What windlass has to know of a supervisord's configuration: its socket, and where it looks for programs.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::agent::accounts;
use crate::agent::supervise::{SuperviseError, process};
use crate::fs::IoResultExt as _;

/// Where packages put it, in the order that supervisord itself looks.
const USUAL: [&str; 2] = ["/etc/supervisord.conf", "/etc/supervisor/supervisord.conf"];

/// A supervisord's configuration.
#[derive(Clone, Debug)]
pub(super) struct Config {
    path: Utf8PathBuf,
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Config {
    /// The one that is named, else that of the running supervisord, else the usual one.
    pub(super) fn find(named: Option<&Utf8Path>) -> Result<Self, SuperviseError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => running().or_else(|| USUAL.into_iter().map(Utf8PathBuf::from).find(|path| path.is_file())).ok_or_else(
                || {
                    SuperviseError::supervisor(
                        "no supervisord runs here as root or as the agent's user, and none is configured in /etc",
                        "install and start it (`apt-get install supervisor`), or name its configuration: \
                         [supervisor] config = \"...\" in cluster.toml",
                    )
                },
            )?,
        };
        Self::read(Some(&path))
    }

    /// The one that was found before.
    pub(super) fn read(path: Option<&Utf8Path>) -> Result<Self, SuperviseError> {
        let Some(path) = path else { return Self::find(None) };
        let meta = path.metadata().map_err(|error| {
            SuperviseError::supervisor(
                format!("supervisord's configuration {path} cannot be read: {error}"),
                "[supervisor] config = \"...\" in cluster.toml names another one",
            )
        })?;
        let us = rustix::process::geteuid().as_raw();
        if (meta.uid() != 0 && meta.uid() != us) || meta.mode() & 0o002 != 0 {
            let owner = accounts::name_of(meta.uid());
            return Err(SuperviseError::supervisor(
                format!(
                    "supervisord's configuration {path} (of {owner}, mode {:o}) can be changed by others",
                    meta.mode() & 0o7777
                ),
                "give it to root and take write access from others, once you know what is in it",
            ));
        }
        let text = std::fs::read_to_string(path).at("read", path)?;
        Ok(Self { path: path.to_owned(), sections: parse(&text) })
    }

    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// A value with its `%(here)s` and `%%` put in; others are not known here.
    pub(super) fn value(&self, section: &str, key: &str) -> Result<Option<String>, SuperviseError> {
        let Some(raw) = self.sections.get(section).and_then(|section| section.get(key)) else {
            return Ok(None);
        };
        let here = self.path.parent().unwrap_or(Utf8Path::new("/")).as_str();
        let (mut text, mut rest) = (String::new(), raw.as_str());
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("%%") {
                text.push('%');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("%(here)s") {
                text.push_str(here);
                rest = after;
            } else {
                return Err(SuperviseError::supervisor(
                    format!("{}: [{section}] {key} = {raw}: windlass knows %(here)s and %% only", self.path),
                    "write the value out",
                ));
            }
        }
        text.push_str(rest);
        Ok(Some(text))
    }

    /// The file for a program, where supervisord looks for some.
    pub(super) fn program_file(&self, name: &str) -> Result<Utf8PathBuf, SuperviseError> {
        let files = self.value("include", "files")?.unwrap_or_default();
        let here = self.path.parent().unwrap_or(Utf8Path::new("/"));
        for pattern in files.split_whitespace() {
            let pattern = here.join(pattern);
            let (Some(dir), Some(file)) = (pattern.parent(), pattern.file_name()) else { continue };
            let Some(end) = file.strip_prefix('*') else { continue };
            if end.contains(['*', '?', '[']) || dir.as_str().contains(['*', '?', '[']) || !dir.is_dir() {
                continue;
            }
            return Ok(dir.join(format!("{name}{end}")));
        }
        let found = if files.is_empty() {
            "has no [include] files".to_owned()
        } else {
            format!("has [include] files = {files}, and none of these is a folder's `*.conf`")
        };
        Err(SuperviseError::supervisor(
            format!("{} {found}: there is no place for windlass's programs", self.path),
            format!(
                "`mkdir -p {here}/conf.d`, add to it: [include] and, below, files = {here}/conf.d/*.conf; then restart supervisord"
            ),
        ))
    }
}

/// The configuration of a supervisord that runs as us or as root, if it says where it is.
fn running() -> Option<Utf8PathBuf> {
    let us = rustix::process::geteuid().as_raw();
    let mut found: Vec<(bool, Utf8PathBuf)> = process::all()
        .unwrap_or_default()
        .into_iter()
        .filter(|pid| process::owner_of(*pid).is_some_and(|uid| uid == us || uid == 0))
        .filter_map(|pid| Some((process::owner_of(pid)? != us, configuration(pid)?)))
        .collect();
    // Our own first.
    found.sort();
    found.into_iter().next().map(|(_, path)| path)
}

/// What a supervisord was told with `-c`; `None` if the process is none or was not told.
fn configuration(pid: u32) -> Option<Utf8PathBuf> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&str> =
        line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
    // A script: its interpreter comes first.
    let is = |word: &&str| Utf8Path::new(word).file_name() == Some("supervisord");
    let at = words.iter().take(3).position(is)?;
    let mut rest = words.get(at + 1..)?.iter();
    let named = loop {
        let word = *rest.next()?;
        match word {
            "-c" | "--configuration" => break *rest.next()?,
            _ if word.starts_with("--configuration=") => break word.trim_start_matches("--configuration="),
            _ => {}
        }
    };
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    Some(Utf8PathBuf::from_path_buf(cwd).ok()?.join(named))
}

/// The sections of an ini file as supervisord reads it: `;` and `#` start comments, also after a blank.
fn parse(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let (mut section, mut key) = (String::new(), String::new());
    for line in text.lines() {
        let cut = line.char_indices().find(|(at, c)| {
            matches!(c, ';' | '#') && line[..*at].chars().next_back().is_none_or(char::is_whitespace)
        });
        let line = cut.map_or(line, |(at, _)| &line[..at]);
        if line.trim().is_empty() {
            continue;
        }
        if line.starts_with(char::is_whitespace) && !key.is_empty() {
            if let Some(value) = sections.entry(section.clone()).or_default().get_mut(&key) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            key.clear();
        } else if let Some((name, value)) = line.split_once(['=', ':']) {
            key = name.trim().to_lowercase();
            sections.entry(section.clone()).or_default().insert(key.clone(), value.trim().to_owned());
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_supervisord_does() {
        let text = "; a comment\n[unix_http_server]\nfile=%(here)s/s.sock ; the socket\nchmod = 0700\n\n\
            [include]\nfiles = conf.d/*.conf\n  /etc/more/*.ini # two\n[x]\na=1;2\n";
        let config = Config { path: "/etc/supervisor/supervisord.conf".into(), sections: parse(text) };
        let value = |section: &str, key: &str| config.value(section, key).unwrap();
        assert_eq!(value("unix_http_server", "file").unwrap(), "/etc/supervisor/s.sock");
        assert_eq!(value("include", "files").unwrap(), "conf.d/*.conf\n/etc/more/*.ini");
        assert_eq!(value("x", "a").unwrap(), "1;2");
        assert!(value("x", "b").is_none());
    }
}
