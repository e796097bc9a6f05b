//! This boot of the machine, and a clock that only it has.
//!
//! Deadlines are kept on the boot's own clock: the wall clock jumps, back and forth.

use std::sync::LazyLock;
use std::time::Duration;

use rustix::time::ClockId;

static ID: LazyLock<String> = LazyLock::new(|| {
    // Where /proc does not say, every process is a boot of its own: deadlines are then counted anew.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("process {}", std::process::id()), |text| text.trim().to_owned())
});

/// What tells this boot from others.
pub(super) fn id() -> &'static str {
    &ID
}

/// Time since the machine started, sleep included.
pub(super) fn now() -> Duration {
    clock(ClockId::Boottime)
}

/// Time since the machine started, sleep left out: what systemd counts by.
pub(super) fn monotonic() -> Duration {
    clock(ClockId::Monotonic)
}

fn clock(clock: ClockId) -> Duration {
    let now = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
