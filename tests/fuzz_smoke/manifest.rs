//! Manifests and configs: a zero byte parts the two.

use windlass::bundle::{Composed, Manifest};

pub(crate) fn run(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (manifest, config) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let _ = Manifest::config_of(manifest);
    let _ = Manifest::blobs_of(manifest);
    let Ok(read) = Manifest::parse(manifest, config) else { return };
    let composed = Composed::new(&read.role, &read.layers, read.files, read.unpacked_size)
        .expect("what was read can be written");
    let again = Manifest::parse(&composed.manifest, &composed.config).expect("and read");
    assert_eq!((again.role, again.layers, again.files), (read.role, read.layers, read.files));
}
