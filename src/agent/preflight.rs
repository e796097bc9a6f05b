//! What a node says about itself before a service is started on it: limits, ports, directories, memory, clock.
//!
//! # Invariants
//!
//! * It is told as the service would find it, not as the session of whoever asks does: limits that the recipe
//!   names are those that its start sets, the others are read from the process that runs, and only where none
//!   runs from the agent, whose children inherit them.
//! * Nothing is changed, and nothing is judged: that is the controller's.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use camino::Utf8Path;

use super::accounts::{self, Account};
use super::error::AgentError;
use super::facts::{DirFact, LimitFact, LimitFrom, PortFact, Preflight, PreflightAsk, RolePreflight};
use super::layout::Root;
use super::status;
use super::supervise::{self, Unit};
use crate::model::Role;
use crate::recipe::{Limit, OrTemplate, Probe};

const LIMITS: [(&str, &str); 6] = [
    ("nofile", "Max open files"),
    ("nproc", "Max processes"),
    ("as", "Max address space"),
    ("fsize", "Max file size"),
    ("memlock", "Max locked memory"),
    ("core", "Max core file size"),
];

/// Says what is asked about the node and these roles.
pub(super) fn preflight(
    path: &Utf8Path,
    asks: &BTreeMap<Role, PreflightAsk>,
) -> Result<Preflight, AgentError> {
    let came_us = now_us();
    let root = Root::open(path)?;
    let there = path.ancestors().find(|dir| dir.is_dir()).unwrap_or(path);
    let space = crate::fs::space(there).ok();
    let uname = rustix::system::uname();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    let sockets = if asks.is_empty() { BTreeMap::new() } else { listening() };
    let mut facts = Preflight {
        came_us,
        went_us: 0,
        system: uname.sysname().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        agent_user: accounts::name_of(rustix::process::geteuid().as_raw()),
        max_map_count: number("/proc/sys/vm/max_map_count"),
        swap: kilobytes(&meminfo, "SwapTotal:"),
        memory: kilobytes(&meminfo, "MemTotal:"),
        root_bytes: space.as_ref().map(|space| space.bytes),
        root_inodes: space.and_then(|space| space.inodes),
        roles: BTreeMap::new(),
    };
    for (role, ask) in asks {
        let root = root.clone().unwrap_or_else(|| Root::imagined(path));
        let one = of_role(&root, role, ask, &sockets)?;
        facts.roles.insert(role.clone(), one);
    }
    facts.went_us = now_us();
    Ok(facts)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn kilobytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|number| number * 1024)
}

fn of_role(
    root: &Root,
    role: &Role,
    ask: &PreflightAsk,
    sockets: &BTreeMap<u16, BTreeSet<u64>>,
) -> Result<RolePreflight, AgentError> {
    let dir = root.role(role);
    let known = status::status(Some(root), Some(role))?.roles.pop();
    let release = known.as_ref().and_then(|known| known.release.clone());
    let unit = match &release {
        Some(release) => Unit::read(&dir.release_service(release))?,
        None => None,
    };
    let ask = filled(ask, unit.as_ref(), &dir.shared());
    let pid = known.and_then(|known| known.pid);
    let mut facts = RolePreflight { pid, ..RolePreflight::default() };
    let us = rustix::process::geteuid().as_raw();
    let user = ask.user.clone().unwrap_or_else(|| us.to_string());
    let account = accounts::find(&user, ask.group.as_deref());
    facts.user = account.as_ref().map_or(user, |account| account.name.clone());
    facts.no_user = account.as_ref().err().map(ToString::to_string);
    facts.limits = limits(&ask, pid);
    let listened = ask.ports.iter().filter_map(|port| Some((*port, sockets.get(port)?)));
    facts.ports = listened.map(|(port, inodes)| holder(port, inodes, pid)).collect();
    let account = account.ok();
    facts.dirs = ask.dirs.iter().map(|path| directory(path, &dir.shared(), account.as_ref())).collect();
    Ok(facts)
}

/// What was not asked for by name, from the current release.
fn filled(ask: &PreflightAsk, unit: Option<&Unit>, shared: &Utf8Path) -> PreflightAsk {
    let mut ask = ask.clone();
    if ask.limits.is_some() {
        return ask;
    }
    ask.limits = Some(unit.map(|unit| unit.limits.clone()).unwrap_or_default());
    ask.user = ask.user.or_else(|| unit.and_then(|unit| unit.user.clone()));
    ask.group = ask.group.or_else(|| unit.and_then(|unit| unit.group.clone()));
    if ask.ports.is_empty()
        && let Some(ready) = unit.and_then(|unit| unit.ready.as_ref())
    {
        match &ready.probe {
            Probe::Http { port: OrTemplate::Value(port), .. } | Probe::Tcp(OrTemplate::Value(port)) => {
                ask.ports.insert(*port);
            }
            Probe::Http { .. } | Probe::Tcp(_) | Probe::Command(_) => {}
        }
    }
    if ask.dirs.is_empty() {
        let entries = shared.read_dir_utf8().into_iter().flatten().flatten();
        ask.dirs =
            entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.path().to_owned()).collect();
    }
    ask
}

fn limits(ask: &PreflightAsk, pid: Option<u32>) -> BTreeMap<String, LimitFact> {
    let own = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let of_process = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    // Root in a container may lack what raising takes.
    let raises = supervise::may_raise_limits(std::process::id());
    let empty = BTreeMap::new();
    let wanted = ask.limits.as_ref().unwrap_or(&empty);
    let mut limits = BTreeMap::new();
    for (name, title) in LIMITS {
        let agent = parse_limit(&own, title);
        let fact = if let Some(limit) = wanted.get(name) {
            let refused = agent.filter(|_| !raises && !ask.supervised).map(|(_, hard)| hard);
            let refused = refused.filter(|hard| exceeds(*limit, *hard));
            LimitFact { soft: *limit, hard: *limit, from: LimitFrom::Recipe, refused }
        } else if let Some((soft, hard)) = of_process.as_deref().and_then(|text| parse_limit(text, title)) {
            LimitFact { soft, hard, from: LimitFrom::Process, refused: None }
        } else if let Some((soft, hard)) = agent.filter(|_| !ask.supervised) {
            LimitFact { soft, hard, from: LimitFrom::Agent, refused: None }
        } else {
            continue;
        };
        limits.insert(name.to_owned(), fact);
    }
    limits
}

fn exceeds(wanted: Limit, hard: Limit) -> bool {
    match (wanted, hard) {
        (_, Limit::Unlimited) => false,
        (Limit::Unlimited, Limit::Number(_)) => true,
        (Limit::Number(wanted), Limit::Number(hard)) => wanted > hard,
    }
}

/// A line of `/proc/<pid>/limits`: soft and hard.
fn parse_limit(text: &str, title: &str) -> Option<(Limit, Limit)> {
    let line = text.lines().find_map(|line| line.strip_prefix(title))?;
    let mut words = line.split_ascii_whitespace();
    let mut next = || match words.next()? {
        "unlimited" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::Number),
    };
    Some((next()?, next()?))
}

/// The inodes of sockets that listen, by port.
fn listening() -> BTreeMap<u16, BTreeSet<u64>> {
    let mut found: BTreeMap<u16, BTreeSet<u64>> = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            // 0A is LISTEN.
            let (Some(local), Some(&"0A"), Some(inode)) = (words.get(1), words.get(3), words.get(9)) else {
                continue;
            };
            let port = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok());
            if let (Some(port), Ok(inode)) = (port, inode.parse()) {
                found.entry(port).or_default().insert(inode);
            }
        }
    }
    found
}

/// Who holds one of these sockets.
fn holder(port: u16, inodes: &BTreeSet<u64>, own: Option<u32>) -> PortFact {
    let mut fact = PortFact { port, pid: None, program: None, own: None };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|link| {
            let text = link.to_string_lossy();
            let inode = text.strip_prefix("socket:[").and_then(|text| text.strip_suffix(']'));
            inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode| inodes.contains(&inode))
        })
    };
    // The role's own process first: a socket may be shared by several.
    let mut holders: Vec<u32> = pids.filter(holds).collect();
    holders.sort_by_key(|pid| own.is_none_or(|own| session(*pid) != Some(own)));
    if let Some(pid) = holders.first() {
        fact.pid = Some(*pid);
        fact.program =
            std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|text| text.trim().to_owned());
        fact.own = Some(own.is_some_and(|own| *pid == own || session(*pid) == session(own)));
    } else if own.is_none() {
        // Nobody of this role runs, so it is another's, whoever that is.
        fact.own = Some(false);
    }
    fact
}

/// The session of a process; a service leads its own.
fn session(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().nth(3)?.parse().ok()
}

fn directory(path: &Utf8Path, shared: &Utf8Path, account: Option<&Account>) -> DirFact {
    let there = path.ancestors().find(|dir| dir.is_dir()).unwrap_or(Utf8Path::new("/"));
    let meta = std::fs::metadata(path).ok();
    let exists = meta.as_ref().is_some_and(std::fs::Metadata::is_dir);
    let owner = meta.as_ref().map(MetadataExt::uid);
    let mut fact = DirFact {
        path: path.to_owned(),
        exists,
        made: path.starts_with(shared) && meta.is_none(),
        owner: owner.map(accounts::name_of).unwrap_or_default(),
        owned: account.is_some_and(|account| owner == Some(account.uid)),
        obstacle: None,
        free_bytes: 0,
        total_bytes: 0,
        free_inodes: None,
        total_inodes: None,
    };
    if let Ok(stat) = rustix::fs::statvfs(there.as_std_path()) {
        fact.free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        fact.total_bytes = stat.f_blocks.saturating_mul(stat.f_frsize);
        fact.free_inodes = (stat.f_files > 0).then_some(stat.f_favail);
        fact.total_inodes = (stat.f_files > 0).then_some(stat.f_files);
        if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            fact.obstacle = Some("its file system is mounted read-only".to_owned());
        }
    }
    match (account, &meta) {
        (_, Some(meta)) if !meta.is_dir() => fact.obstacle = Some("it is no directory".to_owned()),
        (Some(account), Some(_)) => {
            fact.obstacle = fact.obstacle.take().or_else(|| obstacle(path, account));
        }
        _ => {}
    }
    fact
}

/// What keeps a user from writing to a directory: its mode, or that of one above it.
fn obstacle(path: &Utf8Path, account: &Account) -> Option<String> {
    if account.uid == 0 {
        return None;
    }
    let may = |path: &Utf8Path, bits: u32| {
        let Ok(meta) = std::fs::metadata(path) else { return true };
        let shift = if meta.uid() == account.uid {
            6
        } else if meta.gid() == account.gid || account.groups.contains(&meta.gid()) {
            3
        } else {
            0
        };
        meta.mode() >> shift & bits == bits
    };
    if !may(path, 0o3) {
        return Some(format!("{} may not write to it", account.name));
    }
    let above = path.ancestors().skip(1).find(|above| !may(above, 0o1))?;
    Some(format!("{} may not pass through {above}", account.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max address space         unlimited            unlimited            bytes     \n\
                    Max open files            1024                 1048576              files     \n";
        assert_eq!(
            parse_limit(text, "Max open files"),
            Some((Limit::Number(1024), Limit::Number(1_048_576)))
        );
        assert_eq!(parse_limit(text, "Max address space"), Some((Limit::Unlimited, Limit::Unlimited)));
        assert_eq!(parse_limit(text, "Max locked memory"), None);
        assert!(exceeds(Limit::Unlimited, Limit::Number(1)) && !exceeds(Limit::Number(1), Limit::Number(1)));
    }

    #[test]
    fn what_the_recipe_names_is_what_the_start_sets() {
        let named = BTreeMap::from([("nofile".to_owned(), Limit::Number(7))]);
        let ask = PreflightAsk { limits: Some(named), ..PreflightAsk::default() };
        let facts = limits(&ask, Some(std::process::id()));
        assert_eq!((facts["nofile"].soft, facts["nofile"].from), (Limit::Number(7), LimitFrom::Recipe));
        assert_eq!(facts["nproc"].from, LimitFrom::Process);
        assert_eq!(limits(&ask, None)["nproc"].from, LimitFrom::Agent);
        // A supervisor of the system's own has limits that nobody knows before it has started something.
        let ask = PreflightAsk { supervised: true, ..ask };
        assert!(!limits(&ask, None).contains_key("nproc"));
    }

    #[test]
    fn a_listener_is_found_and_told_from_the_roles_own() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = listening();
        let facts = |own| holder(port, &sockets[&port], own);
        assert_eq!(facts(None).pid, Some(std::process::id()));
        assert_eq!(facts(None).own, Some(false));
        assert_eq!(facts(Some(std::process::id())).own, Some(true));
    }

    #[test]
    fn a_directory_says_who_may_write_to_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let temporary = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().canonicalize().unwrap()).unwrap();
        let data = path.join("shared/data");
        std::fs::create_dir_all(&data).unwrap();
        let nobody = accounts::find("65533", None).unwrap();
        let fact = directory(&data, &path.join("shared"), Some(&nobody));
        assert!(fact.exists && !fact.owned && fact.obstacle.is_some(), "{fact:?}");
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let fact = directory(&data, &path.join("shared"), Some(&nobody));
        assert!(fact.obstacle.is_some_and(|why| why.contains("pass through")));
        let new = directory(&path.join("shared/new"), &path.join("shared"), Some(&nobody));
        assert!(new.made && !new.exists && new.free_bytes > 0, "{new:?}");
        assert!(!directory(&path.join("other"), &path.join("shared"), None).made);
    }
}
