//! `windlass set PRODUCT VERSION`

use serde_json::json;

use super::args::Set;
use super::context::Context;
use super::error::{Failure, exit};
use crate::fs::{IoResultExt as _, replace};
use crate::recipe::{LoadError, set_version};

/// Raises a version in windlass.toml, in place.
pub(super) fn run(context: &Context, args: &Set) -> Result<u8, Failure> {
    let folder = context.folder()?;
    let path = folder.join("windlass.toml");
    let old = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(LoadError::NoProject { folder }.into());
        }
        other => other.at("read", &path)?,
    };
    let new = set_version(&old, &args.product, &args.version)?;
    let changed = new != old;
    if changed {
        replace(&path, new.as_bytes())?;
    }
    context.result(
        || json!({ "product": args.product, "version": args.version, "changed": changed }),
        || {
            let what = if changed { "is now" } else { "was already" };
            format!("{} {what} {}\n", args.product, args.version)
        },
    )?;
    Ok(exit::DONE)
}
