//! A service of which nothing is known beyond its process and its recipe's `[service.ready]`.

use super::adapter::Adapter;

/// Whatever is asked, it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Adapter for Plain {}
