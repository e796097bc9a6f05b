//! From what a caller says and what `~/.ssh/config` says to one hop, with nothing left open.
//!
//! The caller's word wins, then the configuration, then the default. A jump host gets from the caller only
//! what says whom to trust: its port and identity are those of its own configuration, as in OpenSSH. Its user
//! is the target's where nothing else names one, because a cluster has one account more often than not.

use std::env;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::error::Reason;
use super::settings::Settings;
use super::ssh_config::SshConfig;
use super::target::{AgentSocket, ConfigFile, SshOptions, SshTarget};

/// One SSH server and all that is needed to be let in.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    /// Where to connect to.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The name below which the host key is on record.
    pub(super) record: String,
    pub(super) identities: Vec<Utf8PathBuf>,
    /// Identities of the agent that are in none of the files are left out.
    pub(super) identities_only: bool,
    pub(super) agent: Option<Utf8PathBuf>,
    /// Files of known hosts; the first is the one to add to.
    pub(super) known_hosts: Vec<Utf8PathBuf>,
    pub(super) accept_new: bool,
    pub(super) hash_known_hosts: bool,
    pub(super) connect_timeout: Duration,
    pub(super) keepalive: Option<Duration>,
    pub(super) keepalive_max: usize,
    /// Jump hosts, the first reached first.
    pub(super) jump: Vec<String>,
}

impl Hop {
    /// `host:port`, for errors.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What hops are made from: the options and the files they name, read once.
#[derive(Debug)]
pub(super) struct Routes {
    options: SshOptions,
    config: SshConfig,
    home: Option<Utf8PathBuf>,
}

impl Routes {
    /// Reads the configuration.
    pub(super) fn new(options: SshOptions) -> Result<Self, Reason> {
        let home = options.home.clone().or_else(home);
        let mut config = SshConfig::default();
        let no_home = Utf8Path::new("/");
        let below = home.as_deref().unwrap_or(no_home);
        let folder = below.join(".ssh");
        match &options.config {
            ConfigFile::None => {}
            ConfigFile::Only(file) => config.read(file, &folder, below)?,
            ConfigFile::Usual => {
                if home.is_some() {
                    config.read(&folder.join("config"), &folder, below)?;
                }
                config.read("/etc/ssh/ssh_config".into(), "/etc/ssh".into(), below)?;
            }
        }
        Ok(Self { options, config, home })
    }

    /// The hop that `target` stands for.
    pub(super) fn hop(&self, target: &SshTarget) -> Result<Hop, Reason> {
        let found = self.config.settings(&target.host, target.user.as_deref())?;
        let user = match target.user.clone().or_else(|| found.user.clone()) {
            Some(user) => user,
            None => login_name()?,
        };
        let tokens = Tokens::new(self, target, &found, &user);
        let host = found.host_name.as_deref().map_or(Ok(target.host.clone()), |name| tokens.fill(name))?;
        let tokens = Tokens { host: &host, ..tokens };
        let identities = match &target.identity {
            Some(identity) => vec![self.path(identity.as_str())?],
            None if found.identity_files.is_empty() => self.usual_identities(),
            None => tokens.paths(&found.identity_files)?,
        };
        let jump = target.jump.as_deref().or(found.proxy_jump.as_deref()).unwrap_or("none");
        let (keepalive, keepalive_max) = self.keepalive(&found);
        Ok(Hop {
            record: found.host_key_alias.clone().unwrap_or_else(|| host.clone()),
            port: tokens.port,
            identities,
            identities_only: target.identity.is_some() || found.identities_only.unwrap_or(false),
            agent: self.agent(&found, &tokens)?,
            known_hosts: self.known_hosts(target, &found, &tokens)?,
            accept_new: target.accept_new.or(found.accept_new).unwrap_or(false),
            hash_known_hosts: found.hash_known_hosts.unwrap_or(false),
            connect_timeout: self
                .options
                .connect_timeout
                .or(found.connect_timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs))
                .unwrap_or(Duration::from_secs(15)),
            keepalive,
            keepalive_max,
            jump: split_jump(jump),
            host: host.clone(),
            user,
        })
    }

    /// What `spec`, `[user@]host[:port]`, says when it is the way to `target`.
    pub(super) fn jump(&self, spec: &str, target: &SshTarget) -> Result<SshTarget, Reason> {
        let (user, host, port) = parse_jump(spec)?;
        let found = self.config.settings(&host, user.as_deref())?;
        let user = user.or_else(|| if found.user.is_some() { None } else { target.user.clone() });
        let identity = if found.identity_files.is_empty() { target.identity.clone() } else { None };
        Ok(SshTarget {
            host,
            port,
            user,
            identity,
            jump: None,
            known_hosts: target.known_hosts.clone(),
            accept_new: target.accept_new,
        })
    }

    /// `path` with `~/` expanded.
    fn path(&self, path: &str) -> Result<Utf8PathBuf, Reason> {
        match path.strip_prefix("~/") {
            None => Ok(path.into()),
            Some(rest) => match &self.home {
                Some(home) => Ok(home.join(rest)),
                None => Err(Reason::NoHome { path: path.to_owned() }),
            },
        }
    }

    fn usual_identities(&self) -> Vec<Utf8PathBuf> {
        let names = ["id_ed25519", "id_ecdsa", "id_rsa"];
        self.home.iter().flat_map(|home| names.map(|name| home.join(".ssh").join(name))).collect()
    }

    fn keepalive(&self, found: &Settings) -> (Option<Duration>, usize) {
        let configured = found.alive_interval.map(Duration::from_secs);
        let interval = self.options.keepalive.or(configured).unwrap_or(Duration::from_secs(15));
        let max = self.options.keepalive_max.or(found.alive_max).unwrap_or(3);
        (Some(interval).filter(|interval| !interval.is_zero()), max)
    }

    fn agent(&self, found: &Settings, tokens: &Tokens<'_>) -> Result<Option<Utf8PathBuf>, Reason> {
        let environment = |name: &str| env::var(name).ok().filter(|path| !path.is_empty()).map(Into::into);
        Ok(match (&self.options.agent, found.identity_agent.as_deref()) {
            (AgentSocket::None, _) | (AgentSocket::Environment, Some("none")) => None,
            (AgentSocket::At(socket), _) => Some(socket.clone()),
            (AgentSocket::Environment, None | Some("SSH_AUTH_SOCK")) => environment("SSH_AUTH_SOCK"),
            (AgentSocket::Environment, Some(path)) => match path.strip_prefix('$') {
                Some(name) if !name.starts_with('{') => environment(name),
                _ => Some(self.path(&tokens.fill(path)?)?),
            },
        })
    }

    fn known_hosts(
        &self,
        target: &SshTarget,
        found: &Settings,
        tokens: &Tokens<'_>,
    ) -> Result<Vec<Utf8PathBuf>, Reason> {
        let mut files = match (&target.known_hosts, &found.user_known_hosts) {
            (Some(file), _) => vec![self.path(file.as_str())?],
            (None, Some(files)) => tokens.paths(files)?,
            (None, None) => vec![self.path("~/.ssh/known_hosts")?, self.path("~/.ssh/known_hosts2")?],
        };
        files.extend(match &found.global_known_hosts {
            Some(files) => tokens.paths(files)?,
            None => vec!["/etc/ssh/ssh_known_hosts".into(), "/etc/ssh/ssh_known_hosts2".into()],
        });
        Ok(files)
    }
}

/// What `%` tokens stand for.
#[derive(Clone, Copy)]
struct Tokens<'a> {
    routes: &'a Routes,
    original: &'a str,
    host: &'a str,
    port: u16,
    user: &'a str,
}

impl<'a> Tokens<'a> {
    fn new(routes: &'a Routes, target: &'a SshTarget, found: &Settings, user: &'a str) -> Self {
        let port = target.port.or(found.port).unwrap_or(22);
        Self { routes, original: &target.host, host: &target.host, port, user }
    }

    fn fill(&self, text: &str) -> Result<String, Reason> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['%', '$']) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some((name, after)) = rest.strip_prefix("${").and_then(|tail| tail.split_once('}')) {
                let value = env::var(name);
                out.push_str(&value.map_err(|_| Reason::Route(format!("`{text}`: {name} is not set")))?);
                rest = after;
                continue;
            }
            let mut chars = rest.chars();
            let (mark, token) = (chars.next(), chars.next());
            if mark == Some('$') {
                out.push('$');
                rest = &rest[1..];
                continue;
            }
            match token {
                Some('%') => out.push('%'),
                Some('h') => out.push_str(self.host),
                Some('n' | 'k') => out.push_str(self.original),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(self.user),
                Some('u') => out.push_str(&login_name()?),
                Some('d') => out.push_str(self.routes.path("~/")?.as_str().trim_end_matches('/')),
                _ => return Err(Reason::Route(format!("`{text}` has a `%` token that is not known"))),
            }
            rest = chars.as_str();
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Paths of a configuration; `none` stands for no file.
    fn paths(&self, texts: &[String]) -> Result<Vec<Utf8PathBuf>, Reason> {
        let named = texts.iter().filter(|text| *text != "none");
        named.map(|text| self.routes.path(&self.fill(text)?)).collect()
    }
}

fn split_jump(list: &str) -> Vec<String> {
    let specs = list.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    if list.eq_ignore_ascii_case("none") { Vec::new() } else { specs.map(str::to_owned).collect() }
}

type JumpParts = (Option<String>, String, Option<u16>);

fn parse_jump(spec: &str) -> Result<JumpParts, Reason> {
    let wrong = || Reason::Route(format!("`{spec}` is no jump host; expected `[user@]host[:port]`"));
    let bare = spec.strip_prefix("ssh://").unwrap_or(spec).trim_end_matches('/');
    let (user, place) = match bare.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, bare),
    };
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        (host, rest.strip_prefix(':'))
    } else {
        match place.split_once(':') {
            // More than one colon and no brackets: an IPv6 address.
            Some((_, rest)) if rest.contains(':') => (place, None),
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let port = port.map(str::parse).transpose().map_err(|_| wrong())?;
    if host.is_empty() { Err(wrong()) } else { Ok((user, host.to_owned(), port)) }
}

/// Name and home from the line of `/etc/passwd` of this user. Libc's `getpwuid` cannot be linked statically.
fn passwd() -> Option<(String, String)> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (*fields.get(2)? == uid)
            .then(|| Some(((*fields.first()?).to_owned(), (*fields.get(5)?).to_owned())))?
    })
}

fn home() -> Option<Utf8PathBuf> {
    let set = env::var("HOME").ok().filter(|home| !home.is_empty());
    set.or_else(|| passwd().map(|(_, home)| home)).map(Utf8PathBuf::from)
}

fn login_name() -> Result<String, Reason> {
    let set = ["USER", "LOGNAME"].iter().find_map(|name| env::var(name).ok().filter(|user| !user.is_empty()));
    set.or_else(|| passwd().map(|(name, _)| name)).ok_or_else(|| {
        Reason::Route("no user is given, and this machine does not tell its own; set `user`".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> (tempfile::TempDir, Routes) {
        let folder = tempfile::tempdir().unwrap();
        let home = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        let file = home.join("config");
        std::fs::write(&file, text).unwrap();
        let options = SshOptions {
            config: ConfigFile::Only(file),
            home: Some("/home/op".into()),
            ..SshOptions::default()
        };
        (folder, Routes::new(options).unwrap())
    }

    #[test]
    fn the_caller_wins_then_the_configuration_then_the_default() {
        let (_folder, routes) = routes(
            "Host db\n HostName %h.example.net\n User a\n Port 2200\n IdentityFile ~/k-%r-%p-%%\n ProxyJump j1,op@j2:23\nHost j1\n User jumper\n",
        );
        let mut target = SshTarget { host: "db".to_owned(), ..SshTarget::default() };
        let hop = routes.hop(&target).unwrap();
        assert_eq!((hop.address().as_str(), hop.user.as_str()), ("db.example.net:2200", "a"));
        assert_eq!(hop.identities, ["/home/op/k-a-2200-%"]);
        assert_eq!(hop.jump, ["j1", "op@j2:23"]);
        assert_eq!(hop.known_hosts[0], "/home/op/.ssh/known_hosts");
        target = SshTarget {
            user: Some("b".to_owned()),
            port: Some(1),
            identity: Some("~/x".into()),
            jump: Some("none".to_owned()),
            known_hosts: Some("/k".into()),
            ..target
        };
        let hop = routes.hop(&target).unwrap();
        assert_eq!((hop.port, hop.user.as_str(), hop.known_hosts[0].as_str()), (1, "b", "/k"));
        assert_eq!(hop.identities, ["/home/op/x"]);
        assert!(hop.jump.is_empty() && hop.identities_only);
        assert_eq!(routes.jump("j1", &target).unwrap().user, None);
        assert_eq!(routes.jump("j3", &target).unwrap().user.as_deref(), Some("b"));
        let bracketed = routes.jump("u@[::1]:24", &target).unwrap();
        assert_eq!((bracketed.host.as_str(), bracketed.port), ("::1", Some(24)));
        assert!(routes.jump("u@:24", &target).is_err());
    }
}
