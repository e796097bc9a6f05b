//! `windlass check`: what is wrong before anything is touched; and the same, asked by `plan` and `promote`.

use std::collections::BTreeMap;

use serde_json::json;

use super::args::Check;
use super::cluster::{Loaded, run as with_nodes};
use super::context::{Context, print};
use super::error::{Failure, exit};
use super::operate::{Prepared, Wanted, Wish};
use super::session::Session;
use crate::check::{Level, Levels, Problem, explain, find_code, near_codes};
use crate::model::{Digest, Role};
use crate::nodes::{Examiner, Fleet, Seen};
use crate::recipe::ServiceKind;
use crate::report::check_text;
use crate::rollout::Kind;

/// Checks a cluster, or explains a code.
pub(super) fn run(context: &Context, args: &Check) -> Result<u8, Failure> {
    if let Some(name) = &args.explain {
        return explained(context, name);
    }
    let loaded = args.cluster.load(context)?;
    let levels = Levels::read(&loaded.cluster.lints)?;
    let selected = args.cluster.select(&loaded.cluster)?;
    let all: Wanted = selected
        .into_iter()
        .map(|one| (one.node.name.clone(), one.roles.into_iter().cloned().collect()))
        .collect();
    let problems = with_nodes(&context.cancel, async {
        if args.offline {
            return examine(context, &loaded, None, BTreeMap::new(), &all).await;
        }
        let session = Session::open(loaded, &all).await;
        let nodes = Some((&session.fleet, &session.seen));
        examine(context, &session.loaded, nodes, BTreeMap::new(), &all).await
    })??;
    let problems = levels.apply(problems);
    context.result(|| json!({ "problems": problems }), || check_text(&problems))?;
    Ok(if has_errors(&problems) { exit::INVALID } else { exit::DONE })
}

fn explained(context: &Context, name: &str) -> Result<u8, Failure> {
    let Some(code) = find_code(name) else {
        let failure = Failure::new(exit::INVALID, "usage", format!("there is no lint `{name}`"));
        let near = near_codes(name);
        let failure = if near.is_empty() {
            failure
        } else {
            failure.help(format!("did you mean {}?", near.join(" or ")))
        };
        return Err(failure.help("docs/check.md lists them"));
    };
    let text = explain(code);
    let json = || json!({ "code": code.name, "level": code.level, "title": code.title, "text": text });
    context.result(json, || text.clone())?;
    Ok(exit::DONE)
}

fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.level == Level::Error)
}

async fn examine(
    context: &Context,
    loaded: &Loaded,
    nodes: Option<(&Fleet, &Seen)>,
    named: BTreeMap<Role, Digest>,
    wanted: &Wanted,
) -> Result<Vec<Problem>, Failure> {
    let store = context.store()?;
    let Loaded { cluster, secrets, folder, .. } = loaded;
    let file = cluster.nodes.first().map_or("cluster.toml", |node| node.place.file());
    let file = file.trim_start_matches("./");
    let kinds = kinds(context);
    Ok(Examiner { cluster, file, store: &store, secrets, folder, named, kinds, nodes, wanted }
        .examine()
        .await?)
}

/// What roles are, as far as the project's recipes can be read: they say it of roles without a bundle.
pub(super) fn kinds(context: &Context) -> BTreeMap<Role, ServiceKind> {
    let project = context.folder().and_then(|folder| context.project(&folder));
    let recipes = project.map(|project| project.recipes).unwrap_or_default();
    recipes
        .into_iter()
        .map(|(role, spec)| (role, spec.service.map_or(ServiceKind::Process, |service| service.kind)))
        .collect()
}

/// What is wrong with what a promotion would bring; nothing for other plans.
pub(super) async fn of_plan(
    context: &Context,
    session: &Session,
    prepared: &Prepared,
) -> Result<Vec<Problem>, Failure> {
    let plan = &prepared.plan;
    if plan.kind != Kind::Promote || plan.is_empty() {
        return Ok(Vec::new());
    }
    let cluster = &session.loaded.cluster;
    let levels = Levels::read(&cluster.lints)?;
    let named = prepared.targets.iter().map(|(role, target)| (role.clone(), target.bundle.tagged.digest));
    let nodes = Some((&session.fleet, &session.seen));
    let wanted = super::operate::of_plan(plan);
    Ok(levels.apply(examine(context, &session.loaded, nodes, named.collect(), &wanted).await?))
}

/// Refuses a promotion on errors; warnings are remarked on. One that was begun before is not held up.
pub(super) async fn before(
    context: &Context,
    session: &Session,
    prepared: &Prepared,
    wish: &Wish,
) -> Result<(), Failure> {
    // What goes on with another machine's rollout has no bundles here; they were looked at when it began.
    if matches!(wish, Wish::Resume { .. }) && prepared.targets.is_empty() {
        return Ok(());
    }
    let problems = Box::pin(of_plan(context, session, prepared)).await?;
    if problems.is_empty() {
        return Ok(());
    }
    if !has_errors(&problems) || matches!(wish, Wish::Resume { .. }) {
        context.remark(check_text(&problems).trim_end());
        return Ok(());
    }
    if context.is_json() {
        print(&format!("{}\n", json!({ "problems": problems })))?;
    } else {
        print(&check_text(&problems))?;
    }
    let errors = problems.iter().filter(|problem| problem.level == Level::Error).count();
    let message =
        format!("the promotion is refused: `windlass check` finds {errors} errors; nothing was changed");
    Err(Failure::new(exit::INVALID, "check", message)
        .help("`windlass check --explain CODE` says why it matters and what to change")
        .help("one that is meant to be so is set in cluster.toml: [lints] CODE = \"allow\""))
}
