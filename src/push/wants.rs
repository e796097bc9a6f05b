//! What a bundle's templates ask for beyond cluster.toml's plain values.
//!
//! A node is sent only the secrets that its bundle names, and peers are asked whether the role is forming only
//! where a template looks at it.

use std::collections::{BTreeMap, BTreeSet};

use crate::bundle::{RECORD_PATH, Record};
use crate::model::BundlePath;
use crate::recipe::{Diagnostics, ServiceKind, TemplateNames, check_template};
use crate::store::{LayerReader, Store, StoreError, StoredBundle};

/// What a bundle asks for when it is staged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The secrets that it names.
    pub secrets: BTreeSet<String>,
    /// Some secret's name is known only on the node: it may be any of cluster.toml's.
    pub any_secret: bool,
    /// Some template looks at `cluster.forming`.
    pub forming: bool,
    /// What kind of service it has.
    pub kind: Option<ServiceKind>,
    /// The text of each template that its record names.
    pub templates: BTreeMap<BundlePath, String>,
}

/// Why that cannot be known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WantsError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A template of the bundle is not valid; the build should have refused it.
    #[error("the bundle's templates are not valid")]
    Template(#[from] Diagnostics),
}

impl Wants {
    fn take(&mut self, names: &TemplateNames) {
        self.secrets.extend(names.secrets.iter().cloned());
        self.any_secret |= names.computed_secret;
        self.forming |= names.names.iter().any(|name| name == "cluster" || name == "cluster.forming");
    }

    /// The secrets to be sent, of those that there are.
    pub fn secrets_of<'a>(&self, all: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        let mut names = self.secrets.clone();
        if self.any_secret {
            names.extend(all.map(str::to_owned));
        }
        names
    }
}

/// Reads what a bundle's templates and its service ask for.
pub fn wants(store: &Store, bundle: &StoredBundle) -> Result<Wants, WantsError> {
    let record = store.record(bundle)?;
    let kind = record.service.as_ref().map(|service| service.kind);
    let (mut wants, mut templates) = (Wants { kind, ..Wants::default() }, BTreeMap::new());
    let mut check = |file: &str, text: &str| -> Result<(), WantsError> {
        wants.take(&check_template(file, text, &record.versions)?);
        Ok(())
    };
    for text in service_texts(&record) {
        check(RECORD_PATH, &text)?;
    }
    if !record.templates.is_empty() {
        let layers: Vec<LayerReader> =
            bundle.manifest.layers.iter().map(|layer| store.layer(layer)).collect::<Result<_, _>>()?;
        for path in &record.templates {
            // A later layer covers an earlier one.
            let Some((layer, entry)) = layers.iter().rev().find_map(|layer| find(layer, path)) else {
                continue;
            };
            let text = String::from_utf8_lossy(&layer.read_file(entry)?).into_owned();
            check(path.as_str(), &text)?;
            templates.insert(path.clone(), text);
        }
    }
    wants.templates = templates;
    Ok(wants)
}

fn find<'a>(layer: &'a LayerReader, path: &BundlePath) -> Option<(&'a LayerReader, usize)> {
    let at = layer.toc.find(path)?;
    Some((layer, layer.content_of(&layer.toc.entries[at])?.0))
}

/// Every string below the service; each is a template.
fn service_texts(record: &Record) -> Vec<String> {
    fn strings(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) => found.push(text.clone()),
            serde_json::Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
            serde_json::Value::Object(fields) => fields.values().for_each(|item| strings(item, found)),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
        }
    }
    let mut found = Vec::new();
    strings(&serde_json::to_value(&record.service).unwrap_or_default(), &mut found);
    found
}
