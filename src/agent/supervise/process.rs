//! What /proc says about processes.

use std::collections::BTreeMap;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::io::Errno;

/// A process, from `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub pid: u32,
    /// Dead, and only waits for its parent to notice.
    pub zombie: bool,
    pub group: u32,
    /// In clock ticks since the machine started; with the pid it names one process for good.
    pub start: u64,
}

/// The process of that number; `None` if there is none. That it cannot be looked at is no proof that it is gone.
pub(super) fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse(pid, &text)),
        // It ended before it was opened, or before it was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(pid: u32, text: &str) -> Option<Stat> {
    // The program's name stands in parentheses and may hold some itself.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    Some(Stat {
        pid,
        zombie: matches!(*fields.first()?, "Z" | "X" | "x"),
        group: fields.get(2)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// The live processes of a group.
pub(super) fn members(group: u32) -> io::Result<Vec<Stat>> {
    let mut members = Vec::new();
    for pid in pids()? {
        members.extend(stat(pid)?.filter(|stat| stat.group == group && !stat.zombie));
    }
    Ok(members)
}

/// Every process that can be seen.
pub(super) fn all() -> io::Result<Vec<u32>> {
    pids()
}

/// Whose a process is; `None` if there is none.
pub(super) fn owner_of(pid: u32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|meta| meta.uid())
}

/// Whose a process is; nobody's, with nobody's rights, if there is none.
pub(super) fn owner(pid: u32) -> u32 {
    owner_of(pid).unwrap_or(u32::MAX)
}

/// Whether a process may raise limits above those that it was started with.
pub fn may_raise_limits(pid: u32) -> bool {
    const SYS_RESOURCE: u32 = 24;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|bits| bits >> SYS_RESOURCE & 1 == 1)
}

/// The words that a process was started with.
pub(super) fn words(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// A process's hard limits by the names that recipes have for them; `None` is unlimited.
pub(super) fn limits(pid: u32) -> BTreeMap<&'static str, Option<u64>> {
    const NAMES: [(&str, &str); 16] = [
        ("Max cpu time", "cpu"),
        ("Max file size", "fsize"),
        ("Max data size", "data"),
        ("Max stack size", "stack"),
        ("Max core file size", "core"),
        ("Max resident set", "rss"),
        ("Max processes", "nproc"),
        ("Max open files", "nofile"),
        ("Max locked memory", "memlock"),
        ("Max address space", "as"),
        ("Max file locks", "locks"),
        ("Max pending signals", "sigpending"),
        ("Max msgqueue size", "msgqueue"),
        ("Max nice priority", "nice"),
        ("Max realtime priority", "rtprio"),
        ("Max realtime timeout", "rttime"),
    ];
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = |line: &str| {
        let (title, name) = NAMES.iter().find(|(title, _)| line.starts_with(title))?;
        let hard = line.get(title.len()..)?.split_ascii_whitespace().nth(1)?;
        Some((*name, hard.parse().ok()))
    };
    text.lines().filter_map(line).collect()
}

fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Which of `dirs` a process runs from: its program, its working directory or a mapped file is below.
///
/// What belongs to other users can be seen by root only; an agent that is not root starts nothing as them.
pub fn users_of(dirs: &[Utf8PathBuf]) -> io::Result<BTreeMap<Utf8PathBuf, u32>> {
    let mut found = BTreeMap::new();
    for pid in pids()? {
        let own = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).ok();
        let mut paths: Vec<String> =
            ["exe", "cwd"].iter().filter_map(|name| own(name)?.to_str().map(str::to_owned)).collect();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        paths.extend(maps.lines().filter_map(|line| line.find('/').map(|at| line[at..].to_owned())));
        paths.dedup();
        for path in &paths {
            if let Some(dir) = dirs.iter().find(|dir| Utf8Path::new(path).starts_with(dir)) {
                found.entry(dir.clone()).or_insert(pid);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_lines_with_any_name() {
        let rest = "S 1 77 77 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2";
        let stat = parse(77, &format!("77 (a) b) c) {rest}")).unwrap();
        assert_eq!(stat, Stat { pid: 77, zombie: false, group: 77, start: 123_456 });
        assert!(parse(1, "1 (x) S").is_none());
        let own = super::stat(std::process::id()).unwrap().unwrap();
        assert!(!own.zombie && members(own.group).unwrap().contains(&own));
    }
}
