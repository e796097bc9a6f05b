//! `windlass rollback`: back to the prior release, or to a version that is still on the nodes.

use super::args::Rollback;
use super::conduct::{Manner, run as conduct};
use super::context::Context;
use super::error::Failure;
use super::operate::Wish;

/// Brings nodes back, wave by wave, or all at once with `--now`.
pub(super) fn run(context: &Context, args: &Rollback) -> Result<u8, Failure> {
    let wish = Wish::Rollback { to: args.to.clone(), now: args.now, force: args.force };
    conduct(context, &args.cluster, &wish, Manner { now: args.now, parallel: 1 })
}
