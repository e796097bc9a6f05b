//! Reading an archive into a map.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;

use camino::Utf8Path;
use windlass::archive::{
    ArchiveError, Format, Limits, Selection, Source, Summary, VisitError, Visitor, read as read_archive,
};
use windlass::model::{BundlePath, Cancel, Digest};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File(u16, Vec<u8>),
    Symlink(String),
    HardLink(String),
}

/// Remembers what it is told, and that it was told in a sensible order.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) restarts: u32,
}

impl Recorder {
    fn add(&mut self, path: &BundlePath, node: Node) {
        let before = self.nodes.insert(path.as_str().to_owned(), node);
        assert_eq!(before, None, "{path} was told twice");
    }

    /// `path mode "content"`, one a line.
    pub(crate) fn listing(&self) -> String {
        let line = |(path, node): (&String, &Node)| match node {
            Node::Directory => format!("{path}/"),
            Node::File(mode, content) => format!("{path} {mode:o} {:?}", String::from_utf8_lossy(content)),
            Node::Symlink(target) => format!("{path} -> {target}"),
            Node::HardLink(target) => format!("{path} == {target}"),
        };
        self.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn content(&self, path: &str) -> &[u8] {
        match &self.nodes[path] {
            Node::File(_, content) => content,
            other => panic!("{path} is {other:?}"),
        }
    }
}

impl Visitor for Recorder {
    fn restart(&mut self) -> Result<(), VisitError> {
        self.nodes.clear();
        self.restarts += 1;
        Ok(())
    }

    fn directory(&mut self, path: BundlePath) -> Result<(), VisitError> {
        self.add(&path, Node::Directory);
        Ok(())
    }

    fn file(
        &mut self,
        path: BundlePath,
        mode: u16,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<(), VisitError> {
        let mut content = Vec::new();
        data.read_to_end(&mut content)?;
        assert_eq!(content.len() as u64, size, "{path}");
        self.add(&path, Node::File(mode, content));
        Ok(())
    }

    fn symlink(&mut self, path: BundlePath, target: String) -> Result<(), VisitError> {
        self.add(&path, Node::Symlink(target));
        Ok(())
    }

    fn hard_link(&mut self, path: BundlePath, target: BundlePath) -> Result<(), VisitError> {
        let file = self.nodes.get(target.as_str());
        assert!(matches!(file, Some(Node::File(..) | Node::HardLink(_))), "{target} is no earlier file");
        self.add(&path, Node::HardLink(target.as_str().to_owned()));
        Ok(())
    }
}

/// Reads the archive `bytes` as the file `name`, with the format that the name says.
pub(crate) fn read(
    name: &str,
    bytes: &[u8],
    selection: &Selection,
) -> Result<(Recorder, Summary), ArchiveError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, bytes).unwrap();
    read_path(Utf8Path::from_path(&file).unwrap(), selection)
}

/// As [`read`], from a file; also checks what must always hold.
pub(crate) fn read_path(path: &Utf8Path, selection: &Selection) -> Result<(Recorder, Summary), ArchiveError> {
    let name = path.file_name().unwrap();
    let source = Source { name, path, format: Format::of_name(name) };
    let mut recorder = Recorder::default();
    let reported = Cell::new(0);
    let progress = |bytes| reported.set(reported.get() + bytes);
    let limits = Limits { max_unpacked: 1 << 30 };
    let result = read_archive(&source, selection, &limits, true, &Cancel::new(), &progress, &mut recorder);
    let bytes = std::fs::read(path).unwrap();
    assert!(reported.get() <= bytes.len() as u64);
    let summary = result?;
    assert_eq!(reported.get(), bytes.len() as u64, "progress ends at the artifact's size");
    assert_eq!(summary.size, bytes.len() as u64);
    assert_eq!(summary.digest, Some(Digest::of(&bytes)), "the whole artifact is hashed");
    assert!(recorder.restarts <= 2);
    Ok((recorder, summary))
}

/// The text of the refusal that `bytes` have to meet.
pub(crate) fn refusal(name: &str, bytes: &[u8], selection: &Selection) -> String {
    match read(name, bytes, selection) {
        Ok((recorder, _)) => panic!("{name} was taken:\n{}", recorder.listing()),
        Err(error) => {
            assert!(error.is_refusal(), "{error}");
            assert_eq!(error.help().len(), 1, "{error}");
            error.to_string()
        }
    }
}
