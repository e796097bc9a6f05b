//! `windlass report`: a rollout as one HTML file, for whoever was not there.

use serde_json::json;

use super::args::Report;
use super::context::Context;
use super::error::{Failure, exit};
use super::operate::rollouts;
use crate::report::rollout_html;

/// Writes the report of a rollout to stdout.
pub(super) fn run(context: &Context, args: &Report) -> Result<u8, Failure> {
    let rollouts = rollouts(context)?;
    let past = match &args.rollout {
        Some(id) => rollouts.read(id)?,
        None => rollouts.last()?.ok_or_else(|| {
            Failure::new(exit::INVALID, "rollout", "no rollout was begun from here")
                .help("`windlass promote` begins one; `windlass history` lists them")
        })?,
    };
    let html = rollout_html(&past).map_err(|error| Failure::new(exit::FAILED, "internal", error))?;
    context.result(|| json!({ "rollout": past.id, "html": html }), || html.clone())?;
    Ok(exit::DONE)
}
