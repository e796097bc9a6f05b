//! This boot of the machine, and a clock that only it has.
//!
//! Deadlines are kept on the boot's own clock: the wall clock jumps, back and forth.

use std::ffi::OsStr;
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

/// The environment variable that names the file of the test clock.
///
/// Builds with debug assertions add the milliseconds in that file to [`now`], so that tests move deadlines instead of
/// waiting for them. A missing or empty file adds nothing. Release builds ignore the variable.
const TEST_CLOCK: &str = "WINDLASS_TEST_CLOCK";

/// How soon a sleeping process notices that its test moved the clock.
const NOTICE: Duration = Duration::from_millis(50);

/// Time since the machine started, sleep included.
pub(super) fn now() -> Duration {
    clock(ClockId::Boottime).saturating_add(moved())
}

/// Sleeps for `pause`; for less where a test may move the clock meanwhile.
pub(super) fn sleep(pause: Duration) {
    std::thread::sleep(if test_clock().is_some() { pause.min(NOTICE) } else { pause });
}

/// The variable for processes that are started with an environment of their own.
pub(super) fn test_environment() -> Option<(&'static str, &'static OsStr)> {
    Some((TEST_CLOCK, test_clock()?))
}

/// The file of the test clock; `None` in release builds.
fn test_clock() -> Option<&'static OsStr> {
    static FILE: LazyLock<Option<std::ffi::OsString>> = LazyLock::new(|| std::env::var_os(TEST_CLOCK));
    if cfg!(debug_assertions) { FILE.as_deref() } else { None }
}

/// How far a test has moved the clock. It is read each time: tests replace the file by renaming.
fn moved() -> Duration {
    let text = test_clock().and_then(|file| std::fs::read_to_string(file).ok());
    Duration::from_millis(text.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// Time since the machine started, sleep left out: what systemd counts by.
pub(super) fn monotonic() -> Duration {
    clock(ClockId::Monotonic)
}

fn clock(clock: ClockId) -> Duration {
    let now = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
