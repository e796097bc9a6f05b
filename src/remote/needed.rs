//! Which secrets a release on a node asks for, with their values.
//!
//! A bundle's templates name secrets, some of them in branches that no node takes: `{% if vars.security %}`. Those are
//! asked of nobody.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8Path;

use super::secrets::{SecretError, Secrets};
use crate::agent::{PreviewRequest, imagine};

/// What stands for a secret that is not known yet.
const UNKNOWN: &str = "***";

impl Secrets {
    /// Of `names`, the secrets that rendering on a node with that root asks for. The request's own are not looked at.
    ///
    /// May wait for a command, or for a person whom that asks.
    pub fn needed(
        &self,
        root: &Utf8Path,
        request: &PreviewRequest,
        names: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, String>, SecretError> {
        let mut known = BTreeMap::new();
        if names.is_empty() {
            return Ok(known);
        }
        let mut request = request.clone();
        loop {
            // What one secret holds may decide whether another is asked for.
            let value = |name: &String| known.get(name).cloned().unwrap_or_else(|| UNKNOWN.to_owned());
            request.secrets = names.iter().map(|name| (name.clone(), value(name))).collect();
            let asked = asked(root, &request).unwrap_or_else(|| names.clone());
            let new: BTreeSet<String> = asked.into_iter().filter(|name| !known.contains_key(name)).collect();
            if new.is_empty() {
                return Ok(known);
            }
            known.extend(self.gather(&new)?);
        }
    }
}

/// The names that are asked for, now and as the role was formed, since a release of that time is compared with; `None`
/// where it does not render.
fn asked(root: &Utf8Path, request: &PreviewRequest) -> Option<BTreeSet<String>> {
    let mut names = imagine(root, request).ok()?.secrets;
    if !request.context.cluster.forming {
        let mut forming = request.clone();
        forming.context.cluster.forming = true;
        names.extend(imagine(root, &forming).into_iter().flat_map(|imagined| imagined.secrets));
    }
    Some(names)
}
