//! Random trees through every format, and random bytes into every reader.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::archive::support::{Entry, Node, Recorder, Tar, Zip, all, gzip, read};

type Files = BTreeMap<String, (bool, Vec<u8>)>;

/// Paths that cannot conflict: every file's name starts with `f`, every directory's with `d`.
fn files() -> impl Strategy<Value = Files> {
    let path = (vec("d[a-c]?", 0..4), "f[a-zä ]{0,5}").prop_map(|(mut folders, file)| {
        folders.push(file);
        folders.join("/")
    });
    btree_map(path, (any::<bool>(), vec(any::<u8>(), 0..1500)), 1..20)
}

fn expected(files: &Files) -> BTreeMap<String, Node> {
    let node = |(executable, content): &(bool, Vec<u8>)| {
        Node::File(if *executable { 0o755 } else { 0o644 }, content.clone())
    };
    files.iter().map(|(path, file)| (path.clone(), node(file))).collect()
}

fn tar(files: &Files) -> Vec<u8> {
    let entries = files.iter().map(|(path, (executable, content))| Entry {
        mode: if *executable { 0o700 } else { 0o600 },
        content: content.clone(),
        ..Entry::new(b'0', path)
    });
    entries.fold(Tar::new(), |tar, entry| tar.entry(&entry)).end()
}

fn zip(files: &Files) -> Vec<u8> {
    let members = files.iter().map(|(path, (executable, content))| Zip {
        mode: if *executable { 0o100_755 } else { 0o100_644 },
        ..Zip::new(path, content)
    });
    Zip::archive(&members.collect::<Vec<_>>())
}

fn nodes(name: &str, bytes: &[u8]) -> BTreeMap<String, Node> {
    let (Recorder { nodes, .. }, _) = read(name, bytes, &all()).unwrap();
    nodes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_comes_back(files in files()) {
        let bytes = tar(&files);
        prop_assert_eq!(nodes("x.tar", &bytes), expected(&files));
        prop_assert_eq!(nodes("x.tar.gz", &gzip(&bytes)), expected(&files));
        let zst = zstd::encode_all(&*bytes, 1).unwrap();
        prop_assert_eq!(nodes("x.tar.zst", &zst), expected(&files));
        prop_assert_eq!(nodes("x.zip", &zip(&files)), expected(&files));
    }

    /// Nothing panics, and what is refused is refused as an archive, not as a disk.
    #[test]
    fn damage_is_survived(
        files in files(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let bytes = tar(&files);
        for (name, good) in [("x.tgz", gzip(&bytes)), ("x.zip", zip(&files)), ("x.tar", bytes)] {
            let mut bad = good;
            for (at, value) in &flips {
                let at = at.index(bad.len());
                bad[at] = *value;
            }
            if let Err(error) = read(name, &bad, &all()) {
                prop_assert!(error.is_refusal(), "{}", error);
            }
        }
    }

    #[test]
    fn noise_is_survived(noise in vec(any::<u8>(), 0..3000)) {
        for name in ["x.tar", "x.tgz", "x.tar.zst", "x.tar.xz", "x.tar.bz2", "x.zip"] {
            prop_assert!(read(name, &noise, &all()).is_err());
        }
    }
}
