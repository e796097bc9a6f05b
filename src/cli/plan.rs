//! `windlass plan`: what a promotion would do, decided and shown, without doing it.

use super::args::Plan;
use super::cluster::runtime;
use super::context::Context;
use super::error::{Failure, exit};
use super::operate::{Session, Wish, before_anything, prepare, remark_on_kinds, signals, wanted};
use crate::report::{plan_json, plan_text};

/// Shows the plan, and saves it where that is asked for.
pub(super) fn run(context: &Context, args: &Plan) -> Result<u8, Failure> {
    let wish = Wish::Promote { references: args.references.clone(), force: args.force };
    let interrupted = signals();
    let runtime = runtime()?;
    let prepared = runtime.block_on(before_anything(&interrupted, async {
        let loaded = args.cluster.load(context)?;
        let wanted = wanted(&args.cluster, &loaded, &wish)?;
        let session = Session::open(loaded, &wanted).await;
        prepare(context, &session, wanted, &wish).await
    }));
    runtime.shutdown_background();
    let prepared = prepared?;
    remark_on_kinds(context, &prepared);
    if let Some(path) = &args.save {
        prepared.plan.save(path)?;
        context.remark(&format!("saved; `windlass promote {path}` runs it"));
    }
    let (plan, previews) = (&prepared.plan, &prepared.previews);
    context.result(|| plan_json(plan, previews), || plan_text(plan, previews))?;
    Ok(exit::DONE)
}
