//! `windlass verify [REF...]`

use serde_json::json;

use super::args::Verify;
use super::context::Context;
use super::error::{Failure, exit};
use crate::model::Reference;
use crate::report::{Table, bytes_bar};
use crate::store::{StoreError, Tagged, verify};

/// Hashes bundles again; exit 1 when anything is wrong.
pub(super) fn run(context: &Context, args: &Verify) -> Result<u8, Failure> {
    let store = context.store()?;
    let index = store.index()?;
    let mut bundles: Vec<Tagged> = Vec::new();
    for text in &args.references {
        let reference: Reference = text.parse()?;
        let tagged = index.find(&reference);
        bundles.push(tagged.ok_or_else(|| StoreError::NoBundle { near: index.near(&reference), reference })?);
    }
    if args.references.is_empty() {
        bundles = index.bundles().collect();
    }
    let bar = if context.bars() { Some(bytes_bar(0, "verify")) } else { None };
    let progress = |bytes| {
        if let Some(bar) = &bar {
            bar.inc_length(bytes);
            bar.inc(bytes);
        }
    };
    let problems = verify(&store, &bundles, &context.cancel, &progress)?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    context.result(
        || json!({ "problems": problems }),
        || {
            let mut table = Table::new(&["BUNDLE", "PATH", "WHAT"]);
            for one in &problems {
                table.row([one.reference.clone(), one.path.clone(), one.what.clone()]);
            }
            if problems.is_empty() {
                format!("{} bundles are as they were built\n", bundles.len())
            } else {
                table.to_string()
            }
        },
    )?;
    if problems.is_empty() {
        return Ok(exit::DONE);
    }
    context.remark("help: remove the damaged blobs from out/blobs/sha256/ and build again");
    context.remark("help: what a newer windlass wrote is not damaged; verify it with that one");
    Ok(exit::FAILED)
}
