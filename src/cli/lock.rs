//! `windlass lock`

use std::collections::BTreeSet;

use indicatif::ProgressBar;
use serde_json::json;

use super::args::Lock;
use super::context::Context;
use super::error::{Failure, exit};
use crate::build::relock;
use crate::model::BundlePath;
use crate::report::bytes_bar;

/// Records the digests of all artifacts in use.
pub(super) fn run(context: &Context, args: &Lock) -> Result<u8, Failure> {
    let folder = context.folder()?;
    let project = context.project(&folder)?;
    let old = context.lock(&folder)?;
    let update: Vec<BundlePath> = args.update.iter().map(|name| name.0.clone()).collect();
    for name in &update {
        if !project.recipes.values().flat_map(|spec| &spec.unpack).any(|unpack| unpack.artifact == *name) {
            let failure =
                Failure::new(exit::INVALID, "usage", format!("no recipe names the artifact `{name}`"));
            let known: Vec<&str> = old.iter().map(|(name, _)| name).collect();
            return Err(match crate::model::nearest(name.as_str(), known).first() {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure,
            });
        }
    }
    let jobs = super::build::jobs(project.defaults.jobs);
    // What is known already is not read, so the bar may end early.
    let named: BTreeSet<_> =
        project.recipes.values().flat_map(|spec| &spec.unpack).map(|unpack| &unpack.artifact).collect();
    let sizes = named.iter().filter_map(|name| folder.join("install").join(name.as_str()).metadata().ok());
    let bar = context.bars().then(|| bytes_bar(sizes.map(|found| found.len()).sum(), "reading artifacts"));
    let progress = |_: &BundlePath, bytes| bar.iter().for_each(|bar| bar.inc(bytes));
    let done = relock(&project, &folder, &old, &update, jobs, &context.cancel, &progress);
    bar.iter().for_each(ProgressBar::finish_and_clear);
    let done = done?;
    for (names, what) in [(&done.added, "added"), (&done.updated, "updated")] {
        for name in names {
            context.remark(&format!("{what} {name}"));
        }
    }
    for name in &done.removed {
        context.remark(&format!("removed {name}: no recipe names it any more"));
    }
    context.result(
        || {
            json!({
                "added": done.added,
                "updated": done.updated,
                "removed": done.removed,
                "unchanged": done.unchanged,
                "artifacts_read": done.read,
            })
        },
        || {
            let count = done.added.len() + done.updated.len() + done.unchanged;
            format!("windlass.lock records {count} artifacts; {} were read\n", done.read)
        },
    )?;
    Ok(exit::DONE)
}
