//! Which stock roles can be made of what is in install/, and what they need.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{self, Versions};
use super::stock;

/// A stock role: everything that its recipe and its parts name.
#[derive(Debug)]
pub(super) struct Stock {
    pub role: &'static str,
    /// Its recipe and the parts that it extends.
    pub recipes: Vec<String>,
    /// Folders of conf.
    pub conf: BTreeSet<String>,
    /// Names of artifacts, as patterns, and whether the role is one without it.
    pub artifacts: Vec<(String, bool)>,
    /// What its service is.
    pub kind: String,
}

/// All stock roles.
pub(super) fn stock_roles() -> Vec<Stock> {
    stock::roles().map(read).collect()
}

fn read(role: &'static str) -> Stock {
    let mut found = Stock {
        role,
        recipes: Vec::new(),
        conf: BTreeSet::new(),
        artifacts: Vec::new(),
        kind: "process".to_owned(),
    };
    let mut next = Some(role.to_owned());
    while let Some(name) = next.take() {
        // They are valid: a test builds all of them.
        let table: toml::Table = stock::recipe(&name).and_then(|text| text.parse().ok()).unwrap_or_default();
        let tables = |key: &str| table.get(key).and_then(toml::Value::as_array).into_iter().flatten();
        for unpack in tables("unpack") {
            let text =
                |key: &str| unpack.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
            found.artifacts.push((text("artifact"), is_plugin(&text("into"))));
        }
        found.conf.extend(tables("conf").filter_map(|conf| conf.get("from")?.as_str().map(str::to_owned)));
        let kind = table.get("service").and_then(|service| service.get("kind")?.as_str());
        if let Some(kind) = kind.filter(|_| found.kind == "process") {
            kind.clone_into(&mut found.kind);
        }
        next = table.get("extends").and_then(toml::Value::as_str).map(str::to_owned);
        found.recipes.push(name);
    }
    found
}

/// Elasticsearch runs without its plugins. Kibana's is named in its conf, and Kibana refuses what it does not know.
pub(super) fn is_plugin(into: &str) -> bool {
    into.starts_with("elasticsearch/plugins/")
}

/// Every version of every product that the files have, the newest first.
pub(super) fn products(stock: &[Stock], files: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (pattern, _) in stock.iter().flat_map(|one| &one.artifacts) {
        for versions in
            names::names(pattern).flat_map(|name| files.iter().filter_map(|file| names::versions(name, file)))
        {
            for (product, version) in versions {
                found.entry(product).or_default().insert(version);
            }
        }
    }
    let sorted = |versions: BTreeSet<String>| {
        let mut versions: Vec<String> = versions.into_iter().collect();
        versions.sort_by(|one, other| names::newer(other, one));
        versions
    };
    found.into_iter().map(|(product, versions)| (product, sorted(versions))).collect()
}

/// The name under which an artifact is there with these versions.
pub(super) fn artifact<'a>(
    pattern: &'a str,
    versions: &Versions,
    files: &BTreeSet<String>,
) -> Option<&'a str> {
    names::names(pattern).find(|name| names::fill(name, versions).is_some_and(|name| files.contains(&name)))
}

/// What a role lacks, as file names; nothing if it can be made.
pub(super) fn missing(one: &Stock, versions: &Versions, files: &BTreeSet<String>) -> Vec<String> {
    let needed = one.artifacts.iter().filter(|(_, plugin)| !plugin);
    let lacking = needed.filter(|(pattern, _)| artifact(pattern, versions, files).is_none());
    lacking
        .map(|(pattern, _)| {
            let mut known = versions.clone();
            for product in names::products(pattern) {
                known.entry(product.to_owned()).or_insert_with(|| format!("<{product}>"));
            }
            names::fill(pattern, &known).unwrap_or_else(|| pattern.clone())
        })
        .collect()
}
