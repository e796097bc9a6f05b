//! How to build, and who is told how far it is.

use crate::model::Role;

/// How to build.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads, at least 1.
    pub jobs: usize,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Budget of memory in bytes.
    pub memory: u64,
    /// Bytes that one archive may unpack to.
    pub max_unpacked: u64,
    /// Refuse artifacts that windlass.lock does not have.
    pub locked: bool,
    /// The build number; counted where it is not given.
    pub build: Option<u64>,
}

/// Is told how far a build is; called from many threads.
pub trait Observer: Sync {
    /// Each role, with the bytes that are read for it.
    fn planned(&self, roles: &[(Role, u64)]);
    /// So many more bytes were read for these roles.
    fn read(&self, roles: &[Role], bytes: u64);
    /// The role's layers are made and its manifest is composed.
    fn composed(&self, role: &Role);
}

/// Nobody is told.
impl Observer for () {
    fn planned(&self, _: &[(Role, u64)]) {}
    fn read(&self, _: &[Role], _: u64) {}
    fn composed(&self, _: &Role) {}
}
