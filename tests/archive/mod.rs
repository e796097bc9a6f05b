//! Reading archives: hostile ones, those of the real tools, cut ones, random ones.

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
