//! Builders of archives, byte by byte, and a visitor that remembers.

mod reading;
mod tar;
mod zip;

pub(crate) use reading::{Node, Recorder, read, read_path, refusal};
pub(crate) use tar::{Entry, Tar, gzip, sum};
pub(crate) use zip::Zip;

use windlass::archive::{Globs, Selection, Strip};
use windlass::model::BundlePath;

/// Everything, at its own path.
pub(crate) fn all() -> Selection {
    Selection { strip: Strip::Count(0), ..Selection::default() }
}

/// Everything but what these globs match.
pub(crate) fn without(globs: &[&str]) -> Selection {
    Selection { exclude: self::globs(globs), ..all() }
}

pub(crate) fn globs(globs: &[&str]) -> Globs {
    Globs::new(globs.iter().map(|glob| (*glob).to_owned()).collect()).unwrap()
}

pub(crate) fn path(path: &str) -> BundlePath {
    BundlePath::new(path).unwrap()
}
