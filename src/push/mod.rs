//! Bundles, brought to nodes: only what each lacks, to many at once, then staged.

mod wants;

pub use wants::{Wants, WantsError, wants};
