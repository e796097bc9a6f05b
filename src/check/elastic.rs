//! An Elasticsearch or OpenSearch node, as its conf makes it.

use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};

use super::problem::Problem;
use super::settings::Settings;
use super::topology::{Instance, Topology};
use crate::model::ProductVersion;
use crate::recipe::ServiceKind;

/// Kinds that this is about.
pub(super) const KINDS: [ServiceKind; 2] = [ServiceKind::Elasticsearch, ServiceKind::Opensearch];

/// Settings of a node's roles before there was `node.roles`.
pub(super) const OLD_ROLES: [&str; 8] = [
    "node.master",
    "node.data",
    "node.ingest",
    "node.ml",
    "node.voting_only",
    "node.transform",
    "node.remote_cluster_client",
    "cluster.remote.connect",
];

/// Keys of the hosts where a node looks for others, the newer first.
pub(super) const SEEDS: [&str; 2] = ["discovery.seed_hosts", "discovery.zen.ping.unicast.hosts"];

/// Keys of the nodes that hold the first election.
pub(super) const INITIAL: [&str; 2] =
    ["cluster.initial_master_nodes", "cluster.initial_cluster_manager_nodes"];

/// A node.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a role, and a node may have any of them")]
pub(super) struct EsNode<'a> {
    pub at: &'a Instance,
    pub conf: Settings,
    /// `node.name`; `None` where the server chooses one.
    pub name: Option<String>,
    pub master: bool,
    pub voting_only: bool,
    pub data: bool,
    pub ingest: bool,
    /// Tiers of its data: `data_hot`, a `box_type`, or just `data`.
    pub tiers: BTreeSet<String>,
    /// It does something besides electing and being elected.
    pub works: bool,
}

/// The Elasticsearch nodes of a cluster.
#[derive(Debug)]
pub(super) struct Elastic<'a> {
    pub nodes: Vec<EsNode<'a>>,
    pub topology: &'a Topology,
    /// Every node is known, so that they can be counted.
    pub complete: bool,
}

impl<'a> Elastic<'a> {
    /// Reads the conf of every node; what cannot be read is a problem of its own.
    pub(super) fn read(topology: &'a Topology, problems: &mut Vec<Problem>) -> Self {
        let mut complete = topology.is_complete(&KINDS);
        let mut nodes = Vec::new();
        for at in topology.instances.iter().filter(|one| KINDS.contains(&one.kind)) {
            match EsNode::read(at) {
                Ok(node) => nodes.push(node),
                Err(problem) => {
                    complete = false;
                    problems.push(problem);
                }
            }
        }
        Self { nodes, topology, complete }
    }

    pub(super) fn masters(&self) -> impl Iterator<Item = &EsNode<'a>> {
        self.nodes.iter().filter(|node| node.master)
    }

    pub(super) fn data(&self) -> impl Iterator<Item = &EsNode<'a>> {
        self.nodes.iter().filter(|node| node.data)
    }

    /// Zones that its nodes stand in.
    pub(super) fn zones(&self) -> BTreeSet<&str> {
        self.nodes.iter().filter_map(|node| node.at.zone.as_deref()).collect()
    }

    /// A cluster setting: what was set while it ran, or else what some node's conf says; with its place.
    pub(super) fn setting(&self, key: &str) -> Option<(String, String)> {
        let live = self.topology.live.as_ref();
        if let Some(value) = live.and_then(|live| live.settings.get(key)) {
            return Some((value.clone(), format!("_cluster/settings {key}")));
        }
        let masters = self.masters().chain(self.nodes.iter());
        let mut found = masters.filter_map(|node| Some((node.conf.get(key)?, node.conf.place(key))));
        found.next()
    }

    /// Data nodes that an index with these settings may live on.
    pub(super) fn homes<'b>(
        &'b self,
        filters: &'b std::collections::BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'b EsNode<'a>> {
        self.data().filter(move |node| {
            let required = filters.iter().filter_map(|(key, value)| {
                let attribute = key.strip_prefix("routing.allocation.require.")?;
                (!attribute.starts_with('_')).then_some((attribute, value))
            });
            let fits = |(attribute, value): (&str, &String)| {
                let has = node.conf.get(&format!("node.attr.{attribute}"));
                has.is_none_or(|has| value.split(',').any(|one| super::lints::matches(one.trim(), &has)))
            };
            let preference = filters.get("routing.allocation.include._tier_preference");
            // The first tier of the preference that has nodes is where it lives.
            let tier = preference.and_then(|text| {
                let mut tiers = text.split(',').map(str::trim);
                tiers.find(|tier| self.data().any(|node| node.tiers.contains(*tier)))
            });
            required.into_iter().all(fits)
                && tier.is_none_or(|tier| node.tiers.contains(tier) || node.tiers.contains("data"))
        })
    }
}

impl<'a> EsNode<'a> {
    /// A node, for who does not care why it cannot be read.
    pub(super) fn of(at: &'a Instance) -> Result<Self, Problem> {
        Self::read(at)
    }

    fn read(at: &'a Instance) -> Result<Self, Problem> {
        let file = if at.kind == ServiceKind::Opensearch { "opensearch.yml" } else { "elasticsearch.yml" };
        let node = Some(at.node.as_str());
        let found = at.conf(file).or_else(|| at.conf("elasticsearch.yml"));
        let Some(found) = found else {
            return Err(Problem::unseen(node, &at.role, format!("{} has no {file}", at.name())));
        };
        let mut conf = Settings::yaml(&found.path, &found.text).map_err(|(line, why)| {
            Problem::unreadable(node, format!("{}:{line}", found.path), format!("it is not YAML: {why}"))
        })?;
        let mut words = at.command.iter();
        while let Some(word) = words.next() {
            let Some(pair) = word.strip_prefix("-E") else { continue };
            let pair = if pair.is_empty() { words.next().map_or("", String::as_str) } else { pair };
            if let Some((key, value)) = pair.split_once('=') {
                conf.set(key, value);
            }
        }
        conf.fill(&at.env);
        let roles = conf.list("node.roles");
        let has = |names: &[&str]| {
            roles.as_ref().is_some_and(|roles| roles.iter().any(|role| names.contains(&role.as_str())))
        };
        let old = |key: &str, usual: bool| conf.flag(key).unwrap_or(usual);
        let (master, voting_only, data, ingest, works);
        let mut tiers: BTreeSet<String> = BTreeSet::new();
        if let Some(roles) = &roles {
            master = has(&["master", "cluster_manager"]);
            voting_only = has(&["voting_only"]);
            tiers.extend(roles.iter().filter(|role| role.starts_with("data")).cloned());
            data = !tiers.is_empty();
            ingest = has(&["ingest"]);
            works = data || ingest || roles.is_empty() || has(&["ml", "transform", "search"]);
        } else {
            master = old("node.master", true);
            voting_only = old("node.voting_only", false);
            data = old("node.data", true);
            ingest = old("node.ingest", true);
            works = data || ingest || !master;
        }
        if data && (tiers.is_empty() || tiers.iter().all(|tier| tier == "data")) {
            let attribute = ["node.attr.box_type", "node.attr.data", "node.attr.temp"];
            let tier = conf.first(&attribute).map_or_else(|| "data".to_owned(), |(_, value)| value);
            tiers = BTreeSet::from([tier]);
        }
        let name = conf.get("node.name");
        Ok(Self { at, conf, name, master, voting_only, data, ingest, tiers, works })
    }

    /// Its `node.name`, or windlass's name for it.
    pub(super) fn called(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.at.name())
    }

    /// Its version as Elasticsearch counts: OpenSearch comes from 7.10.
    pub(super) fn version(&self) -> Option<ProductVersion> {
        match self.at.kind {
            ServiceKind::Opensearch => Some(ProductVersion { major: 7, minor: 10, patch: 2, pre: None }),
            _ => self.at.version.clone(),
        }
    }

    /// Addresses under which others may name it.
    pub(super) fn addresses(&self) -> BTreeSet<String> {
        let keys = [
            "network.host",
            "network.publish_host",
            "network.bind_host",
            "transport.host",
            "transport.publish_host",
            "transport.bind_host",
        ];
        let given = keys.iter().filter_map(|key| self.conf.list(key)).flatten();
        let mut all: BTreeSet<String> = given.filter(|one| !one.starts_with('_')).collect();
        all.extend([self.at.address.clone(), self.at.node.clone()]);
        all
    }

    /// A port that is one number.
    pub(super) fn port(&self, keys: &[&str]) -> Option<u16> {
        self.conf.first(keys)?.1.trim().parse().ok()
    }

    /// Where it listens for other nodes.
    pub(super) fn transport_port(&self) -> Option<u16> {
        self.port(&["transport.port", "transport.tcp.port"])
    }

    /// Where it listens for clients.
    pub(super) fn http_port(&self) -> Option<u16> {
        self.port(&["http.port"])
    }

    /// Where the product is unpacked: above the folder of its conf.
    pub(super) fn home(&self) -> Utf8PathBuf {
        let conf = self.at.conf("elasticsearch.yml").or_else(|| self.at.conf("opensearch.yml"));
        let dir = conf.and_then(|file| Utf8Path::new(&file.path).parent()?.parent());
        self.at.release.join(dir.unwrap_or(Utf8Path::new("")))
    }

    /// A directory setting, absolute; the server's own choice where it is not set.
    pub(super) fn paths(&self, key: &str) -> Vec<Utf8PathBuf> {
        let usual = key.rsplit('.').next().unwrap_or(key).to_owned();
        let given = self.conf.list(key).unwrap_or_else(|| vec![usual]);
        given.iter().map(|path| self.home().join(path)).collect()
    }

    /// Whether it forms a cluster of its own, by its own word.
    pub(super) fn is_single(&self) -> bool {
        self.conf.get("discovery.type").as_deref() == Some("single-node")
    }

    /// Whether the server itself insists on its bootstrap checks: others can reach it.
    pub(super) fn is_production(&self) -> bool {
        let keys = ["network.host", "network.bind_host", "network.publish_host"];
        let keys = keys.iter().chain(&["transport.host", "transport.bind_host", "transport.publish_host"]);
        let loopback = |host: &String| {
            matches!(host.as_str(), "_local_" | "localhost" | "_local:ipv4_" | "_local:ipv6_")
                || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        let mut hosts = keys.filter_map(|key| self.conf.list(key)).flatten();
        !self.is_single() && hosts.any(|host| !loopback(&host))
    }
}
