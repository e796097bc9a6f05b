//! `windlass unpack REF DIR`

use serde_json::json;

use super::args::Unpack;
use super::context::Context;
use super::error::{Failure, exit};
use crate::model::ByteSize;

/// Writes a bundle's tree into a folder, as a node would have it before anything is rendered.
pub(super) fn run(context: &Context, args: &Unpack) -> Result<u8, Failure> {
    let store = context.store()?;
    let bundle = context.bundle(&store, &args.reference)?;
    let unpacked = store.unpack(&bundle, &args.into, &context.cancel)?;
    context.result(
        || json!({ "into": args.into, "files": unpacked.files, "bytes": unpacked.bytes }),
        || {
            format!(
                "{} files, {}, each checked, in {}\n",
                unpacked.files,
                ByteSize(unpacked.bytes),
                args.into
            )
        },
    )?;
    Ok(exit::DONE)
}
