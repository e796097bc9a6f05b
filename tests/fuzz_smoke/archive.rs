//! Archives of every kind: never a panic, never more memory than the limits allow, and what a visitor is told
//! can be unpacked.
//!
//! The first byte chooses the format, the second the selection; the rest is the artifact.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};

use camino::Utf8Path;
use windlass::archive::{
    self, Compression, Format, Globs, Limits, Selection, Source, Strip, VisitError, Visitor,
};
use windlass::model::{BundlePath, Cancel};

/// Remembers what it was told, and that no path means two things.
#[derive(Default)]
struct Seen(BTreeMap<BundlePath, &'static str>);

impl Seen {
    fn add(&mut self, path: &BundlePath, kind: &'static str) {
        for above in path.ancestors() {
            let above = BundlePath::new(above).expect("a path's ancestor is a path");
            let there = self.0.get(&above).copied().unwrap_or("directory");
            assert_eq!(there, "directory", "{path} stands below the {there} {above}");
        }
        assert_eq!(self.0.insert(path.clone(), kind), None, "{path} was told twice");
    }
}

impl Visitor for Seen {
    fn restart(&mut self) -> Result<(), VisitError> {
        self.0.clear();
        Ok(())
    }

    fn directory(&mut self, path: BundlePath) -> Result<(), VisitError> {
        self.add(&path, "directory");
        Ok(())
    }

    fn file(
        &mut self,
        path: BundlePath,
        mode: u16,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<(), VisitError> {
        assert!(matches!(mode & 0o777, 0o644 | 0o755) && mode & !0o6777 == 0, "{mode:o}");
        self.add(&path, "file");
        let read = std::io::copy(data, &mut std::io::sink())?;
        assert_eq!(read, size, "{path} is not as long as was told");
        Ok(())
    }

    fn symlink(&mut self, path: BundlePath, target: String) -> Result<(), VisitError> {
        assert!(!target.starts_with('/') && !target.is_empty(), "{path} -> {target}");
        self.add(&path, "symlink");
        Ok(())
    }

    fn hard_link(&mut self, path: BundlePath, target: BundlePath) -> Result<(), VisitError> {
        assert_eq!(self.0.get(&target), Some(&"file"), "{path} = {target}");
        self.add(&path, "hard link");
        Ok(())
    }
}

const FORMATS: [Format; 7] = [
    Format::Tar(Compression::None),
    Format::Tar(Compression::Gzip),
    Format::Tar(Compression::Zstd),
    Format::Tar(Compression::Xz),
    Format::Tar(Compression::Bzip2),
    Format::Zip,
    Format::File,
];

pub(crate) fn run(input: &[u8]) {
    let [format, choice, artifact @ ..] = input else { return };
    let folder = std::path::Path::new("/dev/shm");
    let folder = if folder.is_dir() { folder.to_owned() } else { std::env::temp_dir() };
    let path = folder.join(format!("windlass-fuzz-{}", std::process::id()));
    std::fs::File::create(&path)
        .and_then(|mut file| file.write_all(artifact))
        .expect("a file can be written");
    let strip = match choice & 3 {
        0 => Strip::Auto,
        count => Strip::Count(u32::from(count) - 1),
    };
    let globs = |wanted: bool, glob: &str| {
        Globs::new(if wanted { vec![glob.to_owned()] } else { Vec::new() }).expect("the glob is right")
    };
    let selection = Selection {
        strip,
        include: globs(choice & 4 != 0, "**/*a*"),
        exclude: globs(choice & 8 != 0, "**/b*"),
        keep_setuid: choice & 16 != 0,
        into: (choice & 32 != 0).then(|| BundlePath::new("in/to").expect("a path")),
    };
    let source = Source {
        name: "artifact",
        path: Utf8Path::from_path(&path).expect("UTF-8"),
        format: FORMATS[usize::from(*format) % FORMATS.len()],
    };
    let limits = Limits { max_unpacked: 8 << 20 };
    let mut seen = Seen::default();
    let outcome =
        archive::read(&source, &selection, &limits, choice & 64 != 0, &Cancel::new(), &|_| (), &mut seen);
    std::fs::remove_file(&path).expect("the file can be removed");
    if let Ok(summary) = outcome {
        assert_eq!(summary.size, artifact.len() as u64);
        assert!(summary.unpacked <= limits.max_unpacked);
    }
}
