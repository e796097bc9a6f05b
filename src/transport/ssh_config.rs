//! `~/.ssh/config`: the part of `ssh_config(5)` that says where a host is and who may be let in.
//!
//! A parser of our own, because of the two published ones russh-config 0.58 knows neither `Include` nor
//! `Match` nor `Key=value` and refuses settings above the first `Host`, and ssh2-config 0.9 knows no `Match`
//! and no `%` tokens.
//!
//! # Invariants
//!
//! * As in OpenSSH, the first value found for a host wins; only `IdentityFile` adds up.
//! * A value is checked only for the hosts it applies to: what windlass does not use never stops it.
//! * A criterion that is not known (`Match exec`) never matches: nothing is run to read a configuration.
//!
//! # Not here
//!
//! `ProxyCommand` is an error for the hosts it applies to. Tokens and `~` are expanded by [`super::route`].

use std::fs;
use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::error::Reason;
use super::pattern;
use super::settings::{Directive, Settings};

/// The settings of some files, in order.
#[derive(Debug, Default)]
pub(super) struct SshConfig {
    directives: Vec<(Arc<Condition>, Directive)>,
}

#[derive(Debug)]
enum Condition {
    Always,
    Never,
    Host(Vec<String>),
    /// Criterion and its comma-separated patterns; all must hold.
    Match(Vec<(String, String)>),
    Both(Arc<Condition>, Arc<Condition>),
}

/// Files nest by `Include` at most this deep, as in OpenSSH.
const DEPTH: usize = 16;

impl SshConfig {
    /// Adds the settings of `file`, which win over those of files read later; a missing file has none.
    ///
    /// A relative `Include` is looked up in `base`, one with `~` below `home`.
    pub(super) fn read(&mut self, file: &Utf8Path, base: &Utf8Path, home: &Utf8Path) -> Result<(), Reason> {
        self.read_below(file, &Reader { base, home }, &Arc::new(Condition::Always), 0)
    }

    fn read_below(
        &mut self,
        file: &Utf8Path,
        reader: &Reader<'_>,
        outer: &Arc<Condition>,
        depth: usize,
    ) -> Result<(), Reason> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Reason::File { file: file.to_owned(), source }),
        };
        let shared: Arc<Utf8Path> = file.into();
        let mut when = outer.clone();
        for (at, text) in text.lines().enumerate() {
            let line = at + 1;
            let wrong = |what: String| Reason::Config { file: file.to_owned(), line, what };
            let Some((key, arguments)) = words(text).map_err(&wrong)? else { continue };
            match key.as_str() {
                "host" => when = both(outer, Condition::Host(arguments)),
                "match" => when = both(outer, match_condition(arguments).map_err(&wrong)?),
                "include" if depth == DEPTH => return Err(wrong("`Include` nests too deep".to_owned())),
                "include" => {
                    for argument in arguments {
                        for included in reader.expand(&argument) {
                            self.read_below(&included, reader, &when, depth + 1)?;
                        }
                    }
                }
                _ => {
                    let directive = Directive { key, arguments, file: shared.clone(), line };
                    self.directives.push((when.clone(), directive));
                }
            }
        }
        Ok(())
    }

    /// What the files say about `host`, as the operator wrote it.
    pub(super) fn settings(&self, host: &str, user: Option<&str>) -> Result<Settings, Reason> {
        let mut settings = Settings::default();
        for (when, directive) in &self.directives {
            let names = Names {
                original: host,
                host: settings.host_name.as_deref().unwrap_or(host),
                user: user.or(settings.user.as_deref()),
            };
            if when.holds(&names) {
                directive.apply(&mut settings)?;
            }
        }
        Ok(settings)
    }
}

struct Reader<'a> {
    base: &'a Utf8Path,
    home: &'a Utf8Path,
}

impl Reader<'_> {
    /// The files that an `Include` names, sorted; wildcards may stand in any component.
    fn expand(&self, argument: &str) -> Vec<Utf8PathBuf> {
        let path = match argument.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => self.base.join(argument),
        };
        let mut found = vec![Utf8PathBuf::from("/")];
        for component in path.as_str().split('/').filter(|component| !component.is_empty()) {
            if component.contains(['*', '?']) {
                found = found.iter().flat_map(|folder| matching(folder, component)).collect();
            } else {
                for folder in &mut found {
                    folder.push(component);
                }
            }
        }
        found
    }
}

fn matching(folder: &Utf8Path, component: &str) -> Vec<Utf8PathBuf> {
    let Ok(entries) = folder.read_dir_utf8() else { return Vec::new() };
    let mut found: Vec<Utf8PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| pattern::wildcard(component, entry.file_name()))
        .filter(|entry| component.starts_with('.') || !entry.file_name().starts_with('.'))
        .map(camino::Utf8DirEntry::into_path)
        .collect();
    found.sort();
    found
}

struct Names<'a> {
    original: &'a str,
    host: &'a str,
    user: Option<&'a str>,
}

impl Condition {
    fn holds(&self, names: &Names<'_>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Host(patterns) => pattern::any(patterns.iter().map(String::as_str), names.original),
            Self::Both(outer, inner) => outer.holds(names) && inner.holds(names),
            Self::Match(criteria) => criteria.iter().all(|(criterion, patterns)| {
                let text = match criterion.as_str() {
                    "host" => names.host,
                    "originalhost" => names.original,
                    "user" => names.user.unwrap_or_default(),
                    _ => return false,
                };
                pattern::any(patterns.split(','), text)
            }),
        }
    }
}

fn both(outer: &Arc<Condition>, inner: Condition) -> Arc<Condition> {
    match **outer {
        Condition::Always => Arc::new(inner),
        _ => Arc::new(Condition::Both(outer.clone(), Arc::new(inner))),
    }
}

fn match_condition(arguments: Vec<String>) -> Result<Condition, String> {
    let mut criteria = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let criterion = argument.to_ascii_lowercase();
        match criterion.as_str() {
            "all" => {}
            // They hold on OpenSSH's second reading only, which happens when names are canonicalised.
            "canonical" | "final" => return Ok(Condition::Never),
            _ => {
                let patterns =
                    arguments.next().ok_or_else(|| format!("`Match {argument}` has no pattern"))?;
                criteria.push((criterion, patterns));
            }
        }
    }
    Ok(Condition::Match(criteria))
}

/// Keyword, in lower case, and arguments; `None` for an empty line.
fn words(line: &str) -> Result<Option<(String, Vec<String>)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let mut rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let mut arguments = Vec::new();
    while !rest.is_empty() && !rest.starts_with('#') {
        let mut word = String::new();
        let mut quote = None;
        let mut used = rest.len();
        for (at, c) in rest.char_indices() {
            match quote {
                Some(open) if c == open => quote = None,
                None if c == '"' || c == '\'' => quote = Some(c),
                None if c.is_whitespace() => {
                    used = at;
                    break;
                }
                _ => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".to_owned());
        }
        arguments.push(word);
        rest = rest[used..].trim_start();
    }
    Ok(Some((key.to_ascii_lowercase(), arguments)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(files: &[(&str, &str)]) -> (tempfile::TempDir, SshConfig) {
        let folder = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(folder.path()).unwrap();
        for (name, text) in files {
            let path = base.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut config = SshConfig::default();
        config.read(&base.join("config"), base, base).unwrap();
        (folder, config)
    }

    #[test]
    fn the_first_value_wins_and_identities_add_up() {
        let (_folder, config) = config(&[(
            "config",
            "ServerAliveInterval 1m\nHost es* !es9\n  User=deploy\n Port 2222\n IdentityFile \"~/a b\"\n\
             Host *\n  User other\n  IdentityFile ~/c # why\n  ProxyJump a, b\n",
        )]);
        let es1 = config.settings("es1", None).unwrap();
        assert_eq!(es1.user.as_deref(), Some("deploy"));
        assert_eq!((es1.port, es1.alive_interval), (Some(2222), Some(60)));
        assert_eq!(es1.identity_files, ["~/a b", "~/c"]);
        assert_eq!(es1.proxy_jump.as_deref(), Some("a,b"));
        assert_eq!(config.settings("es9", None).unwrap().user.as_deref(), Some("other"));
    }

    #[test]
    fn includes_nest_and_match_looks_at_names() {
        let (_folder, config) = config(&[
            (
                "config",
                "Host db\n HostName db.example.net\n Include conf.d/*.conf\nMatch host *.example.net user root\n Port 7\nMatch exec \"true\"\n Port 9\nMatch all\n HostKeyAlias all\n",
            ),
            ("conf.d/b.conf", "User second\n"),
            ("conf.d/a.conf", "User first\nHost *\n ConnectTimeout 3\n"),
        ]);
        let db = config.settings("db", Some("root")).unwrap();
        assert_eq!(db.user.as_deref(), Some("first"));
        assert_eq!((db.port, db.connect_timeout), (Some(7), Some(3)));
        let other = config.settings("web", None).unwrap();
        assert_eq!(other, Settings { host_key_alias: Some("all".to_owned()), ..Settings::default() });
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "((Host|Match|Port|User|IdentityFile)[ =]?)?[\\PC\\s]*\n?", host in "\\PC*") {
            let (folder, mut config) = config(&[]);
            let base = Utf8Path::from_path(folder.path()).unwrap();
            fs::write(base.join("any"), text).unwrap();
            if config.read(&base.join("any"), base, base).is_ok() {
                let _any = config.settings(&host, None);
            }
        }
    }

    #[test]
    fn a_wrong_line_stops_only_the_hosts_it_is_for() {
        let (_folder, config) =
            config(&[("config", "Host bad\n Port x\nHost old\n ProxyCommand nc %h %p\n")]);
        assert!(config.settings("good", None).is_ok());
        let error = config.settings("bad", None).unwrap_err().to_string();
        assert!(error.ends_with("config:2: `x` is not a number that `port` can have"), "{error}");
        assert!(config.settings("old", None).unwrap_err().to_string().contains("use `ProxyJump`"));
    }
}
