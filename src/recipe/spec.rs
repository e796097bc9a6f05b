//! What a project says, resolved: plain data that the build engine works from.
//!
//! Names are checked, globs compile, templates outside of `[service]` are rendered. Whether the
//! artifacts and conf exist is for those who open them; a [`Place`] lets them point at the recipe.

use std::collections::BTreeMap;

use super::place::Place;
use super::service::Service;
use super::version::VersionTemplate;
use crate::model::{BundlePath, ByteSize, Role};

/// windlass.toml and every recipe.
#[derive(Clone, Debug)]
pub struct Project {
    /// The project's name.
    pub name: String,
    /// `[versions]`: product to version.
    pub versions: BTreeMap<String, String>,
    /// `[defaults]`.
    pub defaults: Defaults,
    /// One per `recipes/<role>.toml`.
    pub recipes: BTreeMap<Role, Spec>,
}

/// What the flags of the same name override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Threads; 0 means all cores.
    pub jobs: usize,
    /// Bytes that one archive may unpack to.
    pub max_unpacked: ByteSize,
    /// Budget of memory while building.
    pub memory: ByteSize,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { level: 3, jobs: 0, max_unpacked: ByteSize(16 << 30), memory: ByteSize(512 << 20) }
    }
}

/// One role's recipe, with all it extends merged in.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The role.
    pub role: Role,
    /// The recipe's file, relative to the project's folder.
    pub file: String,
    /// How a bundle's version is made.
    pub version: VersionTemplate,
    /// Artifacts, in the order of their layers.
    pub unpack: Vec<Unpack>,
    /// Conf, in order.
    pub conf: Vec<Conf>,
    /// What outlives releases.
    pub persist: Vec<Persist>,
    /// What is writable and new with each release.
    pub scratch: Vec<Scratch>,
    /// Defaults that cluster.toml and nodes override.
    pub vars: serde_json::Map<String, serde_json::Value>,
    /// How the role runs; `None` if nothing runs.
    pub service: Option<Service>,
    /// Every product that the recipe's strings name, with its version; `version` itself does not count.
    ///
    /// Strings of `[service]` are rendered on the node, which has no windlass.toml.
    pub versions_used: BTreeMap<String, String>,
}

/// One `[[unpack]]`.
#[derive(Clone, Debug)]
pub struct Unpack {
    /// Path of the artifact below `install/`.
    pub artifact: BundlePath,
    /// The artifact's name in the recipe.
    pub place: Place,
    /// Where its files go; `None` is the bundle's top.
    pub into: Option<BundlePath>,
    /// Leading directories to drop.
    pub strip: Strip,
    /// Globs over paths after strip; empty means everything.
    pub include: Vec<String>,
    /// Globs over paths after strip; they win over `include`.
    pub exclude: Vec<String>,
    /// Whether setuid and setgid bits stay.
    pub keep_setuid: bool,
    /// What kind of file it is.
    pub format: Format,
}

/// Leading directories to drop from an archive's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strip {
    /// The top directory, if the archive has only one entry at its top and that is a directory.
    Auto,
    /// This many.
    Levels(u32),
}

/// What kind of file an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// By its name alone; content is never guessed from the bytes.
    Auto,
    /// `tar`
    Tar,
    /// `tar.gz`
    TarGz,
    /// `tar.zst`
    TarZst,
    /// `tar.xz`
    TarXz,
    /// `tar.bz2`
    TarBz2,
    /// `zip`
    Zip,
    /// A single file, placed as it is.
    File,
}

impl Format {
    /// Every format by its name in a recipe.
    pub const ALL: [(&'static str, Self); 8] = [
        ("auto", Self::Auto),
        ("tar", Self::Tar),
        ("tar.gz", Self::TarGz),
        ("tar.zst", Self::TarZst),
        ("tar.xz", Self::TarXz),
        ("tar.bz2", Self::TarBz2),
        ("zip", Self::Zip),
        ("file", Self::File),
    ];

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("auto", |(name, _)| name)
    }
}

/// One `[[conf]]`.
#[derive(Clone, Debug)]
pub struct Conf {
    /// A directory or file below `conf/`.
    pub from: BundlePath,
    /// Where `from` stands in the recipe.
    pub place: Place,
    /// Where it goes; `None` is the bundle's top.
    pub into: Option<BundlePath>,
    /// Globs relative to `from`: files rendered when a node stages the release.
    pub render: Vec<String>,
    /// Globs relative to `from`; empty means everything.
    pub include: Vec<String>,
    /// Globs relative to `from`; they win over `include`.
    pub exclude: Vec<String>,
}

/// One `[[persist]]`: a directory that outlives releases.
#[derive(Clone, Debug)]
pub struct Persist {
    /// Name below the role's `shared/` on a node.
    pub name: String,
    /// Where the release links to it.
    pub at: Option<BundlePath>,
    /// Where it stands in the recipe.
    pub place: Place,
}

/// One `[[scratch]]`: a writable directory, new with each release, seeded from the bundle.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Where it is in the release.
    pub at: BundlePath,
    /// Where it stands in the recipe.
    pub place: Place,
}
