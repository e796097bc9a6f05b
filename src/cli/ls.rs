//! `windlass ls [ROLE...]`

use std::collections::BTreeSet;

use serde_json::json;

use super::args::Ls;
use super::context::Context;
use super::error::{Failure, exit};
use super::rows;

/// Lists the bundles in out/, by role, the newest of each last.
pub(super) fn run(context: &Context, args: &Ls) -> Result<u8, Failure> {
    let store = context.store()?;
    let index = store.index()?;
    let mut tagged: Vec<_> = index.bundles().collect();
    let known: BTreeSet<_> = tagged.iter().map(|bundle| bundle.role.clone()).collect();
    let roles = context.roles(args.roles.iter().chain(&args.more_roles), &known)?;
    tagged.retain(|bundle| roles.contains(&bundle.role));
    tagged.sort_by(|a, b| a.role.cmp(&b.role));
    let bundles = tagged.into_iter().map(|tagged| store.load(tagged)).collect::<Result<Vec<_>, _>>()?;
    context.result(
        || json!({ "bundles": bundles.iter().map(rows::stored).collect::<Vec<_>>() }),
        || rows::table(&bundles),
    )?;
    Ok(exit::DONE)
}
