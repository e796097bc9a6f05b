//! `index.json`: which bundles there are, the newest of a role last.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bundle::manifest::MANIFEST_TYPE;
use crate::model::{Digest, Reference, Role, Version, nearest};

/// OCI's annotation for a manifest's name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The index. What other tools put into it is kept as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    annotations: Map<String, Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A named bundle in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The role.
    pub role: Role,
    /// Its version.
    pub version: Version,
    /// Of the manifest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
}

impl Default for Index {
    fn default() -> Self {
        let media_type = Value::from("application/vnd.oci.image.index.v1+json");
        let other = Map::from_iter([("mediaType".to_owned(), media_type)]);
        Self { schema_version: 2, manifests: Vec::new(), other }
    }
}

impl Index {
    /// Every bundle, the newest of a role after its older ones.
    pub fn bundles(&self) -> impl Iterator<Item = Tagged> + '_ {
        self.manifests.iter().filter_map(|descriptor| {
            let name = descriptor.annotations.get(REF_NAME)?.as_str()?;
            let Ok(Reference::Tagged(role, version)) = name.parse() else { return None };
            Some(Tagged { role, version, digest: descriptor.digest.parse().ok()?, size: descriptor.size })
        })
    }

    /// Digests of all manifests, those of other tools too.
    pub fn manifests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.manifests.iter().filter_map(|descriptor| descriptor.digest.parse().ok())
    }

    /// The bundle that a reference names.
    pub fn find(&self, reference: &Reference) -> Option<Tagged> {
        match reference {
            Reference::Tagged(role, version) => {
                self.bundles().find(|bundle| bundle.role == *role && bundle.version == *version)
            }
            Reference::Newest(role) => self.bundles().filter(|bundle| bundle.role == *role).last(),
            Reference::Digest(digest) => self.bundles().filter(|bundle| bundle.digest == *digest).last(),
        }
    }

    /// Names like one that is not there.
    pub fn near(&self, reference: &Reference) -> Vec<String> {
        let names: Vec<String> =
            self.bundles().flat_map(|b| [b.role.to_string(), format!("{}:{}", b.role, b.version)]).collect();
        nearest(&reference.to_string(), names.iter().map(String::as_str))
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// Adds a bundle as the newest of its role; the caller has made sure that its name is free.
    pub fn add(&mut self, bundle: &Tagged) {
        let name = format!("{}:{}", bundle.role, bundle.version);
        self.manifests.push(Descriptor {
            media_type: MANIFEST_TYPE.to_owned(),
            digest: bundle.digest.to_string(),
            size: bundle.size,
            annotations: Map::from_iter([(REF_NAME.to_owned(), Value::from(name))]),
            other: Map::new(),
        });
    }

    /// Removes a bundle's name.
    pub fn remove(&mut self, role: &Role, version: &Version) {
        let name = format!("{role}:{version}");
        self.manifests.retain(|descriptor| {
            descriptor.annotations.get(REF_NAME).and_then(Value::as_str) != Some(name.as_str())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_others_wrote_and_finds_the_newest() {
        let text = r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha512:1","size":3,"platform":{"os":"linux"}}],"annotations":{"a":"b"}}"#;
        let mut index: Index = serde_json::from_str(text).unwrap();
        for version in ["1-1", "1-2"] {
            let (role, version) = ("kafka".parse().unwrap(), version.parse().unwrap());
            index.add(&Tagged { role, version, digest: Digest::of(b"x"), size: 1 });
        }
        let newest = index.find(&"kafka".parse().unwrap()).unwrap();
        assert_eq!(newest.version.as_str(), "1-2");
        assert_eq!(index.near(&"kafak".parse().unwrap()), ["kafka", "kafka:1-1", "kafka:1-2"]);
        index.remove(&newest.role, &newest.version);
        assert_eq!(index.bundles().count(), 1);
        let written = serde_json::to_string(&index).unwrap();
        assert!(
            written.contains(r#""platform":{"os":"linux"}"#)
                && written.contains(r#""annotations":{"a":"b"}"#)
        );
    }
}
