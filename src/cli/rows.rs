//! Bundles as rows, for `build` and `ls` alike.

use serde_json::{Value, json};

use crate::build::Built;
use crate::model::{ByteSize, Digest};
use crate::report::Table;
use crate::store::StoredBundle;

/// A bundle just built, as JSON.
pub(super) fn built(bundle: &Built) -> Value {
    let layers: Vec<Value> = bundle
        .layers
        .iter()
        .map(|(layer, cached)| json!({ "digest": layer.digest, "size": layer.size, "cached": cached }))
        .collect();
    let mut row = row(
        bundle.role.as_str(),
        bundle.version.as_str(),
        &bundle.digest,
        [bundle.size, bundle.files, bundle.unpacked_size],
        &layers,
        bundle.duration.as_millis(),
    );
    row["unchanged"] = json!(bundle.unchanged);
    row
}

/// A bundle in the store, as JSON.
pub(super) fn stored(bundle: &StoredBundle) -> Value {
    let manifest = &bundle.manifest;
    let layers: Vec<Value> = manifest
        .layers
        .iter()
        .map(|layer| json!({ "digest": layer.digest, "size": layer.size, "cached": true }))
        .collect();
    let tagged = &bundle.tagged;
    row(
        tagged.role.as_str(),
        tagged.version.as_str(),
        &tagged.digest,
        [bundle.size(), manifest.files, manifest.unpacked_size],
        &layers,
        0,
    )
}

fn row(
    role: &str,
    version: &str,
    digest: &Digest,
    [size, files, unpacked_size]: [u64; 3],
    layers: &[Value],
    duration_ms: u128,
) -> Value {
    json!({
        "role": role,
        "version": version,
        "ref": format!("{role}:{version}"),
        "digest": digest,
        "size": size,
        "files": files,
        "unpacked_size": unpacked_size,
        "layers": layers,
        "duration_ms": u64::try_from(duration_ms).unwrap_or(u64::MAX),
    })
}

/// The table of `ls`.
pub(super) fn table(bundles: &[StoredBundle]) -> String {
    let mut table = Table::new(&["BUNDLE", "DIGEST", "SIZE", "FILES", "UNPACKED"]).right(&[2, 3, 4]);
    for bundle in bundles {
        let tagged = &bundle.tagged;
        table.row([
            format!("{}:{}", tagged.role, tagged.version),
            tagged.digest.short(),
            ByteSize(bundle.size()).to_string(),
            bundle.manifest.files.to_string(),
            ByteSize(bundle.manifest.unpacked_size).to_string(),
        ]);
    }
    table.to_string()
}

/// The table of `build`.
pub(super) fn built_table(bundles: &[Built]) -> String {
    let mut table = Table::new(&["BUNDLE", "DIGEST", "SIZE", "FILES", "LAYERS", "NOTE"]).right(&[2, 3]);
    for bundle in bundles {
        let new = bundle.layers.iter().filter(|(_, cached)| !cached).count();
        table.row([
            format!("{}:{}", bundle.role, bundle.version),
            bundle.digest.short(),
            ByteSize(bundle.size).to_string(),
            bundle.files.to_string(),
            format!("{new} new, {} as before", bundle.layers.len() - new),
            if bundle.unchanged { "unchanged" } else { "new" }.to_owned(),
        ]);
    }
    table.to_string()
}
