//! `windlass set`: raises a version in windlass.toml and leaves every other byte as it is.
//!
//! The value is replaced in the text by its span, not written anew by a TOML library: comments, odd
//! spacing, CRLF and a byte order mark all stay.

use super::diagnostic::{Diagnostics, alternatives};
use super::place::Source;
use super::project::check_version;
use super::tree::{Value, parse};
use crate::model::nearest;

/// Why a version could not be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// windlass.toml cannot be read.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
    /// `[versions]` has no such product.
    #[error("windlass.toml has no version of `{product}`")]
    UnknownProduct {
        /// What was asked for.
        product: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The product's entry is a table or an array.
    #[error("`{product}` in [versions] is not a version but {found}")]
    NotAVersion {
        /// The product.
        product: String,
        /// What it is.
        found: &'static str,
    },
    /// The text cannot be a version.
    #[error("`{version}` is not a version: {why}")]
    BadVersion {
        /// The text.
        version: String,
        /// Why.
        why: &'static str,
    },
}

impl SetError {
    /// What to do about it, a line each; [`Diagnostics`] carry their own.
    pub fn help(&self) -> Vec<String> {
        let Self::UnknownProduct { product, known } = self else { return Vec::new() };
        if known.is_empty() {
            return vec!["it has no [versions] yet; add the product there".to_owned()];
        }
        let near = nearest(product, known.iter().map(String::as_str));
        let near = (!near.is_empty()).then(|| format!("did you mean {}?", alternatives(&near)));
        let all = format!("products: {}", known.join(", "));
        near.into_iter().chain([all]).collect()
    }
}

/// `text`, which is windlass.toml, with `product` at `version`.
pub fn set_version(text: &str, product: &str, version: &str) -> Result<String, SetError> {
    if let Err(why) = check_version(version) {
        return Err(SetError::BadVersion { version: version.to_owned(), why });
    }
    let source = Source::new("windlass.toml", text);
    let table = parse(&source).map_err(|list| match Diagnostics::new(list) {
        Some(problems) => SetError::Invalid(problems),
        None => unknown(product, Vec::new()),
    })?;
    let versions = table.entries.get("versions").map(|entry| &entry.node.value);
    let Some(Value::Table(versions)) = versions else { return Err(unknown(product, Vec::new())) };
    let Some(entry) = versions.entries.get(product) else {
        return Err(unknown(product, versions.entries.keys().cloned().collect()));
    };
    match &entry.node.value {
        Value::String(current) if current == version => return Ok(text.to_owned()),
        value @ (Value::Array(_) | Value::Table(_)) => {
            return Err(SetError::NotAVersion { product: product.to_owned(), found: value.kind() });
        }
        _ => {}
    }
    let mark = text.len() - source.text().len();
    let span = entry.node.place.span();
    Ok(format!("{}\"{version}\"{}", &text[..mark + span.start], &text[mark + span.end..]))
}

fn unknown(product: &str, known: Vec<String>) -> SetError {
    SetError::UnknownProduct { product: product.to_owned(), known }
}
