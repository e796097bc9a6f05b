//! The parallel engine: recipes, artifacts and conf become bundles in the store.

mod assemble;
mod budget;
mod collect;
mod error;
mod spill;
mod sync;

pub use assemble::{LayerBlob, assemble};
pub use budget::Budget;
pub use collect::{Buffers, Collected, Collector, Content, Shared};
pub use error::WorkError;
pub use spill::{Keeper, Kept};
pub use sync::Syncer;
