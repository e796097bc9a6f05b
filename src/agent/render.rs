//! Templates of a bundle, rendered for one node.
//!
//! # Invariants
//!
//! * A text that asked for a secret is known to have done so, whatever came of it.
//! * Versions are those the bundle was built with, not those of today's windlass.toml: a bundle that is
//!   gone back to is what it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use camino::Utf8Path;
use minijinja::{Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::bundle::Record;
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
    pub text: String,
    /// A secret may be in it.
    pub secret: bool,
}

/// Renders the texts of one release.
#[derive(Debug)]
pub(super) struct Renderer {
    context: Value,
    asked: Arc<AtomicBool>,
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
        let (asked_for, secrets) = (Arc::clone(&asked), Arc::clone(secrets));
        let secret = Value::from_function(move |name: String| -> Result<String, Error> {
            asked_for.store(true, Ordering::Relaxed);
            let missing = || Error::new(ErrorKind::InvalidOperation, format!("there is no secret `{name}`"));
            secrets.get(&name).cloned().ok_or_else(missing)
        });
        let plain = plain.as_object().into_iter().flatten();
        let pairs: Vec<(String, Value)> = plain
            .map(|(name, value)| (name.clone(), to_template_value(value)))
            .chain([("nodes_with".to_owned(), nodes_with), ("secret".to_owned(), secret)])
            .collect();
        let context = Value::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.clone())));
        Self { context, asked }
    }

    pub(super) fn render(&self, text: &str) -> Result<Text, TemplateError> {
        self.asked.store(false, Ordering::Relaxed);
        let text = Engine::shared().render(text, &self.context)?;
        Ok(Text { text, secret: self.asked.load(Ordering::Relaxed) })
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
        };
        let secrets = Arc::new(BTreeMap::from([("pw".to_owned(), "hunter2".to_owned())]));
        Renderer::new(&record, &context, &secrets, "/w/r/1-a".into(), "/w/shared".into())
    }

    #[test]
    fn every_name_of_the_design_is_there() {
        let text = "{{ versions.kafka }} {{ vars.heap }} {{ vars.port }} {{ role }} {{ release }} {{ shared }} \
            {{ node.name }} {{ node.address }} {{ node.zone }} {{ cluster.name }} {{ cluster.forming }} \
            {% for n in nodes_with('zookeeper') %}{{ n.address }};{% endfor %} {{ nodes_with('none') | length }}";
        assert_eq!(
            renderer().render(text).unwrap(),
            Text {
                text: "2.1.1 2g 9092 kafka /w/r/1-a /w/shared 1 10.0.0.1 None prod True 10.0.0.1;10.0.0.2; 0"
                    .to_owned(),
                secret: false
            }
        );
    }

    #[test]
    fn secrets_are_noticed_and_errors_do_not_tell_them() {
        let renderer = renderer();
        assert!(renderer.render("{{ secret('pw') | length }}").unwrap().secret);
        assert!(!renderer.render("x").unwrap().secret);
        let error = renderer.render("{{ secret('other') }}").unwrap_err();
        assert!(error.to_string().contains("there is no secret `other`"), "{error}");
        let error = renderer.render("{{ secret('pw') + 1 }}{{ secret('pw').x }}").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
