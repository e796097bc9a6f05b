//! From a unit to what `windlass node exec` does: accounts found, the environment complete.

use std::collections::BTreeMap;

use super::exec::Spec;
use super::{SuperviseError, Unit, process};
use crate::agent::accounts::{self, Account};
use crate::agent::names::ReleaseName;
use crate::recipe::Limit;

/// What a service finds its programs with, unless its recipe says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whom a service runs as.
pub(super) fn account(unit: &Unit) -> Result<Account, SuperviseError> {
    let us = rustix::process::geteuid().as_raw();
    let user = unit.user.clone().unwrap_or_else(|| us.to_string());
    let found = accounts::find(&user, unit.group.as_deref());
    found.map_err(|error| SuperviseError::Start(error.to_string()))
}

/// Everything that a service finds in its environment.
pub(super) fn environment(unit: &Unit, account: &Account) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), account.home.clone()),
        ("USER".to_owned(), account.name.clone()),
        ("LOGNAME".to_owned(), account.name.clone()),
    ]);
    env.extend(unit.env.clone());
    env
}

/// What is executed by a process of the user `by`.
pub(super) fn spec(release: &ReleaseName, unit: &Unit, by: u32) -> Result<Spec, SuperviseError> {
    let account = account(unit)?;
    if account.uid != by && by != 0 {
        let who = accounts::name_of(by);
        let what = format!("it runs as {}, and what starts it, which runs as {who}, cannot", account.name);
        return Err(SuperviseError::Start(what));
    }
    let env = environment(unit, &account);
    let us = rustix::process::geteuid().as_raw();
    // Who is not root cannot set groups, and stays who it is.
    let change = by == 0 && (us != 0 || unit.user.is_some() || unit.group.is_some());
    Ok(Spec {
        pid_file: None,
        generation: 0,
        release: release.clone(),
        account: change.then_some((account.uid, account.gid, account.groups)),
        capabilities: unit.capabilities.clone(),
        limits: unit.limits.clone(),
        command: unit.command.clone(),
        env,
        cwd: unit.cwd.clone(),
        log: unit.log.clone(),
    })
}

/// Refuses a limit that a supervisor's process cannot give to what it starts; `help` says what to do.
pub(super) fn check_limits(
    unit: &Unit,
    who: &str,
    pid: u32,
    help: impl Fn(&str, &str) -> String,
) -> Result<(), SuperviseError> {
    if process::may_raise_limits(pid) {
        return Ok(());
    }
    let has = process::limits(pid);
    for (name, wanted) in &unit.limits {
        let Some(Some(has)) = has.get(name.as_str()) else { continue };
        let (wanted, more) = match wanted {
            Limit::Unlimited => ("unlimited".to_owned(), true),
            Limit::Number(number) => (number.to_string(), number > has),
        };
        if more {
            return Err(SuperviseError::supervisor(
                format!(
                    "the recipe wants the limit {name} = {wanted}; {who} may not raise limits, and was started \
                     with {has} at most"
                ),
                help(name, &wanted),
            ));
        }
    }
    Ok(())
}
