//! Whose failure it is, and what is checked although nobody reads it.

use std::cell::Cell;
use std::io::Read;

use camino::{Utf8Path, Utf8PathBuf};
use windlass::archive::{
    ArchiveError, Format, Limits, Selection, Source, Summary, VisitError, Visitor, read,
};
use windlass::model::{BundlePath, Cancel, Cancelled};

use crate::archive::support::{Entry, Tar, Zip, all, gzip};

/// Reads as much of each file as it is told to, then says what it is told to.
struct Lazy {
    bytes: u64,
    error: Option<VisitError>,
    cancel: Cancel,
    files: u32,
}

impl Lazy {
    fn new(bytes: u64) -> Self {
        Self { bytes, error: None, cancel: Cancel::new(), files: 0 }
    }
}

impl Visitor for Lazy {
    fn restart(&mut self) -> Result<(), VisitError> {
        Err("restart".into())
    }

    fn directory(&mut self, _: BundlePath) -> Result<(), VisitError> {
        Ok(())
    }

    fn file(&mut self, _: BundlePath, _: u16, _: u64, data: &mut dyn Read) -> Result<(), VisitError> {
        self.files += 1;
        std::io::copy(&mut data.take(self.bytes), &mut std::io::sink())
            .map_err(|error| format!("the visitor's words for: {error}"))?;
        match self.error.take() {
            Some(error) => {
                self.cancel.set();
                Err(error)
            }
            None => Ok(()),
        }
    }

    fn symlink(&mut self, _: BundlePath, _: String) -> Result<(), VisitError> {
        self.cancel.set();
        Ok(())
    }

    fn hard_link(&mut self, _: BundlePath, _: BundlePath) -> Result<(), VisitError> {
        Ok(())
    }
}

fn visit(
    name: &str,
    bytes: &[u8],
    selection: &Selection,
    visitor: &mut Lazy,
) -> Result<Summary, ArchiveError> {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(folder.path().join(name)).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let source = Source { name, path: &path, format: Format::of_name(name) };
    let limits = Limits { max_unpacked: 1 << 30 };
    let cancel = visitor.cancel.clone();
    read(&source, selection, &limits, false, &cancel, &|_| {}, visitor)
}

#[test]
fn what_a_visitor_leaves_is_checked() {
    let corrupt = Zip::archive(&[Zip { crc: Some(1), ..Zip::new("a", "x".repeat(100_000)) }]);
    let tar = Tar::new().file("a", &"x".repeat(100_000)).file("b", "").end();
    for bytes in [0, 1, 50_000] {
        let error = visit("x.zip", &corrupt, &all(), &mut Lazy::new(bytes)).unwrap_err();
        assert_eq!(error.to_string(), "x.zip: `a`: it is corrupt: Invalid checksum");
        let summary = visit("x.tar", &tar, &all(), &mut Lazy::new(bytes)).unwrap();
        assert_eq!((summary.members, summary.unpacked, summary.digest), (2, 100_000, None));
    }
}

#[test]
fn a_bad_archive_is_not_the_visitors_failure() {
    let corrupt = Zip::archive(&[Zip { crc: Some(1), ..Zip::new("a", "x") }]);
    let error = visit("x.zip", &corrupt, &all(), &mut Lazy::new(u64::MAX)).unwrap_err();
    assert_eq!(error.to_string(), "x.zip: `a`: it is corrupt: Invalid checksum");
    let tar = Tar::new().file("a", &"x".repeat(2000)).end();
    let error = visit("x.tar", &tar[..1500], &all(), &mut Lazy::new(u64::MAX)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.tar: `a`: it is truncated: it ends after 1500 bytes, within this member"
    );
}

#[test]
fn a_visitors_failure_comes_through_untouched() {
    let tar = Tar::new().file("a", "x").file("b", "").end();
    let mut visitor = Lazy::new(0);
    visitor.error = Some("disk full".into());
    let error = visit("x.tar", &tar, &all(), &mut visitor).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.is_refusal(), visitor.files), ("disk full", false, 1));
    assert!(error.help().is_empty());
    let tar = Tar::new().file("a/a", "").file("b", "").end();
    let error = visit("x.tar", &tar, &Selection::default(), &mut Lazy::new(0)).unwrap_err();
    assert_eq!(error.to_string(), "restart");
    let mut visitor = Lazy::new(0);
    visitor.error = Some(Box::new(Cancelled));
    let Err(ArchiveError::Visitor(error)) = visit("x.tar", &tar, &all(), &mut visitor) else { panic!() };
    assert!(error.is::<Cancelled>());
}

#[test]
fn cancelling_stops_soon() {
    let many = (0..1000).fold(Tar::new().symlink("l", "a"), |tar, n| tar.file(format!("f{n}"), "x"));
    for (name, bytes) in
        [("x.tar", many.end()), ("x.tgz", gzip(&Tar::new().symlink("l", "a").file("a", "x").end()))]
    {
        let mut visitor = Lazy::new(u64::MAX);
        let error = visit(name, &bytes, &all(), &mut visitor).unwrap_err();
        assert!(matches!(error, ArchiveError::Cancelled(Cancelled)), "{error}");
        assert_eq!(visitor.files, 0);
    }
    let members = [Zip { mode: 0o120_777, ..Zip::new("l", "a") }, Zip::new("a", "x")];
    let error = visit("x.zip", &Zip::archive(&members), &all(), &mut Lazy::new(0)).unwrap_err();
    assert!(matches!(error, ArchiveError::Cancelled(Cancelled)) && !error.is_refusal(), "{error}");
}

#[test]
fn a_bad_disk_is_not_a_bad_archive() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap();
    let open = |path: &Utf8Path, format: &str| {
        let source = Source { name: "x", path, format: format.parse().unwrap() };
        let limits = Limits { max_unpacked: 1 << 30 };
        read(&source, &all(), &limits, true, &Cancel::new(), &|_| {}, &mut Lazy::new(9)).unwrap_err()
    };
    for format in ["tar", "tar.gz", "tar.zst", "tar.xz", "tar.bz2", "zip", "file"] {
        // A directory can be opened, but not read.
        let error = open(path, format);
        assert!(matches!(error, ArchiveError::Read { .. }) && !error.is_refusal(), "{format}: {error}");
        let error = open(&path.join("missing"), format);
        assert!(matches!(error, ArchiveError::Open { .. }), "{format}: {error}");
        assert_eq!(error.to_string(), format!("cannot open {path}/missing"));
    }
}

#[test]
fn progress_counts_each_byte_once() {
    let top = Entry { content: vec![1; 600_000], ..Entry::new(b'0', "top/a") };
    let twice = Tar::new().entry(&top).file("b", "").end();
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(folder.path().join("x.tar")).unwrap();
    std::fs::write(&path, &twice).unwrap();
    let source = Source { name: "x.tar", path: &path, format: Format::of_name("x.tar") };
    let (calls, sum) = (Cell::new(0), Cell::new(0));
    let progress = |bytes| {
        calls.set(calls.get() + 1);
        sum.set(sum.get() + bytes);
    };
    let limits = Limits { max_unpacked: 1 << 30 };
    let mut visitor = crate::archive::support::Recorder::default();
    read(&source, &Selection::default(), &limits, false, &Cancel::new(), &progress, &mut visitor).unwrap();
    assert_eq!((visitor.restarts, sum.get()), (1, twice.len() as u64));
    assert!(calls.get() > 2);
}
