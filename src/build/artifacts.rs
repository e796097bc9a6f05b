//! The artifacts of a build: found, stamped, and their digests known or computed.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Mutex;

use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;

use super::BuildError;
use crate::fs::IoResultExt as _;
use crate::model::{BundlePath, Cancel, Digest, Hasher};
use crate::recipe::{Diagnostics, Locked, Place, Unpack};
use crate::store::{ArtifactCache, Stamp};

/// An artifact in `install/`.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its path below `install/`.
    pub name: BundlePath,
    /// Its file.
    pub path: Utf8PathBuf,
    /// As it was when the build began.
    pub stamp: Stamp,
    /// Known from the cache, or computed.
    pub digest: Option<Digest>,
}

impl Found {
    /// As windlass.lock has it, once the digest is known.
    pub(super) fn locked(&self) -> Option<Locked> {
        self.digest.map(|digest| Locked { digest, size: self.stamp.size })
    }
}

/// Finds every artifact that is named; all that are missing are reported at once.
pub(super) fn find<'a>(
    unpacks: impl IntoIterator<Item = &'a Unpack>,
    install: &Utf8Path,
    cache: &ArtifactCache,
) -> Result<BTreeMap<BundlePath, Found>, BuildError> {
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    for unpack in unpacks {
        if found.contains_key(&unpack.artifact) {
            continue;
        }
        let path = install.join(unpack.artifact.as_str());
        match path.metadata() {
            Ok(meta) if meta.is_file() => {
                let absolute = path.canonicalize_utf8().at("find", &path)?;
                let mut stamp = Stamp::of(&path)?;
                let digest = cache.get(&absolute, &stamp);
                if digest.is_none() {
                    stamp = Stamp::settled(&path)?;
                }
                let name = unpack.artifact.clone();
                found.insert(name.clone(), Found { name, path: absolute, stamp, digest });
            }
            _ => missing.push((&unpack.place, &unpack.artifact)),
        }
    }
    match missing_artifacts(&missing, install) {
        Some(problems) => Err(problems.into()),
        None => Ok(found),
    }
}

fn missing_artifacts(missing: &[(&Place, &BundlePath)], install: &Utf8Path) -> Option<Diagnostics> {
    if missing.is_empty() {
        return None;
    }
    let mut present: Vec<String> = walkdir::WalkDir::new(install)
        .max_depth(3)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| Some(entry.path().strip_prefix(install).ok()?.to_str()?.to_owned()))
        .filter(|name| name != "README.md")
        .collect();
    present.sort();
    let list = missing.iter().map(|(place, name)| {
        let near = crate::model::nearest(name.as_str(), present.iter().map(String::as_str));
        let problem = place.problem(format!("install/{name} is missing"));
        if near.is_empty() {
            problem.help("download it from its vendor and put it there")
        } else {
            problem.help(format!("install/ has {}", near.join(", ")))
        }
    });
    Diagnostics::new(list.collect())
}

/// Computes the digests that are not known, in parallel, and remembers them.
pub(super) fn hash<'a>(
    artifacts: impl IntoIterator<Item = &'a mut Found>,
    cache: &Mutex<ArtifactCache>,
    cancel: &Cancel,
    progress: &(dyn Fn(&BundlePath, u64) + Sync),
) -> Result<(), BuildError> {
    let mut unknown: Vec<_> = artifacts.into_iter().filter(|found| found.digest.is_none()).collect();
    unknown.sort_by_key(|found| std::cmp::Reverse(found.stamp.size));
    unknown.into_par_iter().with_max_len(1).try_for_each(|found| {
        found.stamp = Stamp::settled(&found.path)?;
        let digest = hash_file(&found.path, cancel, &|bytes| progress(&found.name, bytes))?;
        remember(found, digest, cache)
    })
}

/// Takes in a digest that was computed over the whole file since it was stamped.
pub(super) fn remember(
    found: &mut Found,
    digest: Digest,
    cache: &Mutex<ArtifactCache>,
) -> Result<(), BuildError> {
    check_unchanged(found)?;
    found.digest = Some(digest);
    cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner).set(&found.path, found.stamp, digest);
    Ok(())
}

/// What was read since it was stamped is what has its digest, and not what came after it.
pub(super) fn check_unchanged(found: &Found) -> Result<(), BuildError> {
    if Stamp::of(&found.path)? == found.stamp {
        Ok(())
    } else {
        Err(BuildError::Changed { name: found.name.clone() })
    }
}

fn hash_file(path: &Utf8Path, cancel: &Cancel, progress: &dyn Fn(u64)) -> Result<Digest, BuildError> {
    let mut file = std::fs::File::open(path).at("open", path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        cancel.check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                progress(count as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path).map_err(Into::into),
        }
    }
}
