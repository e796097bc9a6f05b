//! `windlass restart`: the same releases, started anew, wave by wave behind the same gates.

use super::args::Restart;
use super::conduct::{Manner, run as conduct};
use super::context::Context;
use super::error::Failure;
use super::operate::Wish;

/// Restarts services.
pub(super) fn run(context: &Context, args: &Restart) -> Result<u8, Failure> {
    conduct(context, &args.cluster, &Wish::Restart, Manner { now: false, parallel: 1 })
}
