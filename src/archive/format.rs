//! How an artifact's bytes are to be understood, as its name or the recipe says.
//!
//! Content is never guessed from the bytes: a build must not change its meaning because a download
//! was replaced by an error page. [`super::sniff`] looks at the bytes only to explain a failure.

use std::fmt;
use std::str::FromStr;

/// How the bytes of an artifact are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A tar, possibly compressed as a whole.
    Tar(Compression),
    /// A zip.
    Zip,
    /// No archive: one file, taken as it is.
    File,
}

/// What a tar is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Nothing.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// zstd, of one or more frames.
    Zstd,
    /// xz, of one or more streams.
    Xz,
    /// bzip2, of one or more streams.
    Bzip2,
}

/// Why a text names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format; expected tar, tar.gz, tar.zst, tar.xz, tar.bz2, zip or file")]
pub struct FormatError(String);

const NAMES: [(&str, Format); 7] = [
    ("tar", Format::Tar(Compression::None)),
    ("tar.gz", Format::Tar(Compression::Gzip)),
    ("tar.zst", Format::Tar(Compression::Zstd)),
    ("tar.xz", Format::Tar(Compression::Xz)),
    ("tar.bz2", Format::Tar(Compression::Bzip2)),
    ("zip", Format::Zip),
    ("file", Format::File),
];

const EXTENSIONS: [(&str, Format); 13] = [
    (".tar", Format::Tar(Compression::None)),
    (".tar.gz", Format::Tar(Compression::Gzip)),
    (".tgz", Format::Tar(Compression::Gzip)),
    (".crate", Format::Tar(Compression::Gzip)),
    (".tar.zst", Format::Tar(Compression::Zstd)),
    (".tzst", Format::Tar(Compression::Zstd)),
    (".tar.xz", Format::Tar(Compression::Xz)),
    (".txz", Format::Tar(Compression::Xz)),
    (".tar.bz2", Format::Tar(Compression::Bzip2)),
    (".tbz2", Format::Tar(Compression::Bzip2)),
    (".tbz", Format::Tar(Compression::Bzip2)),
    (".zip", Format::Zip),
    (".whl", Format::Zip),
];

impl Format {
    /// The format that a file name's extension stands for, in any case; [`Format::File`] for all others.
    ///
    /// A `.jar` is a file to its users, and so is a `.gz` that is no `.tar.gz`.
    pub fn of_name(file_name: &str) -> Self {
        let ends_with = |extension: &str| {
            let at = file_name.len().checked_sub(extension.len()).filter(|at| *at > 0);
            at.and_then(|at| file_name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(extension))
        };
        EXTENSIONS
            .iter()
            .find(|(extension, _)| ends_with(extension))
            .map_or(Self::File, |(_, format)| *format)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(NAMES.iter().find(|(_, format)| format == self).map_or("file", |(name, _)| name))
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, format)| *format)
            .ok_or_else(|| FormatError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_and_names() {
        for (name, format) in [
            ("elasticsearch-6.7.0.tar.gz", "tar.gz"),
            ("a.TGZ", "tar.gz"),
            ("serde-1.0.crate", "tar.gz"),
            ("a.tzst", "tar.zst"),
            ("a.txz", "tar.xz"),
            ("a.tbz2", "tar.bz2"),
            ("a.tar", "tar"),
            ("plugin.zip", "zip"),
            ("x.whl", "zip"),
            ("x.jar", "file"),
            ("x.gz", "file"),
            ("tar.gz", "file"),
            (".zip", "file"),
            ("é.zip", "zip"),
            ("kibana", "file"),
        ] {
            assert_eq!(Format::of_name(name).to_string(), format, "{name}");
            assert_eq!(format.parse::<Format>().unwrap(), Format::of_name(name));
        }
        assert!("tgz".parse::<Format>().is_err());
    }
}
