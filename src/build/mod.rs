//! The parallel engine: recipes, artifacts and conf become bundles in the store.
//!
//! [`build`] is the way in. Layers are made by drivers that read sources (`work`), collect entries
//! (`collect`) and put them together (`assemble`), all on one pool and within one budget of memory.

mod artifacts;
mod assemble;
mod blocks;
mod budget;
mod collect;
mod commit;
mod compose;
mod engine;
mod error;
mod lock;
mod options;
mod relock;
mod source;
mod spill;
mod stages;
mod work;
mod writer;

use assemble::{LayerBlob, assemble};
use budget::Budget;
use writer::Writer;

pub use engine::{Built, Outcome, build};
pub use error::{BuildError, WorkError};
pub use lock::LockMismatch;
pub use options::{Observer, Options};
pub use relock::{Relocked, relock};
pub use stages::{Stage, Stages};
