//! `windlass plan`: what a promotion would do, decided and shown, without doing it.

use serde_json::Value;

use super::args::Plan;
use super::cluster::runtime;
use super::context::Context;
use super::error::{Failure, exit};
use super::operate::{Wish, before_anything, left_alone, prepare, signals, wanted};
use super::session::Session;
use crate::report::{check_text, plan_json, plan_text};
use crate::rollout::At;

/// Shows the plan, and saves it where that is asked for.
pub(super) fn run(context: &Context, args: &Plan) -> Result<u8, Failure> {
    let wish = Wish::Promote { references: args.references.clone(), force: args.force };
    let interrupted = signals();
    let runtime = runtime()?;
    let prepared = runtime.block_on(before_anything(&interrupted, async {
        let loaded = args.cluster.load(context)?;
        let wanted = wanted(&args.cluster, &loaded, &wish)?;
        let session = Session::open(loaded, &wanted).await;
        let prepared = prepare(context, &session, wanted, &wish).await?;
        let problems = super::check::of_plan(context, &session, &prepared).await?;
        let drift = super::drift::before(&session.fleet, &prepared.plan).await;
        let others = left_alone(context, &session, &prepared).await?;
        Ok((prepared, problems, drift, others))
    }));
    runtime.shutdown_background();
    let (prepared, problems, drift, others) = prepared?;
    if let Some(path) = &args.save {
        prepared.plan.save(path)?;
        context.remark(&format!("saved; `windlass promote {path}` runs it"));
    }
    let (plan, previews) = (&prepared.plan, &prepared.previews);
    let json = || {
        let mut json = plan_json(plan, previews);
        json["problems"] = serde_json::json!(problems);
        json["drift"] = serde_json::json!(drift);
        json["left_alone"] = serde_json::json!(others);
        json
    };
    let text = || {
        let found = if problems.is_empty() { String::new() } else { format!("\n{}", check_text(&problems)) };
        plan_text(plan, previews) + &found + &drifted(&drift) + &alone(&others)
    };
    context.result(json, text)?;
    Ok(exit::DONE)
}

/// Who would be changed too, and is not.
fn alone(others: &[At]) -> String {
    if others.is_empty() {
        return String::new();
    }
    let names: Vec<String> = others.iter().map(|at| format!("{} {}", at.node, at.role)).collect();
    format!(
        "\nleft alone, though they would be made another way now: {}; `windlass promote` without --nodes changes \
         them too\n",
        names.join(", ")
    )
}

/// What was changed on nodes by hand, and is about to be lost.
fn drifted(drift: &[Value]) -> String {
    if drift.is_empty() {
        return String::new();
    }
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let mut lines = String::from("\nchanged on nodes since it was staged, and not in the new release:\n");
    for row in drift {
        let [node, role, what, path] = ["node", "role", "what", "path"].map(|key| text(row, key));
        lines.extend([format!("  {node} {role}: {what} {path}\n")]);
    }
    lines
}
