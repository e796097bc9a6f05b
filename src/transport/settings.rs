//! What one line of `~/.ssh/config` does to the settings of a host it applies to.

use std::sync::Arc;

use camino::Utf8Path;

use super::error::Reason;

/// One line: keyword, in lower case, and arguments.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) key: String,
    pub(super) arguments: Vec<String>,
    pub(super) file: Arc<Utf8Path>,
    pub(super) line: usize,
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
    pub(super) fn apply(&self, to: &mut Settings) -> Result<(), Reason> {
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
