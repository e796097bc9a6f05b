//! The node's end of a push: `windlass node receive`.
//!
//! One thread reads items; a pool unpacks, hashes and writes them as objects ([`super::unpack`]).
//!
//! # Invariants
//!
//! * What arrived whole stays, wherever the stream breaks off: the next push does not send it again.
//! * Room on the disk is checked before the first byte of content is asked for.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, Read as _, Write};

use super::bundles::{self, Bundle, MAX_TOC, Wanted, object_of};
use super::error::AgentError;
use super::layout::Root;
use super::objects::{ObjectId, Objects};
use super::stage_error::StageError;
use super::unpack::{self, Lacking};
use super::wire::{self, MAX_PATCH, Missing, PUSH_FORMAT, PushLine, ReceiveHeader, Received, WireError};
use crate::bundle::Node;
use crate::bundle::manifest::MAX_MANIFEST;
use crate::fs::{IoResultExt as _, space};
use crate::model::Digest;

fn invalid(what: impl Into<String>) -> AgentError {
    WireError::Invalid(what.into()).into()
}

fn say(out: &mut impl Write, line: &PushLine) -> Result<(), AgentError> {
    let mut bytes = serde_json::to_vec(line).map_err(|error| AgentError::Internal(error.to_string()))?;
    bytes.push(b'\n');
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(|error| WireError::Broken(error).into())
}

/// Receives a bundle; the header was read already.
pub fn receive(
    root: &Root,
    header: &ReceiveHeader,
    from: &mut impl BufRead,
    out: &mut impl Write,
) -> Result<Received, AgentError> {
    if header.format != PUSH_FORMAT {
        return Err(invalid(format!(
            "it has format {}; this windlass reads format {PUSH_FORMAT}",
            header.format
        )));
    }
    let bundle = receive_bundle(root, header, from, out)?;
    let objects = Objects::open_to_add(root)?;
    let wanted = bundle.objects();
    let mut lacking = HashMap::new();
    let missing = objects.missing(wanted.iter().map(|wanted| (wanted.id, wanted.size)))?;
    let missing: HashSet<ObjectId> = missing.into_iter().collect();
    for Wanted { id, size, layer, entry } in wanted.iter().filter(|wanted| missing.contains(&wanted.id)) {
        if *size == 0 {
            objects.add(*id, &[])?;
        } else {
            lacking.insert(*id, (*layer, *entry, *size));
        }
    }
    let missing = describe(root, &bundle, &lacking)?;
    check_room(root, &bundle, &missing)?;
    say(out, &PushLine::Missing(missing.clone()))?;
    let arrived = unpack::unpack(&bundle.tocs, &objects, lacking, from)?;
    if arrived.left > 0 {
        return Err(WireError::Short(arrived.left).into());
    }
    Ok(Received {
        objects: missing.objects,
        bytes: arrived.bytes,
        wire_bytes: arrived.wire_bytes,
        reused: wanted.len() as u64 - missing.objects,
    })
}

/// Manifest, config, and the tables of contents that the node does not have from another bundle.
fn receive_bundle(
    root: &Root,
    header: &ReceiveHeader,
    from: &mut impl BufRead,
    out: &mut impl Write,
) -> Result<Bundle, AgentError> {
    if header.manifest > MAX_MANIFEST || header.config > MAX_MANIFEST {
        return Err(invalid("its manifest or config is too large"));
    }
    let manifest = wire::read_bytes(from, header.manifest)?;
    let config = wire::read_bytes(from, header.config)?;
    let checked = bundles::check_manifest(header.bundle, &manifest, &config)?;
    let mut tocs: Vec<Option<Vec<u8>>> = vec![None; checked.layers.len()];
    let read = |from: &mut _, tocs: &mut [Option<Vec<u8>>], layer: usize| -> Result<(), AgentError> {
        let described =
            checked.layers.get(layer).ok_or_else(|| invalid(format!("there is no layer {layer}")))?;
        if described.place.size > MAX_TOC {
            return Err(invalid("a table of contents is too large"));
        }
        tocs[layer] = Some(wire::read_bytes(from, described.place.size)?);
        Ok(())
    };
    for layer in &header.tocs {
        read(from, &mut tocs, *layer)?;
    }
    for patched in &header.patched_tocs {
        if patched.size > MAX_PATCH {
            return Err(invalid("a table's patch is too large"));
        }
        let patch = wire::read_bytes(from, patched.size)?;
        let Some(described) = checked.layers.get(patched.layer) else {
            return Err(invalid(format!("there is no layer {}", patched.layer)));
        };
        let place = described.place;
        let made = root.find_toc(&patched.from).filter(|old| old.len() as u64 <= MAX_PATCH);
        let made = made.and_then(|old| wire::apply_patch(&old, &patch, place.size).ok());
        // What came of it is not what it should be: then it is asked for.
        tocs[patched.layer] = made.filter(|made| Digest::of(made) == place.digest);
    }
    for (layer, described) in checked.layers.iter().enumerate() {
        if tocs[layer].is_none() {
            let digest = described.place.digest;
            let found = root.find_toc(&digest);
            tocs[layer] = found.filter(|bytes| Digest::of(bytes) == digest);
        }
    }
    let asked: Vec<usize> = (0..tocs.len()).filter(|layer| tocs[*layer].is_none()).collect();
    say(out, &PushLine::Tocs(asked.clone()))?;
    for layer in asked {
        read(from, &mut tocs, layer)?;
    }
    let tocs: Vec<Vec<u8>> = tocs.into_iter().flatten().collect();
    Ok(root.store_bundle(header.bundle, &manifest, &config, &tocs)?)
}

fn describe(root: &Root, bundle: &Bundle, lacking: &Lacking) -> Result<Missing, AgentError> {
    let mut missing = Missing {
        objects: lacking.len() as u64,
        bytes: lacking.values().map(|(.., size)| size).sum(),
        layers: Vec::new(),
        bundles: root.known_bundles()?.into_iter().filter(|known| *known != bundle.digest).collect(),
    };
    for (layer, toc) in bundle.tocs.iter().enumerate() {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        let mut open = false;
        for (index, entry) in toc.entries.iter().enumerate() {
            // What has no content of its own neither begins nor ends a range.
            let Some((id, _)) = object_of(&entry.node).filter(|(_, size)| *size > 0) else { continue };
            let here = lacking.get(&id).is_some_and(|(of, entry, _)| (*of, *entry) == (layer, index));
            match ranges.last_mut() {
                Some(last) if here && open => last.1 = index + 1,
                _ if here => ranges.push((index, index + 1)),
                _ => {}
            }
            open = here;
        }
        missing.layers.push(ranges);
    }
    Ok(missing)
}

/// All of it must find room, objects and the release's own directories, before the first byte is asked for.
fn check_room(root: &Root, bundle: &Bundle, missing: &Missing) -> Result<(), AgentError> {
    const BLOCK: u64 = 4096;
    let entries = bundle.tree();
    let own =
        entries.entries().filter(|(_, entry)| matches!(entry.node, Node::Directory | Node::Symlink { .. }));
    let own = own.count() as u64;
    let bytes = missing.bytes + (missing.objects + own) * BLOCK / 2 + 256 * BLOCK;
    let files = missing.objects + own + 256;
    let path = root.objects();
    let free = space(&path)?;
    if free.bytes < bytes || free.inodes.is_some_and(|inodes| inodes < files) {
        let (free, free_files) = (free.bytes, free.inodes);
        return Err(StageError::NoSpace { path, bytes, files, free, free_files }.into());
    }
    Ok(())
}

/// Reads a line of at most `max` bytes.
pub fn read_line(from: &mut impl BufRead, max: u64) -> Result<Vec<u8>, AgentError> {
    let mut line = Vec::new();
    from.by_ref().take(max).read_until(b'\n', &mut line).at("read", "stdin".into())?;
    if line.last() != Some(&b'\n') && line.len() as u64 >= max {
        return Err(AgentError::Request(format!("it has more than {max} bytes")));
    }
    Ok(line)
}
