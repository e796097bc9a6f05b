//! The command line: arguments, one file per command, errors to text and exit codes.

mod args;
mod build;
mod cluster;
mod completions;
mod context;
mod demo;
mod diff;
mod error;
mod gc;
mod inspect;
mod lock;
mod ls;
mod node;
mod node_text;
mod push;
mod rows;
mod run;
mod set;
mod signals;
mod unpack;
mod verify;

pub use args::Arguments;
pub use run::main;
