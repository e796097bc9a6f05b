//! A layer's blob: frames, then the table of contents and a footer in skippable frames.
//!
//! Any zstd reader sees the tar alone. The manifest's descriptor says where the table is and what its
//! digest is; the footer says the same to one who has only the blob.

use std::collections::BTreeMap;

use super::TOC_FORMAT;
use crate::model::Digest;

/// Media type of a layer.
pub const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Annotation: offset of the table's bytes in the blob, in decimal.
pub const TOC_OFFSET: &str = "dev.windlass.toc.offset";
/// Annotation: size of the table's bytes, in decimal.
pub const TOC_SIZE: &str = "dev.windlass.toc.size";
/// Annotation: digest of the table's bytes.
pub const TOC_DIGEST: &str = "dev.windlass.toc.digest";

/// One of the 16 magic numbers of skippable frames (RFC 8878, section 3.1.2).
const SKIPPABLE: u32 = 0x184D_2A57;

/// Ends the footer's content.
const MAGIC: &[u8; 8] = b"windlass";

/// Bytes of the footer with its frame's header.
pub const FOOTER: usize = 8 + 64;

/// Where a table of contents stands in its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TocPlace {
    /// Of its first byte.
    pub offset: u64,
    /// Of its compressed bytes.
    pub size: u64,
    /// Of its compressed bytes.
    pub digest: Digest,
}

/// Why a blob's table cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The blob does not end in a footer.
    #[error("it does not end as a layer of windlass does")]
    NoFooter,
    /// A newer windlass wrote it.
    #[error("it has layer format {0}; this windlass reads format {TOC_FORMAT}")]
    Newer(u32),
    /// An annotation is absent or no number or digest.
    #[error("the annotation `{0}` is missing or not valid")]
    Annotation(&'static str),
}

impl TocPlace {
    /// What follows `frames_size` bytes of frames: the table and the footer.
    pub fn trailer(toc: &[u8], frames_size: u64) -> (Vec<u8>, Self) {
        let size = toc.len() as u64;
        let place = Self { offset: frames_size + 8, size, digest: Digest::of(toc) };
        let mut out = Vec::with_capacity(toc.len() + 80);
        out.extend_from_slice(&SKIPPABLE.to_le_bytes());
        // A table unpacks to at most 1 GiB, so that its size fits.
        out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(toc);
        out.extend_from_slice(&SKIPPABLE.to_le_bytes());
        out.extend_from_slice(&64u32.to_le_bytes());
        out.extend_from_slice(&u32::try_from(TOC_FORMAT).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&place.offset.to_le_bytes());
        out.extend_from_slice(&place.size.to_le_bytes());
        out.extend_from_slice(place.digest.as_bytes());
        out.extend_from_slice(MAGIC);
        (out, place)
    }

    /// Reads the footer: a blob's last [`FOOTER`] bytes.
    pub fn from_footer(footer: &[u8]) -> Result<Self, PlaceError> {
        let footer: &[u8; FOOTER] = footer.try_into().map_err(|_| PlaceError::NoFooter)?;
        let u32_at =
            |at: usize| u32::from_le_bytes([footer[at], footer[at + 1], footer[at + 2], footer[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(0) != SKIPPABLE || u32_at(4) != 64 || !footer.ends_with(MAGIC) {
            return Err(PlaceError::NoFooter);
        }
        if u64::from(u32_at(8)) != TOC_FORMAT {
            return Err(PlaceError::Newer(u32_at(8)));
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(&footer[32..64]);
        Ok(Self { offset: u64_at(16), size: u64_at(24), digest: Digest::from_bytes(digest) })
    }

    /// As annotations of the layer's descriptor.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (TOC_DIGEST.to_owned(), self.digest.to_string()),
            (TOC_OFFSET.to_owned(), self.offset.to_string()),
            (TOC_SIZE.to_owned(), self.size.to_string()),
        ])
    }

    /// Reads the annotations of a layer's descriptor.
    pub fn from_annotations<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, PlaceError> {
        fn read<T: std::str::FromStr>(text: Option<&str>, key: &'static str) -> Result<T, PlaceError> {
            text.and_then(|text| text.parse().ok()).ok_or(PlaceError::Annotation(key))
        }
        Ok(Self {
            offset: read(get(TOC_OFFSET), TOC_OFFSET)?,
            size: read(get(TOC_SIZE), TOC_SIZE)?,
            digest: read(get(TOC_DIGEST), TOC_DIGEST)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footer_and_annotations_say_the_same() {
        let (bytes, place) = TocPlace::trailer(b"table", 1000);
        let footer = &bytes[bytes.len() - FOOTER..];
        assert_eq!(TocPlace::from_footer(footer).unwrap(), place);
        let map = place.annotations();
        assert_eq!(TocPlace::from_annotations(|key| map.get(key).map(String::as_str)).unwrap(), place);
        assert_eq!(&bytes[8..13], b"table");
        assert!(TocPlace::from_footer(&footer[1..]).is_err());
    }
}
