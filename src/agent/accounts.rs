//! Users and groups by name, without libc's look-up, which a static program does not have.
//!
//! `/etc/passwd` and `/etc/group` first; `getent`, where there is one, knows those of a directory service.

use std::process::Command;

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Its number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Its name; a number where it has none.
    pub name: String,
    /// Its home.
    pub home: String,
}

/// Why there is no such account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} `{name}` on this node")]
pub struct NoAccount {
    kind: &'static str,
    name: String,
}

/// The account of `user`, with `group` as its group if one is given; names or numbers.
pub(super) fn find(user: &str, group: Option<&str>) -> Result<Account, NoAccount> {
    let by_name = line("passwd", user).and_then(|line| parse_user(&line));
    let by_number = || {
        let uid = user.parse().ok()?;
        Some(Account { uid, gid: uid, groups: Vec::new(), name: user.to_owned(), home: "/".to_owned() })
    };
    let missing = || NoAccount { kind: "user", name: user.to_owned() };
    let mut account = by_name.or_else(by_number).ok_or_else(missing)?;
    account.groups = further_groups(&account.name);
    if let Some(group) = group {
        let by_name = line("group", group).and_then(|line| line.split(':').nth(2)?.parse().ok());
        let missing = || NoAccount { kind: "group", name: group.to_owned() };
        account.gid = by_name.or_else(|| group.parse().ok()).ok_or_else(missing)?;
    }
    Ok(account)
}

/// The name of a user, or its number where it has none.
pub(super) fn name_of(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find(|line| line.split(':').nth(2) == Some(&*uid.to_string()));
    found.and_then(|line| line.split(':').next()).map_or_else(|| format!("user {uid}"), str::to_owned)
}

fn line(table: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/etc/{table}")).unwrap_or_default();
    let starts = format!("{name}:");
    if let Some(line) = text.lines().find(|line| line.starts_with(&starts)) {
        return Some(line.to_owned());
    }
    // A name that could be read as an option is no name of a user.
    let plain = !name.starts_with('-') && !name.is_empty() && name.bytes().any(|byte| !byte.is_ascii_digit());
    let asked = plain.then(|| Command::new("getent").args([table, name]).output().ok()).flatten()?;
    let text = String::from_utf8(asked.stdout).ok()?;
    text.lines().find(|line| line.starts_with(&starts)).map(str::to_owned)
}

fn parse_user(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = *fields else { return None };
    Some(Account {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        groups: Vec::new(),
        name: name.to_owned(),
        home: home.to_owned(),
    })
}

fn further_groups(user: &str) -> Vec<u32> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, gid, members] = *fields else { return None };
            members.split(',').any(|member| member == user).then(|| gid.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(find("root", None).unwrap().uid, 0);
        assert_eq!(find("65533", Some("root")).unwrap().gid, 0);
        assert_eq!(
            find("no-such-user", None).unwrap_err().to_string(),
            "there is no user `no-such-user` on this node"
        );
        assert_eq!(name_of(0), "root");
    }
}
