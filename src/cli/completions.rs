//! `windlass completions SHELL` and `windlass man`

use camino::Utf8Path;
use clap::CommandFactory as _;

use super::args::{Arguments, Completions};
use super::context::print;
use super::error::{Failure, exit};
use crate::fs::IoResultExt as _;

/// Prints a completion script.
pub(super) fn run(args: &Completions) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "windlass", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(exit::DONE)
}

/// Prints the manual page of the whole command.
pub(super) fn man() -> Result<u8, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Arguments::command())
        .render(&mut page)
        .at("write", Utf8Path::new("the manual page"))?;
    print(&String::from_utf8_lossy(&page))?;
    Ok(exit::DONE)
}
