//! `windlass promote`: the rollout.

use super::args::Promote;
use super::conduct::{Manner, run as conduct};
use super::context::Context;
use super::error::{Failure, exit};
use super::operate::{Wish, is_plan};
use crate::rollout;

/// Brings nodes to bundles, wave by wave.
pub(super) fn run(context: &Context, args: &Promote) -> Result<u8, Failure> {
    let wish = match args.references.as_slice() {
        [path] if is_plan(path) => Wish::Saved(Box::new(rollout::Plan::load(path.as_str().into())?)),
        references if references.iter().any(|text| is_plan(text)) => {
            let message = "a saved plan is promoted alone";
            return Err(Failure::new(exit::INVALID, "usage", message));
        }
        references => Wish::Promote { references: references.to_vec(), force: args.force },
    };
    conduct(context, &args.cluster, &wish, Manner { now: false, parallel: args.parallel })
}
