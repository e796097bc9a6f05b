//! The command line: arguments, one file per command, errors to text and exit codes.

mod args;
mod build;
mod check;
mod cluster;
mod completions;
mod conduct;
mod context;
mod demo;
mod diff;
mod drift;
mod error;
mod gc;
mod gc_nodes;
mod history;
mod inspect;
mod lock;
mod ls;
mod node;
mod node_text;
mod operate;
mod plan;
mod promote;
mod push;
mod restart;
mod resume;
mod rollback;
mod rows;
mod run;
mod service;
mod set;
mod signals;
mod status;
mod unpack;
mod verify;

pub use args::Arguments;
pub use run::main;
