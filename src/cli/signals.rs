//! Ctrl-C, TERM and HUP: the first asks the work to stop, the second stops it.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::exit;
use crate::model::Cancel;
use crate::rollout::{Interrupt, Interrupter};

/// Watches from a thread of its own, which ends with the process.
pub(super) fn watch(cancel: &Cancel) {
    let cancel = cancel.clone();
    // Without the watch a signal ends the process at once, which the store survives as well.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    // A machine that has no room for a thread has it for the work, perhaps.
    let _ = std::thread::Builder::new().spawn(move || {
        for _ in signals.forever() {
            if cancel.is_set() {
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
            cancel.set();
        }
    });
}

/// The same for a rollout: the first finishes or undoes the node at hand, the second stops now, the third ends
/// the process whatever it does.
pub(super) fn watch_rollout(interrupter: Interrupter) {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    let _ = std::thread::Builder::new().spawn(move || {
        let mut level = Interrupt::No;
        for _ in signals.forever() {
            if level == Interrupt::Now {
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
            level = interrupter.raise();
        }
    });
}
