//! Telling a service to read its conf again, as its recipe says; the same under every supervisor.

use std::time::Duration;

use rustix::process::Pid;

use super::group::signal;
use super::{ProcessState, Reloaded, SuperviseError, Unit, pidfile};
use crate::agent::layout::RoleDir;
use crate::recipe::Reload;

/// How long a command may take.
const COMMAND: Duration = Duration::from_mins(1);

/// Tells the service; `unit` is that of the release that runs.
pub(super) fn reload(dir: &RoleDir, unit: &Unit) -> Result<Reloaded, SuperviseError> {
    let not = |what: String, help: &str| SuperviseError::Reload { what, help: vec![help.to_owned()] };
    let Some(reload) = &unit.reload else {
        return Err(not(
            "its recipe has no [service] reload".to_owned(),
            "add one, as in reload = { signal = \"HUP\" }, or restart it",
        ));
    };
    let process = super::status(dir)?;
    let (ProcessState::Running, Some(pid), Some(release)) = (process.state, process.pid, process.release)
    else {
        return Err(not("it does not run".to_owned(), "start it: `windlass node service start ROLE`"));
    };
    match reload {
        Reload::Signal(name) => {
            let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let sent = target.map_or(Ok(()), |pid| rustix::process::kill_process(pid, signal(name)));
            sent.map_err(|errno| {
                not(format!("process {pid} cannot be signalled: {errno}"), "is the agent its user?")
            })?;
        }
        Reload::Command(words) => {
            // The program alone: arguments may hold secrets.
            let program = words.first().map_or("", String::as_str);
            let help = "run it by hand on the node to see what it says";
            match pidfile::probe(&release, unit, words, COMMAND)? {
                Some(0) => {}
                Some(code) => return Err(not(format!("`{program}` exits with {code}"), help)),
                None => return Err(not(format!("`{program}` does not end within a minute"), help)),
            }
        }
    }
    Ok(Reloaded { pid, release })
}
