//! Asking a person for a passphrase, on the terminal and nowhere else.

use std::fmt;
use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

use camino::Utf8Path;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// Where passphrases come from.
#[derive(Clone, Default)]
pub enum Ask {
    /// The terminal of this process, where it has one.
    #[default]
    Terminal,
    /// Nowhere: an identity that needs one is an error.
    Never,
    /// A function, given the identity's path; `None` where it has no answer.
    With(Asking),
}

/// Answers with the passphrase of the identity at a path.
pub type Asking = Arc<dyn Fn(&Utf8Path) -> Option<String> + Send + Sync>;

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminal => "Terminal",
            Self::Never => "Never",
            Self::With(_) => "With(..)",
        })
    }
}

impl Ask {
    /// The passphrase of `identity`; `None` where nobody can be asked. Blocks while a person types.
    pub(super) fn passphrase(&self, identity: &Utf8Path) -> io::Result<Option<String>> {
        match self {
            Self::Terminal => on_terminal(&format!("Passphrase of {identity}: ")),
            Self::Never => Ok(None),
            Self::With(function) => Ok(function(identity)),
        }
    }
}

/// Reads a line with echo off; `None` without a terminal.
fn on_terminal(question: &str) -> io::Result<Option<String>> {
    // Not stdin: it may carry something else, as with `windlass promote < plan.json`.
    let Ok(mut terminal) = std::fs::File::options().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    terminal.write_all(question.as_bytes())?;
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = io::BufReader::new(&terminal).read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    read?;
    line.truncate(line.trim_end_matches(['\n', '\r']).len());
    Ok(Some(line))
}
