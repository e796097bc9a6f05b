//! A machine of the test's own that is booted with systemd: namespaces of this one, with units of its own only.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A systemd that runs as process 1 of its own namespaces; everything in there ends with it.
pub(crate) struct Machine {
    child: Child,
    cgroup: String,
    /// What brings a command into it.
    pub(crate) enter: Vec<String>,
    /// Its /etc/systemd/system.
    pub(crate) units: PathBuf,
}

/// Leaves this process's control group for one that the machine has for itself.
const OUTER: &str = r#"
set -e
mkdir -p "$LAB/cgroup"
mount -t cgroup2 none "$LAB/cgroup"
mkdir "$LAB/cgroup/$NAME"
echo $$ > "$LAB/cgroup/$NAME/cgroup.procs"
exec unshare --pid --cgroup --uts --ipc --mount --fork --kill-child sh "$LAB/inner.sh"
"#;

/// Units of this machine are not seen there, and systemd-tmpfiles, which clears /tmp at boot, cannot be run.
const INNER: &str = r#"
set -e
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /etc/systemd/system
mkdir -p "$LAB/units"
mount --bind "$LAB/units" /etc/systemd/system
for program in /usr/bin/systemd-tmpfiles /bin/systemd-tmpfiles; do
    if [ -e "$program" ]; then mount --bind /dev/null "$program"; fi
done
mkdir -p /run/lock /run/lab
mount --bind "$LAB" /run/lab
echo 0123456789abcdef0123456789abcdef > /run/machine-id
if [ -e /etc/machine-id ]; then mount --bind /run/machine-id /etc/machine-id; fi
cd /etc/systemd/system
for unit in sysinit basic shutdown local-fs remote-fs network-online time-sync umount; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$unit" > "$unit.target"
done
printf '[Unit]\nDescription=multi-user\nRequires=basic.target\nAllowIsolate=yes\n' > multi-user.target
systemd=/lib/systemd/systemd
if [ ! -x "$systemd" ]; then systemd=/usr/lib/systemd/systemd; fi
exec env -i container=windlass-test PATH=/usr/sbin:/usr/bin:/sbin:/bin LAB="$LAB" \
    SYSTEMD_UNIT_PATH=/etc/systemd/system "$systemd" --system --unit=multi-user.target --log-target=console \
    --show-status=no
"#;

impl Machine {
    /// Boots it; `None`, having said why, where that is not possible.
    pub(crate) fn boot(dir: &Path) -> Option<Self> {
        let skipped = |why: &str| {
            crate::support::tools::skip(&format!("a real systemd: {why}"));
            None
        };
        if !rustix::process::geteuid().is_root() {
            return skipped("only root can boot one in namespaces");
        }
        if !["/lib/systemd/systemd", "/usr/lib/systemd/systemd"].iter().any(|path| Path::new(path).exists()) {
            return skipped("the package systemd is not installed");
        }
        std::fs::write(dir.join("outer.sh"), OUTER).unwrap();
        std::fs::write(dir.join("inner.sh"), INNER).unwrap();
        let log = dir.join("boot.log");
        let out = std::fs::File::create(&log).unwrap();
        let cgroup =
            format!("windlass-test-{}", dir.file_name().unwrap().to_str().unwrap().trim_matches('.'));
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh"])
            .arg(dir.join("outer.sh"))
            .env("LAB", dir)
            .env("NAME", &cgroup)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn();
        let Ok(child) = child else { return skipped("there is no unshare") };
        let mut machine = Self { child, cgroup, enter: Vec::new(), units: dir.join("units") };
        let until = Instant::now() + Duration::from_mins(2);
        loop {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            if machine.child.try_wait().unwrap().is_some() || Instant::now() > until {
                return skipped(&format!("it does not boot here: {}", said().trim().replace('\n', "; ")));
            }
            let id = machine.child.id();
            let children =
                std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
            if let Some(first) = children.split_ascii_whitespace().next() {
                let words = ["nsenter", "-t", first, "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--"];
                machine.enter = words.map(str::to_owned).to_vec();
                let state = machine.run(&["systemctl", "is-system-running"]);
                if state.trim() == "running" {
                    return Some(machine);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a command says in there.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let out = Command::new(&self.enter[0]).args(&self.enter[1..]).args(words).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }
}

impl Machine {
    /// Ends it, as a power cut does.
    pub(crate) fn power_off(&mut self) {
        // Its process 1 goes with the one that started it, and all that it started with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let script = "mount -t cgroup2 none /sys/fs/cgroup && cd /sys/fs/cgroup && \
            for n in 1 2 3 4 5 6 7 8 9 10; do find \"$NAME\" -depth -type d -exec rmdir {} + && break; sleep 0.1; done";
        let _ = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .env("NAME", &self.cgroup)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}
