//! Progress on stderr: bars on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::shown::Shown;
use crate::build::Observer;
use crate::model::{ByteSize, Role};

/// How a build's progress is shown.
#[derive(Debug)]
pub struct BuildProgress {
    shown: Shown,
    started: Instant,
    roles: Mutex<BTreeMap<Role, State>>,
}

#[derive(Debug)]
struct State {
    bar: Option<ProgressBar>,
    total: u64,
}

impl BuildProgress {
    /// Bars, lines, or nothing.
    pub fn new(bars: bool, quiet: bool) -> Self {
        let shown = Shown::new(bars, quiet);
        Self { shown, started: Instant::now(), roles: Mutex::default() }
    }

    fn line(&self, text: &str) {
        match &self.shown {
            // Progress that cannot be written is not worth failing for.
            Shown::Lines => drop(writeln!(std::io::stderr(), "{text}")),
            Shown::Bars(_) | Shown::Nothing => {}
        }
    }
}

/// A bar of bytes with rate and time left.
pub fn bytes_bar(total: u64, name: &str) -> ProgressBar {
    // The template is a constant; were it wrong, a plain bar would do.
    let style = ProgressStyle::with_template(
        "{prefix:26!} {bar:24} {binary_bytes:>10} of {binary_total_bytes:10} {binary_bytes_per_sec:>12} {eta:>4}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_prefix(name.to_owned())
}

impl Observer for BuildProgress {
    fn planned(&self, roles: &[(Role, u64)]) {
        let mut states = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        for (role, total) in roles {
            let bar = match &self.shown {
                Shown::Bars(bars) if *total > 0 => {
                    let bar = bars.add(bytes_bar(*total, role.as_str()));
                    bar.enable_steady_tick(Duration::from_millis(100));
                    Some(bar)
                }
                Shown::Bars(_) | Shown::Lines | Shown::Nothing => None,
            };
            states.insert(role.clone(), State { bar, total: *total });
        }
        drop(states);
        for (role, total) in roles {
            if *total > 0 {
                self.line(&format!("{role}: reading {}", ByteSize(*total)));
            }
        }
    }

    fn read(&self, roles: &[Role], bytes: u64) {
        if !matches!(self.shown, Shown::Bars(_)) {
            return;
        }
        let states = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        for role in roles {
            if let Some(State { bar: Some(bar), .. }) = states.get(role) {
                bar.inc(bytes);
            }
        }
    }

    fn composed(&self, role: &Role) {
        let states = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = states.get(role) else { return };
        if let Some(bar) = &state.bar {
            bar.finish_and_clear();
        }
        let total = state.total;
        drop(states);
        if total > 0 {
            self.line(&format!("{role}: composed after {:.1} s", self.started.elapsed().as_secs_f64()));
        }
    }
}
