//! Archives made by the tools that vendors use, compared with the tree they were made from.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use camino::{Utf8Path, Utf8PathBuf};
use tempfile::TempDir;
use windlass::archive::{Selection, Strip};

use crate::archive::support::{Node, all, read_path};
use crate::support::tools::run_shell;

/// A folder with a tree `top` in it.
struct Work {
    folder: TempDir,
}

impl Work {
    fn new() -> Self {
        let work = Self { folder: tempfile::tempdir().unwrap() };
        let top = work.path("top");
        std::fs::create_dir_all(top.join("bin/deep/er")).unwrap();
        std::fs::create_dir(top.join("empty")).unwrap();
        std::fs::write(top.join("bin/run"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(top.join("bin/run"), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(top.join("bin/deep/er/größe.txt"), "grün").unwrap();
        std::fs::write(top.join("none"), "").unwrap();
        let noise = |n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[2];
        std::fs::write(top.join("big"), (0..700_000).map(noise).collect::<Vec<_>>()).unwrap();
        symlink("bin/run", top.join("link")).unwrap();
        work
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    /// What only newer tars can hold.
    fn with_long_names(self) -> Self {
        let long = self.path("top").join("x".repeat(120)).join("y".repeat(130));
        std::fs::create_dir_all(&long).unwrap();
        std::fs::write(long.join("z".repeat(140)), "long").unwrap();
        symlink("y".repeat(130), self.path("top").join("long-link")).unwrap();
        symlink(format!("{0}/{1}", "x".repeat(120), "y".repeat(130)), self.path("top/far")).unwrap();
        self
    }

    fn with_hard_links(self) -> Self {
        std::fs::hard_link(self.path("top/bin/run"), self.path("top/zweiter")).unwrap();
        self
    }

    fn with_holes(self) -> Self {
        let sparse = |name: &str, pieces: &[u64], length: u64| {
            let file = File::create(self.path("top").join(name)).unwrap();
            file.set_len(length).unwrap();
            for at in pieces {
                file.write_all_at(&[7; 5000], *at).unwrap();
            }
        };
        sparse("holes", &[65_536, 1 << 20], 3 << 20);
        sparse("many", &(0..40).map(|n| n * 65_536).collect::<Vec<_>>(), 40 * 65_536 + 123);
        sparse("hole", &[], 1 << 20);
        self
    }

    fn sh(&self, script: &str) {
        run_shell(self.folder.path(), script);
    }

    /// Reads the archive back and compares it with `top`, in place and stripped.
    fn check(&self, name: &str) {
        for (selection, prefix) in [(all(), "top/"), (Selection::default(), "")] {
            let (seen, _) = read_path(&self.path(name), &selection).unwrap_or_else(|e| panic!("{name}: {e}"));
            let resolved = seen.nodes.iter().map(|(path, node)| match node {
                Node::HardLink(target) => (path.clone(), seen.nodes[target].clone()),
                other => (path.clone(), other.clone()),
            });
            let mut resolved: BTreeMap<_, _> = resolved.collect();
            resolved.remove("top");
            let mut expected = BTreeMap::new();
            tree(&self.path("top"), prefix, &mut expected);
            assert_eq!(resolved.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
            for (path, node) in &expected {
                assert!(resolved[path] == *node, "{name}: {path} differs");
            }
        }
    }
}

fn tree(folder: &Utf8Path, prefix: &str, into: &mut BTreeMap<String, Node>) {
    for entry in folder.read_dir_utf8().unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name());
        let metadata = entry.path().symlink_metadata().unwrap();
        let node = if metadata.is_symlink() {
            Node::Symlink(entry.path().read_link_utf8().unwrap().into_string())
        } else if metadata.is_dir() {
            tree(entry.path(), &format!("{path}/"), into);
            Node::Directory
        } else {
            let mode = if metadata.mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            Node::File(mode, std::fs::read(entry.path()).unwrap())
        };
        into.insert(path, node);
    }
}

#[test]
fn gnu_tar_formats() {
    for format in ["v7", "oldgnu", "ustar"] {
        let work = Work::new().with_hard_links();
        work.sh(&format!("tar --format={format} -cf x.tar top"));
        work.check("x.tar");
    }
    for format in ["gnu", "oldgnu", "pax"] {
        let work = Work::new().with_hard_links().with_long_names();
        work.sh(&format!("tar --format={format} -cf x.tar top"));
        work.check("x.tar");
        work.sh(&format!("tar --format={format} --owner=nobody:4000000 -C . -czf y.tgz ./top"));
        work.check("y.tgz");
    }
}

#[test]
fn gnu_tar_sparse_formats() {
    let work = Work::new().with_holes().with_long_names();
    for options in [
        "--format=gnu",
        "--format=oldgnu",
        "--format=pax --sparse-version=0.0",
        "--format=pax --sparse-version=0.1",
        "--format=pax --sparse-version=1.0",
    ] {
        for holes in ["raw", "seek"] {
            work.sh(&format!("rm -f x.tar; tar {options} --sparse --hole-detection={holes} -cf x.tar top"));
            let size = work.path("x.tar").metadata().unwrap().len();
            assert!(size < 3 << 20, "{options} made holes");
            work.check("x.tar");
        }
    }
}

#[test]
fn compressors() {
    let work = Work::new();
    work.sh("tar -cf x.tar top; gzip -k x.tar; mv x.tar.gz a.tar.gz; zstd -q -k x.tar; xz -k -0 x.tar; bzip2 -k x.tar");
    for name in ["a.tar.gz", "x.tar.zst", "x.tar.xz", "x.tar.bz2"] {
        work.check(name);
    }
    work.sh("split -b 100000 x.tar part.; pigz -k -b 128 x.tar; mv x.tar.gz pigz.tar.gz");
    work.sh("for p in part.*; do gzip -c $p >> many.tar.gz; zstd -q -c $p >> many.tar.zst; done");
    work.sh("for p in part.??; do xz -0 -c $p >> many.tar.xz; bzip2 -c $p >> many.tar.bz2; done");
    work.sh("xz -0 -T2 --block-size=65536 -c x.tar > blocks.tar.xz; zstd -q --ultra -22 --long=27 -c x.tar > long.tar.zst");
    for name in [
        "pigz.tar.gz",
        "many.tar.gz",
        "many.tar.zst",
        "many.tar.xz",
        "many.tar.bz2",
        "blocks.tar.xz",
        "long.tar.zst",
    ] {
        work.check(name);
    }
}

#[test]
fn zips() {
    let work = Work::new();
    work.sh("zip -qry x.zip top; zip -qry0 stored.zip top; zip -qry -Z bzip2 bz.zip top");
    for name in ["x.zip", "stored.zip", "bz.zip"] {
        work.check(name);
    }
    // Info-ZIP refuses to write a symlink to a pipe.
    let work = Work::new();
    work.sh("rm top/link; zip -qr - top | cat > streamed.zip");
    work.check("streamed.zip");
}

#[test]
fn zip64() {
    let work = Work::new();
    work.sh("rm top/link; cat > make.py <<'PY'
import os, zipfile
z = zipfile.ZipFile('x.zip', 'w', zipfile.ZIP_DEFLATED)
for folder, folders, files in os.walk('top'):
    for name in folders:
        z.write(os.path.join(folder, name))
    for name in files:
        path = os.path.join(folder, name)
        info = zipfile.ZipInfo.from_file(path)
        info.compress_type = zipfile.ZIP_DEFLATED
        with z.open(info, 'w', force_zip64=True) as out:
            out.write(open(path, 'rb').read())
z.close()
z = zipfile.ZipFile('many.zip', 'w')
for n in range(66000):
    z.writestr('d/%d' % n, '')
z.close()
PY
python3 make.py");
    work.check("x.zip");
    let (seen, summary) = read_path(&work.path("many.zip"), &Selection::default()).unwrap();
    assert_eq!((seen.nodes.len(), summary.members), (66_000, 66_000));
}

#[test]
fn other_writers() {
    let work = Work::new().with_hard_links().with_long_names();
    work.sh("cat > make.py <<'PY'
import tarfile
for n, f in [('p.tar', tarfile.PAX_FORMAT), ('g.tar', tarfile.GNU_FORMAT)]:
    with tarfile.open(n, 'w', format=f) as t: t.add('top')
with tarfile.open('p.tar.xz', 'w:xz') as t: t.add('top')
PY
python3 make.py");
    for name in ["p.tar", "g.tar", "p.tar.xz"] {
        work.check(name);
    }
    let strip = Selection { strip: Strip::Count(2), ..all() };
    let (seen, _) = read_path(&work.path("p.tar"), &strip).unwrap();
    assert!(seen.nodes.contains_key("deep/er/größe.txt"));
}
