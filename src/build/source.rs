//! What layers are made from, and the key under which a made layer is remembered.

use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::BuildError;
use crate::archive::{self, Matcher};
use crate::bundle::{Node, TOC_FORMAT, layout};
use crate::fs::IoResultExt as _;
use crate::model::{BundlePath, Digest};
use crate::recipe::{self, Conf, Diagnostic, Diagnostics, TemplateNames, Unpack};

/// Everything besides the source's content that a layer's bytes depend on.
#[derive(Serialize)]
struct Options<'a> {
    format: u64,
    revision: u32,
    zstd: u32,
    level: i32,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum What<'a> {
    Artifact {
        into: Option<&'a BundlePath>,
        strip: String,
        include: &'a [String],
        exclude: &'a [String],
        keep_setuid: bool,
        kind: String,
        /// A single file stands under its own name.
        name: Option<&'a str>,
    },
    Files,
}

fn options_digest(level: i32, what: What<'_>) -> Result<Digest, BuildError> {
    let options = Options {
        format: TOC_FORMAT,
        revision: layout::REVISION,
        zstd: zstd::zstd_safe::version_number(),
        level,
        what,
    };
    let bytes = serde_json::to_vec(&options).map_err(|error| BuildError::Internal(error.to_string()))?;
    Ok(Digest::of(&bytes))
}

/// An artifact and how it is unpacked.
#[derive(Clone, Debug)]
pub(super) struct ArtifactSource {
    /// Its path below `install/`.
    pub name: BundlePath,
    /// Its file.
    pub path: Utf8PathBuf,
    /// How its bytes are understood.
    pub format: archive::Format,
    /// What of it is taken, and where it goes.
    pub selection: archive::Selection,
    /// Digest of the options.
    pub options: Digest,
}

impl ArtifactSource {
    /// The source that a recipe's `[[unpack]]` names.
    pub(super) fn new(unpack: &Unpack, install: &Utf8Path, level: i32) -> Result<Self, BuildError> {
        let globs = |patterns: &[String]| {
            archive::Globs::new(patterns.to_vec())
                .map_err(|error| BuildError::from(unpack.place.problem(error.to_string())))
        };
        let format = match unpack.format {
            recipe::Format::Auto => archive::Format::of_name(unpack.artifact.name()),
            other => other.name().parse().map_err(|error| unpack.place.problem(format!("{error}")))?,
        };
        let strip = match unpack.strip {
            recipe::Strip::Auto => archive::Strip::Auto,
            recipe::Strip::Levels(levels) => archive::Strip::Count(levels),
        };
        let selection = archive::Selection {
            strip,
            include: globs(&unpack.include)?,
            exclude: globs(&unpack.exclude)?,
            keep_setuid: unpack.keep_setuid,
            into: unpack.into.clone(),
        };
        let what = What::Artifact {
            into: unpack.into.as_ref(),
            strip: strip.to_string(),
            include: &unpack.include,
            exclude: &unpack.exclude,
            keep_setuid: unpack.keep_setuid,
            kind: format!("{format:?}"),
            name: (format == archive::Format::File).then(|| unpack.artifact.name()),
        };
        Ok(Self {
            name: unpack.artifact.clone(),
            path: install.join(unpack.artifact.as_str()),
            format,
            selection,
            options: options_digest(level, what)?,
        })
    }
}

/// One file or link of a layer that is made from memory.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    /// Where it stands in the bundle.
    pub path: BundlePath,
    /// What stands there.
    pub node: Node,
    /// A regular file's bytes.
    pub bytes: Vec<u8>,
}

/// The files of a `[[conf]]`, or of windlass's own record.
#[derive(Clone, Debug)]
pub(super) struct FilesSource {
    /// In path order.
    pub files: Vec<SourceFile>,
    /// Directories, the empty ones among them.
    pub directories: Vec<BundlePath>,
    /// Digest of the options.
    pub options: Digest,
    /// Digest of paths, modes and contents.
    pub content: Digest,
}

impl FilesSource {
    /// A source of these files.
    pub(super) fn new(
        mut files: Vec<SourceFile>,
        directories: Vec<BundlePath>,
        level: i32,
    ) -> Result<Self, BuildError> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let listed: Vec<_> = files
            .iter()
            .map(|file| match &file.node {
                Node::File { mode, digest, .. } => (file.path.as_str(), *mode, digest.to_string()),
                Node::Symlink { target } => (file.path.as_str(), 0o777, target.clone()),
                Node::Directory | Node::HardLink { .. } => (file.path.as_str(), 0, String::new()),
            })
            .collect();
        let content = serde_json::to_vec(&(&listed, &directories))
            .map_err(|error| BuildError::Internal(error.to_string()))?;
        let options = options_digest(level, What::Files)?;
        Ok(Self { files, directories, options, content: Digest::of(&content) })
    }

    /// A source of a single file in memory.
    pub(super) fn single(path: BundlePath, bytes: Vec<u8>, level: i32) -> Result<Self, BuildError> {
        let node = Node::File { mode: 0o644, size: bytes.len() as u64, digest: Digest::of(&bytes) };
        Self::new(vec![SourceFile { path, node, bytes }], Vec::new(), level)
    }
}

/// What reading a `[[conf]]` gives.
#[derive(Debug)]
pub(super) struct ConfRead {
    /// Its files.
    pub source: FilesSource,
    /// Those of them that are rendered per node, where they stand in the bundle.
    pub templates: Vec<BundlePath>,
    /// What the templates use.
    pub names: TemplateNames,
}

/// Reads the files of a `[[conf]]`, checks its templates, and refuses secrets.
pub(super) fn read_conf(
    conf: &Conf,
    folder: &Utf8Path,
    versions: &std::collections::BTreeMap<String, String>,
    level: i32,
) -> Result<ConfRead, BuildError> {
    let base = folder.join("conf").join(conf.from.as_str());
    let globs = |patterns: &[String]| {
        archive::Globs::new(patterns.to_vec())
            .map_err(|error| BuildError::from(conf.place.problem(error.to_string())))
    };
    let (render, include, exclude) = (globs(&conf.render)?, globs(&conf.include)?, globs(&conf.exclude)?);
    let mut reader = ConfReader {
        conf,
        folder,
        versions,
        render: Matcher::new(&render),
        include: Matcher::new(&include),
        exclude: Matcher::new(&exclude),
        files: Vec::new(),
        directories: Vec::new(),
        templates: Vec::new(),
        names: TemplateNames::default(),
        problems: Vec::new(),
    };
    let meta = base.symlink_metadata().map_err(|_| missing_conf(conf, folder))?;
    if meta.is_file() {
        let name =
            BundlePath::new(conf.from.name()).map_err(|error| BuildError::Internal(error.to_string()))?;
        reader.file(&base, &name, &meta)?;
    } else {
        reader.folder(&base)?;
    }
    reader.finish(level)
}

fn missing_conf(conf: &Conf, folder: &Utf8Path) -> BuildError {
    let present: Vec<String> = std::fs::read_dir(folder.join("conf"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let problem = conf.place.problem(format!("there is no conf/{}", conf.from));
    problem.names(conf.from.as_str(), "names in conf/", present.iter().map(String::as_str)).into()
}

struct ConfReader<'a> {
    conf: &'a Conf,
    folder: &'a Utf8Path,
    versions: &'a std::collections::BTreeMap<String, String>,
    render: Matcher<'a>,
    include: Matcher<'a>,
    exclude: Matcher<'a>,
    files: Vec<SourceFile>,
    directories: Vec<BundlePath>,
    templates: Vec<BundlePath>,
    names: TemplateNames,
    problems: Vec<Diagnostic>,
}

impl ConfReader<'_> {
    fn takes(&mut self, path: &BundlePath) -> bool {
        let included = self.conf.include.is_empty() || self.include.covers(path.as_str());
        included && !self.exclude.covers(path.as_str())
    }

    fn place(&self, path: &BundlePath) -> Result<BundlePath, BuildError> {
        match &self.conf.into {
            None => Ok(path.clone()),
            Some(into) => into.join(path).map_err(|error| {
                self.conf.place.problem(format!("`{path}` does not fit there: {error}")).into()
            }),
        }
    }

    fn folder(&mut self, base: &Utf8Path) -> Result<(), BuildError> {
        for entry in walkdir::WalkDir::new(base).min_depth(1).sort_by_file_name() {
            let entry = entry.at("read", base)?;
            let Some(path) = Utf8Path::from_path(entry.path()) else {
                let name = entry.path().to_string_lossy().into_owned();
                return Err(self.conf.place.problem(format!("the name of {name:?} is not UTF-8")).into());
            };
            let below = path.strip_prefix(base).map_err(|error| BuildError::Internal(error.to_string()))?;
            let name = BundlePath::new(below.as_str())
                .map_err(|error| self.conf.place.problem(format!("{path} cannot be in a bundle: {error}")))?;
            if !self.takes(&name) {
                continue;
            }
            let meta = path.symlink_metadata().at("read", path)?;
            if meta.is_dir() {
                let at = self.place(&name)?;
                self.directories.push(at);
            } else if meta.is_symlink() {
                let target = path.read_link_utf8().at("read", path)?;
                let node = Node::Symlink { target: target.into_string() };
                self.files.push(SourceFile { path: self.place(&name)?, node, bytes: Vec::new() });
            } else if meta.is_file() {
                self.file(path, &name, &meta)?;
            } else {
                return Err(self
                    .conf
                    .place
                    .problem(format!("{path} is no file, directory or symlink"))
                    .into());
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Utf8Path,
        name: &BundlePath,
        meta: &std::fs::Metadata,
    ) -> Result<(), BuildError> {
        let bytes = std::fs::read(path).at("read", path)?;
        let shown = path.strip_prefix(self.folder).unwrap_or(path).as_str();
        self.problems.extend(recipe::secrets::scan(shown, &bytes));
        let at = self.place(name)?;
        if self.render.covers(name.as_str()) {
            match std::str::from_utf8(&bytes) {
                Ok(text) => match recipe::check_template(shown, text, self.versions) {
                    Ok(names) => self.names.extend(names),
                    Err(problems) => self.problems.extend(problems.iter().cloned()),
                },
                Err(_) => self
                    .problems
                    .push(self.conf.place.problem(format!("{shown} is not UTF-8, so it cannot be rendered"))),
            }
            self.templates.push(at.clone());
        }
        let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
        let node = Node::File { mode, size: bytes.len() as u64, digest: Digest::of(&bytes) };
        self.files.push(SourceFile { path: at, node, bytes });
        Ok(())
    }

    fn finish(mut self, level: i32) -> Result<ConfRead, BuildError> {
        for glob in self.render.unmatched() {
            let shown = format!("`{glob}` in `render` matches no file of conf/{}", self.conf.from);
            self.problems.push(self.conf.place.problem(shown));
        }
        if let Some(problems) = Diagnostics::new(std::mem::take(&mut self.problems)) {
            return Err(problems.into());
        }
        self.templates.sort();
        let source = FilesSource::new(self.files, self.directories, level)?;
        Ok(ConfRead { source, templates: self.templates, names: self.names })
    }
}
