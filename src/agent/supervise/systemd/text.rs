//! A role's unit and its environment, as text. docs/supervisors.md says why each line is as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::quote::{assignment, listed, path, pattern, program, word};
use crate::agent::layout::RoleDir;
use crate::agent::names::ReleaseName;
use crate::agent::supervise::group::signal_name;
use crate::agent::supervise::{ATTEMPTS, SuperviseError, Unit};
use crate::recipe::Limit;

/// The exit code of a runner that could not become the service; systemd's own for that.
pub(super) const NOT_RUN: u32 = 203;

/// Between an end and the next start.
const PAUSE_SECONDS: u32 = 2;

/// In how long [`ATTEMPTS`] starts are too many: each of them may have lasted almost [`super::QUICK`].
const WINDOW_SECONDS: u32 = 60;

/// Where systemd's `ProtectSystem=full` lets nobody write.
const PROTECTED: [&str; 5] = ["/usr", "/boot", "/efi", "/etc", "/lib"];

/// The unit of a role's service.
///
/// `system` says whether it is for the system's manager; a user's has no rights to give, and none to take.
pub fn unit_text(
    dir: &RoleDir,
    release: &ReleaseName,
    unit: &Unit,
    system: bool,
) -> Result<String, SuperviseError> {
    let mut command = format!(
        "@{} windlass node exec --log {} --",
        program(dir.runner().as_str())?,
        word(unit.log.as_str())
    );
    for part in &unit.command {
        command.push(' ');
        command.push_str(&word(part));
    }
    let mut text = format!(
        "# Written by windlass; replaced when the service is started, removed when it is stopped.\n\
         # Settings of your own belong into a drop-in beside it: systemctl edit.\n\
         [Unit]\n\
         Description={role}, release {release}\n\
         Documentation=file:{tree}\n\
         After=network-online.target local-fs.target remote-fs.target time-sync.target\n\
         Wants=network-online.target\n\
         StartLimitIntervalSec={WINDOW_SECONDS}\n\
         StartLimitBurst={ATTEMPTS}\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart={command}\n\
         WorkingDirectory={cwd}\n\
         EnvironmentFile={environment}\n\
         UnsetEnvironment=LANG LANGUAGE LC_ALL LC_CTYPE\n\
         Restart=always\n\
         RestartSec={PAUSE_SECONDS}\n\
         KillMode=control-group\n\
         KillSignal=SIG{signal}\n\
         SendSIGKILL=yes\n\
         TimeoutStopSec={timeout}ms\n\
         SuccessExitStatus=143\n\
         UMask=0022\n\
         TasksMax=infinity\n",
        role = dir.role(),
        tree = path(dir.current().as_str())?.replace(' ', "%%20"),
        cwd = path(unit.cwd.as_str())?,
        environment = pattern(dir.environment().as_str())?,
        signal = signal_name(&unit.signal),
        timeout = unit.timeout_ms.max(1),
    );
    for (name, limit) in &unit.limits {
        let value = match limit {
            Limit::Unlimited => "infinity".to_owned(),
            Limit::Number(number) => number.to_string(),
        };
        // A String takes whatever is written to it.
        let _ = writeln!(text, "Limit{}={value}", name.to_uppercase());
    }
    if system {
        rights(&mut text, dir, unit)?;
    }
    let target = if system { "multi-user.target" } else { "default.target" };
    let _ = write!(text, "\n[Install]\nWantedBy={target}\n");
    Ok(text)
}

/// Whom it runs as, and what is kept from it.
fn rights(text: &mut String, dir: &RoleDir, unit: &Unit) -> Result<(), SuperviseError> {
    for (key, value) in [("User", &unit.user), ("Group", &unit.group)] {
        if let Some(value) = value {
            let _ = writeln!(text, "{key}={}", account(value)?);
        }
    }
    if !unit.capabilities.is_empty() {
        let _ = writeln!(text, "AmbientCapabilities={}", unit.capabilities.join(" "));
    }
    text.push_str(
        "NoNewPrivileges=yes\n\
         ProtectSystem=full\n\
         ProtectKernelTunables=yes\n\
         ProtectControlGroups=yes\n\
         RestrictSUIDSGID=yes\n",
    );
    // A /tmp of its own would hide a root that is in the other one.
    if !["/tmp", "/var/tmp"].iter().any(|shared| dir.path().starts_with(shared)) {
        text.push_str("PrivateTmp=yes\n");
    }
    if PROTECTED.iter().any(|protected| dir.path().starts_with(protected)) {
        let _ = writeln!(text, "ReadWritePaths={}", listed(dir.path().as_str())?);
    }
    Ok(())
}

fn account(name: &str) -> Result<String, SuperviseError> {
    if name.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':') {
        return Err(SuperviseError::supervisor(
            format!("systemd takes no user or group `{}`", name.escape_debug()),
            "write its number instead",
        ));
    }
    Ok(name.replace('%', "%%"))
}

/// The file of a service's environment.
pub fn environment_text(environment: &BTreeMap<String, String>) -> Result<String, SuperviseError> {
    environment.iter().map(|(name, value)| assignment(name, value)).collect()
}
