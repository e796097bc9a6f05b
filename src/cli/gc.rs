//! `windlass gc`

use serde_json::{Value, json};

use super::args::Gc;
use super::context::Context;
use super::error::{Failure, exit};
use crate::model::ByteSize;
use crate::report::Table;
use crate::store::Garbage;

/// Removes old bundles and what nothing refers to.
pub(super) fn run(context: &Context, args: &Gc) -> Result<u8, Failure> {
    let keep = args.keep.unwrap_or(3);
    if keep == 0 {
        return Err(Failure::new(
            exit::INVALID,
            "usage",
            "--keep 0 would remove every bundle; keep at least 1",
        ));
    }
    if args.on_nodes {
        return super::gc_nodes::run(context, args);
    }
    let plan = context.store()?.gc(keep, args.dry_run)?;
    context.result(
        || {
            json!({
                "removed": plan.items.iter().map(row).collect::<Vec<_>>(),
                "bytes": plan.bytes(),
                "dry_run": args.dry_run,
            })
        },
        || {
            let mut table = Table::new(&["WHAT", "NAME", "SIZE"]).right(&[2]);
            for item in &plan.items {
                let (what, name, size) = named(item);
                table.row([what.to_owned(), name, ByteSize(size).to_string()]);
            }
            let freed = ByteSize(plan.bytes());
            match (plan.items.is_empty(), args.dry_run) {
                (true, _) => "nothing to remove\n".to_owned(),
                (false, true) => format!("{table}would free {freed}\n"),
                (false, false) => format!("{table}freed {freed}\n"),
            }
        },
    )?;
    Ok(exit::DONE)
}

fn named(item: &Garbage) -> (&'static str, String, u64) {
    match item {
        Garbage::Bundle(tagged) => ("bundle", format!("{}:{}", tagged.role, tagged.version), 0),
        Garbage::Blob { digest: Some(digest), size, .. } => ("blob", digest.to_string(), *size),
        Garbage::Blob { digest: None, path, size } => ("file", path.to_string(), *size),
        Garbage::Cache { path, size } => ("cache", path.to_string(), *size),
    }
}

fn row(item: &Garbage) -> Value {
    let (what, name, size) = named(item);
    json!({ "what": what, "name": name, "size": size })
}
