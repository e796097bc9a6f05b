//! Templates of a bundle, rendered for one node.
//!
//! # Invariants
//!
//! * A text that asked for a secret is known to have done so, whatever came of it.
//! * What is shown of such a text is rendered a second time without the secrets: whatever a template makes of
//!   one (a part, another case), nothing of it is there to be shown.
//! * Versions are those the bundle was built with, not those of today's windlass.toml: a bundle that is
//!   gone back to is what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use camino::Utf8Path;
use minijinja::{Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::bundle::Record;
use crate::model::Supervision;
use crate::recipe::{Engine, TemplateError, to_template_value};

/// What a node's templates see, besides what the bundle says itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The cluster's and the node's vars; they win over the recipe's.
    #[serde(default)]
    pub vars: Map<String, Json>,
    /// This node.
    pub node: NodeContext,
    /// The cluster.
    pub cluster: ClusterContext,
    /// Every role's nodes.
    #[serde(default)]
    pub nodes: BTreeMap<String, Vec<NodeContext>>,
    /// What keeps this node's services up; no template sees it.
    #[serde(default, skip_serializing_if = "Supervision::is_pidfile")]
    pub supervisor: Supervision,
}

/// A node, as templates see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeContext {
    /// Its name in cluster.toml.
    pub name: String,
    /// Where others reach it.
    pub address: String,
    /// Its zone, if it has one.
    #[serde(default)]
    pub zone: Option<String>,
    /// Its own vars.
    #[serde(default)]
    pub vars: Map<String, Json>,
}

/// The cluster, as templates see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterContext {
    /// Its name.
    pub name: String,
    /// No node has run this role yet.
    #[serde(default)]
    pub forming: bool,
}

/// A text that was rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// As it is written.
    pub exact: String,
    /// A secret may be in it.
    pub secret: bool,
    /// Rendered with [`MASK`] for every secret, if it asked for one and renders without.
    pub masked: Option<String>,
}

/// What is shown for a secret.
const MASK: &str = "***";

impl Text {
    /// As it may leave the node.
    pub(super) fn shown(&self) -> Option<&str> {
        if self.secret { self.masked.as_deref() } else { Some(&self.exact) }
    }
}

/// Renders the texts of one release.
#[derive(Debug)]
pub(super) struct Renderer {
    context: Value,
    masked: Value,
    asked: Arc<AtomicBool>,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Renderer {
    pub(super) fn new(
        record: &Record,
        context: &Context,
        secrets: &Arc<BTreeMap<String, String>>,
        release: &Utf8Path,
        shared: &Utf8Path,
    ) -> Self {
        let mut vars = record.vars.clone();
        vars.extend(context.vars.clone());
        let plain = json!({
            "versions": record.versions,
            "vars": vars,
            "role": record.role,
            "release": release,
            "current": shared.parent().map(|role| role.join("current")),
            "shared": shared,
            "node": context.node,
            "cluster": context.cluster,
        });
        let nodes: BTreeMap<String, Value> = context
            .nodes
            .iter()
            .map(|(role, nodes)| (role.clone(), to_template_value(&json!(nodes))))
            .collect();
        let nodes_with = Value::from_function(move |role: String| -> Value {
            nodes.get(&role).cloned().unwrap_or_else(|| Value::from(Vec::<Value>::new()))
        });
        let asked = Arc::new(AtomicBool::new(false));
        let names: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (asked_for, noted, secrets) = (Arc::clone(&asked), Arc::clone(&names), Arc::clone(secrets));
        let secret = Value::from_function(move |name: String| -> Result<String, Error> {
            asked_for.store(true, Ordering::Relaxed);
            noted.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
            let missing = || Error::new(ErrorKind::InvalidOperation, format!("there is no secret `{name}`"));
            secrets.get(&name).cloned().ok_or_else(missing)
        });
        let mask = Value::from_function(|_: String| MASK);
        let plain = plain.as_object().into_iter().flatten();
        let mut pairs: Vec<(&str, Value)> =
            plain.map(|(name, value)| (name.as_str(), to_template_value(value))).collect();
        pairs.push(("nodes_with", nodes_with));
        let with = |secret: Value| Value::from_pairs(pairs.iter().cloned().chain([("secret", secret)]));
        Self { context: with(secret), masked: with(mask), asked, names }
    }

    /// The names of the secrets that the texts so far asked for.
    pub(super) fn asked_for(&self) -> BTreeSet<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn render(&self, text: &str) -> Result<Text, TemplateError> {
        self.asked.store(false, Ordering::Relaxed);
        let rendered = Engine::shared().render(text, &self.context)?;
        let secret = self.asked.load(Ordering::Relaxed);
        let masked = secret.then(|| Engine::shared().render(text, &self.masked).ok()).flatten();
        Ok(Text { exact: rendered, secret, masked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renderer() -> Renderer {
        let record = json!({ "format": 1, "role": "kafka", "files": 0, "unpacked_size": 0, "artifacts": [],
            "versions": { "kafka": "2.1.1" }, "vars": { "heap": "1g", "port": 9092 } });
        let record: Record = serde_json::from_value(record).unwrap();
        let node = |name: &str| NodeContext {
            name: name.to_owned(),
            address: format!("10.0.0.{name}"),
            ..Default::default()
        };
        let context = Context {
            vars: json!({ "heap": "2g" }).as_object().unwrap().clone(),
            node: node("1"),
            cluster: ClusterContext { name: "prod".to_owned(), forming: true },
            nodes: BTreeMap::from([("zookeeper".to_owned(), vec![node("1"), node("2")])]),
            supervisor: Supervision::default(),
        };
        let secrets = Arc::new(BTreeMap::from([("pw".to_owned(), "hunter2".to_owned())]));
        Renderer::new(&record, &context, &secrets, "/w/r/1-a".into(), "/w/shared".into())
    }

    #[test]
    fn every_name_of_the_design_is_there() {
        let text = "{{ versions.kafka }} {{ vars.heap }} {{ vars.port }} {{ role }} {{ release }} {{ current }} {{ shared }} \
            {{ node.name }} {{ node.address }} {{ node.zone }} {{ cluster.name }} {{ cluster.forming }} \
            {% for n in nodes_with('zookeeper') %}{{ n.address }};{% endfor %} {{ nodes_with('none') | length }}";
        assert_eq!(
            renderer().render(text).unwrap(),
            Text {
                exact:
                    "2.1.1 2g 9092 kafka /w/r/1-a /w/current /w/shared 1 10.0.0.1 None prod True 10.0.0.1;10.0.0.2; 0"
                        .to_owned(),
                secret: false,
                masked: None,
            }
        );
    }

    #[test]
    fn secrets_are_noticed_and_errors_do_not_tell_them() {
        let renderer = renderer();
        let length = renderer.render("{{ secret('pw') | length }}").unwrap();
        assert!(length.secret && length.exact == "7" && length.shown() == Some("3"));
        let part = renderer.render("{{ secret('pw')[:4] | upper }} {{ role }}").unwrap();
        assert_eq!((part.exact.as_str(), part.shown()), ("HUNT kafka", Some("*** kafka")));
        // It renders with the secret only, so there is nothing to be shown.
        let only = renderer.render("{% if secret('pw') != 'hunter2' %}{{ nothing }}{% endif %}").unwrap();
        assert_eq!((only.exact.as_str(), only.shown()), ("", None));
        assert!(!renderer.render("x").unwrap().secret);
        let error = renderer.render("{{ secret('other') }}").unwrap_err();
        assert!(error.to_string().contains("there is no secret `other`"), "{error}");
        let error = renderer.render("{{ secret('pw') + 1 }}{{ secret('pw').x }}").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
