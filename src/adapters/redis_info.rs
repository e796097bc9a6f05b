//! What Redis says about itself: its `INFO`, read.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::adapter::AdapterError;
use super::resp::Reply;
use super::view::{Instance, View};

/// A server, as it describes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Info(BTreeMap<String, String>);

/// A replica, as its master sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) ip: String,
    pub(super) port: u16,
    pub(super) online: bool,
    pub(super) offset: u64,
}

impl Info {
    pub(super) fn parse(text: &str) -> Self {
        let pair = |line: &str| {
            let (name, value) = line.trim_end().split_once(':')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }

    pub(super) fn version(&self) -> &str {
        self.get("redis_version")
    }

    /// Whether `FAILOVER` is known: from 6.2.
    pub(super) fn has_failover(&self) -> bool {
        let mut parts = self.version().split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (6, 2)
    }

    pub(super) fn is_master(&self) -> bool {
        self.get("role") == "master"
    }

    pub(super) fn is_replica(&self) -> bool {
        self.get("role") == "slave"
    }

    /// It is one of a Redis Cluster, which has another kind of failover.
    pub(super) fn is_clustered(&self) -> bool {
        self.get("cluster_enabled") == "1"
    }

    /// How much of its data it has loaded, if it is still at that.
    pub(super) fn loading(&self) -> Option<String> {
        (self.get("loading") == "1").then(|| self.get("loading_loaded_perc").to_owned())
    }

    /// A failover that it coordinates at this moment.
    pub(super) fn failover(&self) -> Option<&str> {
        Some(self.get("master_failover_state")).filter(|state| !matches!(*state, "" | "no-failover"))
    }

    /// What it follows.
    pub(super) fn follows(&self) -> (&str, u16) {
        (
            self.get("master_host"),
            self.number("master_port").and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        )
    }

    /// Why a replica is not in sync with what it follows.
    pub(super) fn lags(&self) -> Option<String> {
        if self.get("master_sync_in_progress") == "1" {
            return Some(format!(
                "a full copy is under way, {} bytes to go",
                self.get("master_sync_left_bytes")
            ));
        }
        (self.get("master_link_status") != "up").then(|| {
            let (host, port) = self.follows();
            format!("its link to its master {host}:{port} is {}", self.get("master_link_status"))
        })
    }

    /// How far it is in the stream of writes.
    pub(super) fn offset(&self) -> u64 {
        let name = if self.is_replica() { "slave_repl_offset" } else { "master_repl_offset" };
        self.number(name).unwrap_or(0)
    }

    /// Seconds since it started.
    pub(super) fn uptime(&self) -> u64 {
        self.number("uptime_in_seconds").unwrap_or(0)
    }

    /// Those that follow it: `slave0:ip=10.0.0.2,port=6379,state=online,offset=42,lag=0`.
    pub(super) fn replicas(&self) -> Vec<Replica> {
        let replica = |(name, value): (&String, &String)| {
            let number = name.strip_prefix("slave")?;
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let fields: BTreeMap<&str, &str> =
                value.split(',').filter_map(|field| field.split_once('=')).collect();
            let field = |name: &str| fields.get(name).copied();
            Some(Replica {
                ip: field("ip")?.to_owned(),
                port: field("port")?.parse().ok()?,
                online: field("state") == Some("online"),
                offset: field("offset").and_then(|text| text.parse().ok()).unwrap_or(0),
            })
        };
        self.0.iter().filter_map(replica).collect()
    }

    /// How many of those are close enough to count; `None` where nobody asked for a number of them.
    pub(super) fn good_replicas(&self) -> Option<u64> {
        self.number("min_slaves_good_slaves")
    }
}

/// A role's servers.
pub(super) struct Group<'v, 'a> {
    pub(super) this: Result<Info, AdapterError>,
    pub(super) others: Vec<(&'v Instance<'a>, Result<Info, AdapterError>)>,
}

impl<'v, 'a> Group<'v, 'a> {
    /// All of the role, each asked once.
    pub(super) async fn of(view: &'v View<'a>) -> Self {
        let peers: Vec<&Instance<'_>> = view.peers.iter().filter(|one| one.role == view.this.role).collect();
        let (this, infos) =
            futures_util::join!(info(&view.this), join_all(peers.iter().map(|peer| info(peer))));
        Self { this, others: peers.into_iter().zip(infos).collect() }
    }

    /// The others that say they are master.
    pub(super) fn masters(&self) -> Vec<(&'v Instance<'a>, &Info)> {
        let master = |(peer, info): &'_ (&'v Instance<'a>, Result<Info, AdapterError>)| {
            info.as_ref().is_ok_and(Info::is_master).then_some(*peer)
        };
        let found = self.others.iter().filter_map(|one| Some((master(one)?, one.1.as_ref().ok()?)));
        found.collect()
    }

    /// What is wrong with the others, in one line.
    pub(super) fn others_lag(&self) -> Option<String> {
        let lags = |(peer, info): &(&Instance<'_>, Result<Info, AdapterError>)| match info {
            Err(error) => Some(error.message.clone()),
            Ok(info) => {
                let loads = info.loading().map(|part| format!("it loads its data ({part}%)"));
                let lags = || info.is_replica().then(|| info.lags()).flatten();
                loads.or_else(lags).map(|why| format!("{}: {why}", peer.node))
            }
        };
        let lags: Vec<String> = self.others.iter().filter_map(lags).collect();
        (!lags.is_empty()).then(|| lags.join("; "))
    }
}

/// Asks a server about itself.
pub(super) async fn info(server: &Instance<'_>) -> Result<Info, AdapterError> {
    match server.redis(&[&["INFO"]]).await?.pop() {
        Some(Reply::Text(text)) => Ok(Info::parse(&text)),
        Some(Reply::Error(text)) => Err(said(server, "INFO", &text)),
        _ => Err(said(server, "INFO", "an answer that is no text")),
    }
}

/// What a server said to a command that it did not do.
pub(super) fn said(server: &Instance<'_>, command: &str, what: &str) -> AdapterError {
    AdapterError::new(format!("{} of {}: {command}: {what}", server.role, server.node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_redis_says() {
        let text = "# Server\r\nredis_version:7.0.15\r\n# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
                    slave0:ip=10.0.0.2,port=6379,state=online,offset=42,lag=0\r\n\
                    slave1:ip=10.0.0.3,port=6380,state=wait_bgsave,offset=0,lag=0\r\n\
                    slave_read_repl_offset:9\r\nmaster_failover_state:no-failover\r\n";
        let info = Info::parse(text);
        assert!(info.is_master() && info.has_failover() && info.failover().is_none());
        let one = Replica { ip: "10.0.0.2".to_owned(), port: 6379, online: true, offset: 42 };
        let other = Replica { ip: "10.0.0.3".to_owned(), port: 6380, online: false, offset: 0 };
        assert_eq!(info.replicas(), [one, other]);
        for (version, known) in
            [("5.0.4", false), ("6.0.16", false), ("6.2.0", true), ("8.0", true), ("", false)]
        {
            assert_eq!(
                Info::parse(&format!("redis_version:{version}\r\n")).has_failover(),
                known,
                "{version}"
            );
        }
    }
}
