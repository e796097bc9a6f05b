//! `~/.ssh/config`: the part of `ssh_config(5)` that says where a host is and who may be let in.
//!
//! A parser of our own, because of the two published ones russh-config 0.58 knows neither `Include` nor
//! `Match` nor `Key=value` and refuses settings above the first `Host`, and ssh2-config 0.9 knows no `Match`
//! and no `%` tokens.
//!
//! # Invariants
//!
//! * As in OpenSSH, the first value found for a host wins; only `IdentityFile` adds up.
//! * A line is checked only for the hosts it applies to: what windlass does not use never stops it.
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

/// The settings of some files, in order.
#[derive(Debug, Default)]
pub(super) struct SshConfig {
    directives: Vec<Directive>,
}

#[derive(Debug)]
struct Directive {
    when: Arc<Condition>,
    key: String,
    arguments: Vec<String>,
    file: Arc<Utf8Path>,
    line: usize,
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

/// What the files say about one host, unexpanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) host_name: Option<String>,
    pub(super) user: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) identity_files: Vec<String>,
    pub(super) identities_only: Option<bool>,
    pub(super) identity_agent: Option<String>,
    pub(super) proxy_jump: Option<String>,
    pub(super) user_known_hosts: Option<Vec<String>>,
    pub(super) global_known_hosts: Option<Vec<String>>,
    pub(super) host_key_alias: Option<String>,
    pub(super) accept_new: Option<bool>,
    pub(super) hash_known_hosts: Option<bool>,
    pub(super) connect_timeout: Option<u64>,
    pub(super) alive_interval: Option<u64>,
    pub(super) alive_max: Option<usize>,
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
                _ => self.directives.push(Directive {
                    when: when.clone(),
                    key,
                    arguments,
                    file: shared.clone(),
                    line,
                }),
            }
        }
        Ok(())
    }

    /// What the files say about `host`, as the operator wrote it.
    pub(super) fn settings(&self, host: &str, user: Option<&str>) -> Result<Settings, Reason> {
        let mut settings = Settings::default();
        for directive in &self.directives {
            let names = Names {
                original: host,
                host: settings.host_name.as_deref().unwrap_or(host),
                user: user.or(settings.user.as_deref()),
            };
            if directive.when.holds(&names) {
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

impl Directive {
    fn wrong(&self, what: String) -> Reason {
        Reason::Config { file: self.file.to_path_buf(), line: self.line, what }
    }

    fn first(&self) -> Result<&str, Reason> {
        self.arguments
            .first()
            .map(String::as_str)
            .ok_or_else(|| self.wrong(format!("`{}` has no value", self.key)))
    }

    fn number<T: std::str::FromStr>(&self) -> Result<T, Reason> {
        let text = self.first()?;
        text.parse().map_err(|_| self.wrong(format!("`{text}` is not a number that `{}` can have", self.key)))
    }

    fn yes(&self) -> Result<bool, Reason> {
        match self.first()?.to_ascii_lowercase().as_str() {
            "yes" | "true" => Ok(true),
            "no" | "false" => Ok(false),
            other => Err(self.wrong(format!("`{other}` is neither yes nor no"))),
        }
    }

    /// Takes the value over where none was found before.
    fn apply(&self, to: &mut Settings) -> Result<(), Reason> {
        let text = || self.first().map(str::to_owned);
        match self.key.as_str() {
            "hostname" => set(&mut to.host_name, text()?),
            "user" => set(&mut to.user, text()?),
            "port" => set(&mut to.port, self.number()?),
            "identityfile" => to.identity_files.push(text()?),
            "identitiesonly" => set(&mut to.identities_only, self.yes()?),
            "identityagent" => set(&mut to.identity_agent, text()?),
            "proxyjump" => set(&mut to.proxy_jump, self.arguments.join("")),
            "userknownhostsfile" => set(&mut to.user_known_hosts, self.arguments.clone()),
            "globalknownhostsfile" => set(&mut to.global_known_hosts, self.arguments.clone()),
            "hostkeyalias" => set(&mut to.host_key_alias, text()?),
            "hashknownhosts" => set(&mut to.hash_known_hosts, self.yes()?),
            "connecttimeout" => set(&mut to.connect_timeout, self.seconds()?),
            "serveraliveinterval" => set(&mut to.alive_interval, self.seconds()?),
            "serveralivecountmax" => set(&mut to.alive_max, self.number()?),
            "stricthostkeychecking" => {
                // `no` lets a host in whose key changed, and windlass never does that.
                let trusts_new = matches!(self.first()?, "accept-new" | "no" | "off");
                set(&mut to.accept_new, trusts_new);
            }
            "proxycommand" if to.proxy_jump.is_none() && !self.first()?.eq_ignore_ascii_case("none") => {
                return Err(self.wrong("`ProxyCommand` is not supported; use `ProxyJump`".to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Seconds, or a time as `sshd_config(5)` has it: `90`, `10m`, `1h30m`.
    fn seconds(&self) -> Result<u64, Reason> {
        let text = self.first()?;
        let wrong = || self.wrong(format!("`{text}` is not a time that `{}` can have", self.key));
        let (mut total, mut number) = (0_u64, None::<u64>);
        for c in text.chars() {
            let factor = match c.to_ascii_lowercase() {
                '0'..='9' => {
                    let digit = u64::from(c) - u64::from('0');
                    let so_far = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit));
                    number = Some(so_far.ok_or_else(wrong)?);
                    continue;
                }
                's' => 1,
                'm' => 60,
                'h' => 3_600,
                'd' => 86_400,
                'w' => 604_800,
                _ => return Err(wrong()),
            };
            let part = number.take().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
        }
        total.checked_add(number.unwrap_or(0)).ok_or_else(wrong)
    }
}

fn set<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
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
