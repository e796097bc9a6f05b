//! Hashing the store's bundles again: blobs, tables, frames, files.
//!
//! Everything is read and everything that is wrong is named; one damaged file does not hide the next.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use rayon::prelude::*;

use super::{LayerReader, Store, StoreError, StoredBundle, Tagged};
use crate::bundle::{Frame, Layer, Node, Toc, Tree};
use crate::model::{Cancel, Cancelled, Digest, Hasher, causes};

/// Something wrong with a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// The bundle, as `role:version`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The file in the bundle, or the blob in the store.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

/// Told how many bytes were read since the last call.
pub type VerifyProgress<'a> = &'a (dyn Fn(u64) + Sync);

/// Checks `bundles` in parallel; a layer that several of them share is read once.
pub fn verify(
    store: &Store,
    bundles: &[Tagged],
    cancel: &Cancel,
    progress: VerifyProgress<'_>,
) -> Result<Vec<Problem>, Cancelled> {
    let mut problems = Vec::new();
    let mut loaded: Vec<StoredBundle> = Vec::new();
    for tagged in bundles {
        match store.load(tagged.clone()) {
            Ok(bundle) => loaded.push(bundle),
            Err(error) => {
                let blob = error.blob().unwrap_or(tagged.digest);
                problems.push(problem(tagged, blob_path(&blob), describe(&error)));
            }
        }
    }
    let unique: BTreeMap<Digest, &Layer> =
        loaded.iter().flat_map(|bundle| &bundle.manifest.layers).map(|layer| (layer.digest, layer)).collect();
    let checked: BTreeMap<Digest, Checked> = unique
        .into_par_iter()
        .map(|(digest, layer)| (digest, check_layer(store, layer, cancel, progress)))
        .collect();
    cancel.check()?;
    for bundle in &loaded {
        for layer in &bundle.manifest.layers {
            if let Some(checked) = checked.get(&layer.digest) {
                let found = checked.problems.iter();
                problems
                    .extend(found.map(|(path, what)| problem(&bundle.tagged, path.clone(), what.clone())));
            }
        }
        problems.extend(check_bundle(store, bundle, &checked));
    }
    problems.sort();
    problems.dedup();
    Ok(problems)
}

fn problem(tagged: &Tagged, path: String, what: String) -> Problem {
    Problem { reference: format!("{}:{}", tagged.role, tagged.version), path, what }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// An error with all its causes on one line.
fn describe(error: &dyn std::error::Error) -> String {
    std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ")
}

/// What was found out about a layer.
struct Checked {
    problems: Vec<(String, String)>,
    toc: Option<Toc>,
}

fn check_layer(store: &Store, layer: &Layer, cancel: &Cancel, progress: VerifyProgress<'_>) -> Checked {
    let mut problems = Vec::new();
    let blob = blob_path(&layer.digest);
    match hash_blob(store, layer, cancel, progress) {
        Ok(found) if found == layer.digest => {}
        Ok(found) => problems.push((blob.clone(), format!("the blob's content has digest {found}"))),
        Err(error) => problems.push((blob.clone(), describe(&error))),
    }
    let reader = match store.layer(layer) {
        Ok(reader) => reader,
        Err(error) => {
            problems.push((blob, describe(&error)));
            return Checked { problems, toc: None };
        }
    };
    match check_stream(&reader, cancel, progress, &mut problems) {
        Ok(found) if found == layer.diff_id => {}
        Ok(found) => {
            problems.push((blob, format!("its tar has digest {found}; the config says {}", layer.diff_id)));
        }
        Err(Some(error)) => problems.push((blob, describe(&error))),
        Err(None) => {}
    }
    Checked { problems, toc: Some(reader.toc) }
}

fn hash_blob(
    store: &Store,
    layer: &Layer,
    cancel: &Cancel,
    progress: VerifyProgress<'_>,
) -> Result<Digest, StoreError> {
    let mut file = store.open_blob(&layer.digest)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(StoreError::Damaged {
                    digest: layer.digest,
                    what: format!("it cannot be read: {error}"),
                });
            }
        };
        if cancel.is_set() {
            break;
        }
        hasher.update(&buffer[..count]);
        progress(count as u64);
    }
    Ok(hasher.finish())
}

/// Walks the tar once: each file's digest, each header, and the digest of the whole.
///
/// Frames are unpacked in parallel a few at a time; what needs order runs over them as they come.
fn check_stream(
    reader: &LayerReader,
    cancel: &Cancel,
    progress: VerifyProgress<'_>,
    problems: &mut Vec<(String, String)>,
) -> Result<Digest, Option<StoreError>> {
    let mut tar = Hasher::new();
    let mut walk = Walk { toc: &reader.toc, next: 0, file: Hasher::new(), at: 0 };
    for frames in reader.toc.frames.chunks(2 * rayon::current_num_threads()) {
        if cancel.is_set() {
            return Err(None);
        }
        let read = |frame: &Frame| {
            let mut raw = Vec::new();
            reader.read_frame(frame, &mut raw).map(|()| raw)
        };
        let raws: Result<Vec<_>, StoreError> = frames.par_iter().map(read).collect();
        for raw in raws.map_err(Some)? {
            progress(raw.len() as u64);
            let (walk, problems, tar) = (&mut walk, &mut *problems, &mut tar);
            rayon::join(|| tar.update(&raw), || walk.feed(&raw, problems));
        }
    }
    walk.finish(problems);
    Ok(tar.finish())
}

/// A walk over the tar that hashes each file by itself.
struct Walk<'a> {
    toc: &'a Toc,
    /// The entry whose data comes next or is being read.
    next: usize,
    file: Hasher,
    /// Bytes of the tar that were fed.
    at: u64,
}

impl Walk<'_> {
    fn feed(&mut self, mut raw: &[u8], problems: &mut Vec<(String, String)>) {
        while let (Some(entry), Some(start)) =
            (self.toc.entries.get(self.next), self.toc.offsets.get(self.next))
        {
            let end = start + entry.size();
            let skip = start.saturating_sub(self.at).min(raw.len() as u64);
            self.at += skip;
            raw = &raw[usize::try_from(skip).unwrap_or(0)..];
            let take = end.saturating_sub(self.at).min(raw.len() as u64);
            if self.at >= *start {
                let (data, rest) = raw.split_at(usize::try_from(take).unwrap_or(0));
                self.file.update(data);
                self.at += take;
                raw = rest;
            }
            if self.at < end || self.at < *start {
                return;
            }
            self.close(problems);
        }
        self.at += raw.len() as u64;
    }

    fn close(&mut self, problems: &mut Vec<(String, String)>) {
        let found = std::mem::take(&mut self.file).finish();
        let entry = &self.toc.entries[self.next];
        self.next += 1;
        if let Node::File { digest, .. } = &entry.node
            && *digest != found
        {
            problems.push((
                entry.path.to_string(),
                format!("the content has digest {found}; the table says {digest}"),
            ));
        }
    }

    fn finish(self, problems: &mut Vec<(String, String)>) {
        for entry in &self.toc.entries[self.next..] {
            if entry.size() > 0 {
                problems.push((entry.path.to_string(), "the layer ends before the file does".to_owned()));
            }
        }
    }
}

/// What only the bundle as a whole shows: that its layers make a tree, and that its counts and record are right.
fn check_bundle(
    store: &Store,
    bundle: &StoredBundle,
    checked: &BTreeMap<Digest, Checked>,
) -> BTreeSet<Problem> {
    let mut problems = BTreeSet::new();
    let mut report = |path: String, what: String| {
        problems.insert(problem(&bundle.tagged, path, what));
    };
    let manifest = blob_path(&bundle.tagged.digest);
    let tocs: Option<Vec<&Toc>> = bundle
        .manifest
        .layers
        .iter()
        .map(|layer| checked.get(&layer.digest).and_then(|checked| checked.toc.as_ref()))
        .collect();
    let Some(tocs) = tocs else { return problems };
    match Tree::new(tocs.iter().map(|toc| toc.entries.as_slice())) {
        Err(error) => report(manifest.clone(), error.to_string()),
        Ok(tree) => {
            let (files, bytes) = tree.totals();
            if (files, bytes) != (bundle.manifest.files, bundle.manifest.unpacked_size) {
                let says =
                    format!("{} files of {} bytes", bundle.manifest.files, bundle.manifest.unpacked_size);
                report(manifest, format!("it says {says}, and has {files} of {bytes}"));
            }
        }
    }
    if let Err(error) = store.record(bundle) {
        report(crate::bundle::RECORD_PATH.to_owned(), describe(&error));
    }
    problems
}
