//! `windlass resume`: the rest of the last rollout, planned anew from where the nodes are.

use super::args::Resume;
use super::conduct::{Manner, run as conduct};
use super::context::Context;
use super::error::{Failure, exit};
use super::operate::{Wish, rollouts};
use crate::rollout::Outcome;

/// Goes on with the last rollout.
pub(super) fn run(context: &Context, args: &Resume) -> Result<u8, Failure> {
    let Some(past) = rollouts(context)?.last()? else {
        let failure = Failure::new(exit::INVALID, "rollout", "there is no rollout to go on with");
        return Err(failure.help("begin one: `windlass promote`"));
    };
    if past.outcome() == Some(Outcome::Succeeded) {
        context.remark(&format!("rollout {} succeeded; looking whether that still holds", past.id));
    } else {
        context.remark(&format!("going on with {} {}", past.plan.kind.command(), past.id));
    }
    conduct(
        context,
        &args.cluster,
        &Wish::Resume { past: Box::new(past), force: args.force },
        Manner { now: false, parallel: 8 },
    )
}
