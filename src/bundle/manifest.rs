//! A bundle's OCI manifest and config.
//!
//! # Invariants
//!
//! * Both are a function of role, layers and counts: keys sorted, no time, no version. The version is in
//!   the store's index only, so that the same content has the same digest under any number.
//! * A manifest that was not made here may be read; what is missing or wrong is an error, never a panic.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{PlaceError, RecordError, TocPlace, blob};
use crate::model::{Digest, Role};

/// Annotation of the manifest: the role.
pub const ROLE: &str = "dev.windlass.role";
/// Annotation of the manifest: regular files and hard links in the bundle, in decimal.
pub const FILES: &str = "dev.windlass.files";
/// Annotation of the manifest: bytes of the bundle's files, in decimal.
pub const UNPACKED_SIZE: &str = "dev.windlass.unpacked-size";

/// OCI's type of a manifest.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's type of a config.
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// Manifests and configs are small; a larger one is refused before it is read.
pub const MAX_MANIFEST: u64 = 4 << 20;

/// One layer of a bundle, as its manifest and config have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Of the tar.
    pub diff_id: Digest,
    /// Where its table of contents is.
    pub place: TocPlace,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Which role it is of.
    pub role: Role,
    /// Regular files and hard links; what a later layer covers is not counted.
    pub files: u64,
    /// Bytes of those files.
    pub unpacked_size: u64,
    /// In order; a later one covers an earlier one.
    pub layers: Vec<Layer>,
    /// Of the config.
    pub config: Digest,
    /// Bytes of the config.
    pub config_size: u64,
}

/// Why a manifest or config cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the JSON that OCI has.
    #[error("the {what} is not valid OCI JSON")]
    Json {
        /// `manifest` or `config`.
        what: &'static str,
        /// Where.
        source: serde_json::Error,
    },
    /// Something that a bundle of windlass has is missing.
    #[error("the manifest is not that of a windlass bundle: {0}")]
    NotABundle(String),
    /// A layer's table cannot be found.
    #[error("layer {layer}: {error}")]
    Place {
        /// Counted from 0.
        layer: usize,
        /// Why not.
        error: PlaceError,
    },
    /// The bundle's own record cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A config and a manifest, ready to be stored.
#[derive(Clone, Debug)]
pub struct Composed {
    /// Bytes of the config.
    pub config: Vec<u8>,
    /// Bytes of the manifest.
    pub manifest: Vec<u8>,
    /// Of the manifest: the bundle's name.
    pub digest: Digest,
}

fn not_a_bundle(what: impl Into<String>) -> ManifestError {
    ManifestError::NotABundle(what.into())
}

/// A manifest's JSON. Here and below, fields stand in the order of their names, which is that of the bytes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    config: DescriptorJson,
    layers: Vec<DescriptorJson>,
    #[serde(default)]
    media_type: String,
    schema_version: u32,
}

/// Names a blob.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorJson {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    digest: String,
    media_type: String,
    size: u64,
}

/// A config's JSON.
#[derive(Serialize, Deserialize)]
struct ConfigJson {
    architecture: String,
    /// How to run a container: always empty, and not read.
    #[serde(skip_deserializing)]
    config: BTreeMap<String, String>,
    #[serde(default)]
    created: String,
    os: String,
    rootfs: RootFsJson,
}

#[derive(Serialize, Deserialize)]
struct RootFsJson {
    diff_ids: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

impl Composed {
    /// The config and manifest of `role`'s bundle with these layers.
    pub fn new(role: &Role, layers: &[Layer], files: u64, unpacked_size: u64) -> Result<Self, ManifestError> {
        let config = ConfigJson {
            architecture: "amd64".to_owned(),
            config: BTreeMap::new(),
            created: "1970-01-01T00:00:01Z".to_owned(),
            os: "linux".to_owned(),
            rootfs: RootFsJson {
                diff_ids: layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
                kind: "layers".to_owned(),
            },
        };
        let config = json("config", &config)?;
        let manifest = ManifestJson {
            annotations: BTreeMap::from([
                (ROLE.to_owned(), role.to_string()),
                (FILES.to_owned(), files.to_string()),
                (UNPACKED_SIZE.to_owned(), unpacked_size.to_string()),
            ]),
            config: DescriptorJson {
                annotations: BTreeMap::new(),
                digest: Digest::of(&config).to_string(),
                media_type: CONFIG_TYPE.to_owned(),
                size: config.len() as u64,
            },
            layers: layers.iter().map(layer_descriptor).collect(),
            media_type: MANIFEST_TYPE.to_owned(),
            schema_version: 2,
        };
        let manifest = json("manifest", &manifest)?;
        Ok(Self { digest: Digest::of(&manifest), config, manifest })
    }
}

fn layer_descriptor(layer: &Layer) -> DescriptorJson {
    DescriptorJson {
        annotations: layer.place.annotations().into_iter().collect(),
        digest: layer.digest.to_string(),
        media_type: blob::LAYER_TYPE.to_owned(),
        size: layer.size,
    }
}

fn json(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, ManifestError> {
    serde_json::to_vec(value).map_err(|source| ManifestError::Json { what, source })
}

impl Manifest {
    /// Digest and size of the config that a manifest names.
    pub fn config_of(manifest: &[u8]) -> Result<(Digest, u64), ManifestError> {
        let manifest = parse(manifest)?;
        Ok((own_digest(&manifest.config)?, manifest.config.size))
    }

    /// Digests of all blobs that a manifest names.
    pub fn blobs_of(manifest: &[u8]) -> Result<Vec<Digest>, ManifestError> {
        let manifest = parse(manifest)?;
        std::iter::once(&manifest.config).chain(&manifest.layers).map(own_digest).collect()
    }

    /// Reads a manifest with its config.
    pub fn parse(manifest: &[u8], config: &[u8]) -> Result<Self, ManifestError> {
        let manifest = parse(manifest)?;
        let config: ConfigJson = serde_json::from_slice(config)
            .map_err(|source| ManifestError::Json { what: "config", source })?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(not_a_bundle("its config names another number of layers"));
        }
        let layers = manifest
            .layers
            .iter()
            .zip(diff_ids)
            .enumerate()
            .map(|(index, (descriptor, diff_id))| read_layer(index, descriptor, diff_id))
            .collect::<Result<_, _>>()?;
        let text = |key: &str| {
            manifest
                .annotations
                .get(key)
                .map(String::as_str)
                .ok_or_else(|| not_a_bundle(format!("it has no annotation `{key}`")))
        };
        let number = |key: &str| {
            text(key)?.parse().map_err(|_| not_a_bundle(format!("the annotation `{key}` is no number")))
        };
        Ok(Self {
            role: text(ROLE)?.parse().map_err(|error| not_a_bundle(format!("{error}")))?,
            files: number(FILES)?,
            unpacked_size: number(UNPACKED_SIZE)?,
            layers,
            config: own_digest(&manifest.config)?,
            config_size: manifest.config.size,
        })
    }
}

fn parse(manifest: &[u8]) -> Result<ManifestJson, ManifestError> {
    serde_json::from_slice(manifest).map_err(|source| ManifestError::Json { what: "manifest", source })
}

fn own_digest(descriptor: &DescriptorJson) -> Result<Digest, ManifestError> {
    descriptor.digest.parse().map_err(|error| not_a_bundle(format!("{error}")))
}

fn read_layer(index: usize, descriptor: &DescriptorJson, diff_id: &str) -> Result<Layer, ManifestError> {
    if descriptor.media_type != blob::LAYER_TYPE {
        return Err(not_a_bundle(format!("layer {index} is a {}", descriptor.media_type)));
    }
    let get = |key: &str| descriptor.annotations.get(key).map(String::as_str);
    let place =
        TocPlace::from_annotations(get).map_err(|error| ManifestError::Place { layer: index, error })?;
    Ok(Layer {
        digest: own_digest(descriptor)?,
        size: descriptor.size,
        diff_id: diff_id.parse().map_err(|error| not_a_bundle(format!("{error}")))?,
        place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composes_the_same_bytes_and_reads_them() {
        let digest = Digest::of(b"layer");
        let place = TocPlace { offset: 10, size: 20, digest };
        let layers = vec![Layer { digest, size: 102, diff_id: Digest::of(b"tar"), place }; 3];
        let role: Role = "kafka".parse().unwrap();
        let one = Composed::new(&role, &layers, 7, 1234).unwrap();
        for _ in 0..8 {
            assert_eq!(Composed::new(&role, &layers, 7, 1234).unwrap().manifest, one.manifest);
        }
        let read = Manifest::parse(&one.manifest, &one.config).unwrap();
        assert_eq!((read.role, read.layers, read.files, read.unpacked_size), (role, layers, 7, 1234));
        assert_eq!(Manifest::config_of(&one.manifest).unwrap().0, Digest::of(&one.config));
        let d = Digest::of(b"tar");
        assert_eq!(
            String::from_utf8(one.config).unwrap(),
            format!(
                r#"{{"architecture":"amd64","config":{{}},"created":"1970-01-01T00:00:01Z","os":"linux","rootfs":{{"diff_ids":["{d}","{d}","{d}"],"type":"layers"}}}}"#
            )
        );
        assert!(Manifest::parse(b"{}", b"{}").is_err());
    }
}
