//! Reading archives: hostile ones, those of the real tools, cut ones, random ones.

#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod behaviour;
mod formats;
mod hostile;
mod random;
mod selection;
mod sparse;
mod support;
mod tools;
mod truncated;
mod zips;
