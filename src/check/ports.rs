//! The ports that a role listens on, as its conf says.

use std::collections::BTreeMap;

use super::elastic::{EsNode, KINDS};
use super::settings::Settings;
use super::topology::Instance;
use crate::recipe::ServiceKind;

/// The port at which an Elasticsearch or OpenSearch answers clients.
pub fn http_port(one: &Instance) -> u16 {
    EsNode::of(one).ok().and_then(|node| node.http_port()).unwrap_or(9200)
}

/// Each port, and where it is written.
pub fn ports(one: &Instance) -> BTreeMap<u16, String> {
    let mut ports = BTreeMap::new();
    if let Some(port) = one.ready_port {
        ports.insert(port, format!("recipes/{}.toml service.ready", one.role));
    }
    match one.kind {
        kind if KINDS.contains(&kind) => {
            let file = if kind == ServiceKind::Opensearch { "opensearch.yml" } else { "elasticsearch.yml" };
            if let Some(file) = one.conf(file)
                && let Ok(mut conf) = Settings::yaml(&file.path, &file.text)
            {
                conf.fill(&one.env);
                for key in ["http.port", "transport.port", "transport.tcp.port"] {
                    add(&mut ports, conf.get(key), conf.place(key));
                }
            }
        }
        ServiceKind::Kafka => {
            if let Some(file) = one.conf("server.properties") {
                let conf = Settings::properties(&file.path, &file.text);
                for listener in conf.list("listeners").unwrap_or_default() {
                    add(&mut ports, listener.rsplit(':').next().map(str::to_owned), conf.place("listeners"));
                }
                if !conf.has("listeners") {
                    add(&mut ports, conf.get("port"), conf.place("port"));
                }
            }
        }
        ServiceKind::Zookeeper => {
            if let Some(file) = one.conf("zoo.cfg") {
                let conf = Settings::properties(&file.path, &file.text);
                for key in ["clientPort", "secureClientPort", "admin.serverPort"] {
                    add(&mut ports, conf.get(key), conf.place(key));
                }
            }
        }
        _ => {}
    }
    ports
}

fn add(ports: &mut BTreeMap<u16, String>, text: Option<String>, place: String) {
    if let Some(port) = text.and_then(|text| text.trim().parse().ok()).filter(|port| *port > 0) {
        // What the conf says is the better place.
        ports.insert(port, place);
    }
}
