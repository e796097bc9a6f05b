//! Adapters against servers that say what a test wants: what the real ones say seldom, or did years ago.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::{Adapter as _, Credentials, Instance, Reach, Stream, View, known};
use crate::recipe::{Api, OrTemplate, ServiceKind};
use crate::rollout::Held;

/// Whole texts by what is asked, as it stands in the request.
pub(super) type Answers = Vec<(&'static str, String)>;

/// Servers by port.
#[derive(Debug, Default)]
pub(super) struct Fake {
    kind: Option<ServiceKind>,
    servers: BTreeMap<u16, Answers>,
}

impl Reach for Fake {
    fn open<'a>(
        &'a self,
        _: &'a str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, String>> + 'a>> {
        Box::pin(async move {
            let answers = self.servers.get(&port).ok_or("refused")?.clone();
            let (ours, theirs) = duplex(1 << 16);
            let close = self.kind == Some(ServiceKind::Zookeeper);
            tokio::spawn(serve(theirs, answers, close));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

async fn serve(mut stream: DuplexStream, answers: Answers, close: bool) {
    let mut bytes = vec![0; 4096];
    while let Ok(length) = stream.read(&mut bytes).await
        && length > 0
    {
        let asked = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let found = answers.iter().find(|(words, _)| asked.contains(words));
        let answer = found.map_or("-ERR unknown\r\n", |(_, answer)| answer.as_str());
        if stream.write_all(answer.as_bytes()).await.is_err() || close {
            return;
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

impl Fake {
    pub(super) fn new(kind: ServiceKind, servers: impl IntoIterator<Item = (u16, Answers)>) -> Self {
        Self { kind: Some(kind), servers: servers.into_iter().collect() }
    }

    fn instance(&self, port: u16) -> Instance<'_> {
        Instance {
            node: format!("n{port}").parse().unwrap(),
            role: "it".parse().unwrap(),
            kind: self.kind.unwrap(),
            address: "127.0.0.1".to_owned(),
            api: Api { port: Some(OrTemplate::Value(port)), ..Api::default() },
            credentials: Credentials::default(),
            product: None,
            reach: Some(self),
        }
    }

    /// The server on `port` of those on `all`.
    pub(super) fn view<'a>(&'a self, port: u16, all: &[u16], off: &'a [String]) -> View<'a> {
        let peers = all.iter().filter(|one| **one != port).map(|one| self.instance(*one)).collect();
        View { this: self.instance(port), peers, off, target: None, budget: 1, joins: false }
    }
}

pub(super) fn why(held: &Held) -> &str {
    match held {
        Held::Yes => "yes",
        Held::NotYet(why) | Held::Never(why) | Held::Moving { what: why, .. } => why,
    }
}

fn zookeeper(mode: &str, synced: usize, pending: usize) -> Answers {
    vec![
        ("srvr", format!("Zookeeper version: 3.8.0\nMode: {mode}\n")),
        ("mntr", format!("zk_version\t3.8.0\nzk_synced_followers\t{synced}\nzk_pending_syncs\t{pending}\n")),
    ]
}

#[tokio::test]
async fn zookeeper_keeps_its_quorum() {
    let adapter = known(ServiceKind::Zookeeper);
    let ensemble = |synced, pending| {
        let leader = zookeeper("leader", synced, pending);
        let followers = [2, 3].map(|port| (port, zookeeper("follower", 0, 0)));
        Fake::new(ServiceKind::Zookeeper, followers.into_iter().chain([(1, leader)]))
    };
    let all = [1, 2, 3];
    let fake = ensemble(2, 0);
    for port in all {
        let view = fake.view(port, &all, &[]);
        assert_eq!(adapter.may_leave(&view).await, Ok(Held::Yes));
        assert_eq!(adapter.rank(&view).await, Ok(u32::from(port == 1)));
    }
    let pending = ensemble(2, 1);
    let held = adapter.may_leave(&pending.view(2, &all, &[])).await.unwrap();
    assert!(why(&held).contains("1 syncs pending"), "{held:?}");
    let short = ensemble(1, 0);
    let held = adapter.may_leave(&short.view(2, &all, &[])).await.unwrap();
    assert!(why(&held).contains("a quorum needs 2"), "{held:?}");
    let off = ["zookeeper-quorum".to_owned(), "zookeeper-in-sync".to_owned()];
    assert_eq!(adapter.may_leave(&short.view(2, &all, &off)).await, Ok(Held::Yes));
    // Two cannot spare one, and say how to do it nevertheless.
    let held = adapter.may_leave(&ensemble(1, 0).view(2, &[1, 2], &[])).await.unwrap();
    assert!(why(&held).contains("predicates_off = [\"zookeeper-quorum\"]"), "{held:?}");
}

#[tokio::test]
async fn zookeeper_says_which_words_are_missing() {
    let adapter = known(ServiceKind::Zookeeper);
    let mut leader = zookeeper("leader", 1, 0);
    leader[1].1 = "mntr is not executed because it is not in the whitelist.\n".to_owned();
    let fake = Fake::new(ServiceKind::Zookeeper, [(1, leader), (2, zookeeper("follower", 0, 0))]);
    let error = adapter.settled(&fake.view(2, &[1, 2], &[])).await.unwrap_err();
    assert!(error.message.contains("4lw.commands.whitelist=srvr,mntr"), "{error}");
    let off = ["zookeeper-in-sync".to_owned()];
    assert_eq!(adapter.settled(&fake.view(2, &[1, 2], &off)).await, Ok(Held::Yes));
    // It answers and serves nobody.
    let idle = vec![("srvr", "This ZooKeeper instance is not currently serving requests\n".to_owned())];
    let fake = Fake::new(ServiceKind::Zookeeper, [(1, idle)]);
    let held = adapter.ready(&fake.view(1, &[1], &[])).await.unwrap();
    assert!(why(&held).contains("not currently serving"), "{held:?}");
}

fn redis(version: &str, rest: &str) -> Answers {
    let info = format!("redis_version:{version}\r\nloading:0\r\nuptime_in_seconds:9\r\n{rest}");
    vec![("INFO", bulk(&info)), ("CONFIG", "*2\r\n$19\r\nmin-slaves-to-write\r\n$1\r\n1\r\n".to_owned())]
}

fn replica(version: &str) -> Answers {
    redis(
        version,
        "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:1\r\nmaster_link_status:up\r\n\
         master_sync_in_progress:0\r\nslave_repl_offset:7\r\n",
    )
}

const MASTER: &str =
    "role:master\r\nmaster_repl_offset:7\r\nslave0:ip=127.0.0.1,port=2,state=online,offset=7,lag=0\r\n";

#[tokio::test]
async fn an_old_redis_master_is_refused_with_what_to_do() {
    let adapter = known(ServiceKind::Redis);
    let fake = Fake::new(ServiceKind::Redis, [(1, redis("5.0.4", MASTER)), (2, replica("5.0.4"))]);
    let held = adapter.may_leave(&fake.view(1, &[1, 2], &[])).await.unwrap();
    assert!(matches!(&held, Held::Never(why) if why.contains("5.0.4 has no FAILOVER")), "{held:?}");
    let off = ["redis-failover".to_owned()];
    let view = fake.view(1, &[1, 2], &off);
    assert_eq!(adapter.drain(&view, &[]).await, Ok(Held::Yes));
    // Its replicas are rolled as others are.
    let view = fake.view(2, &[1, 2], &[]);
    assert_eq!(adapter.drain(&view, &[]).await, Ok(Held::Yes));
    assert_eq!(adapter.settled(&view).await, Ok(Held::Yes));
}

#[tokio::test]
async fn a_replica_that_the_master_needs_may_not_leave() {
    let adapter = known(ServiceKind::Redis);
    let master = redis("7.0.15", &format!("{MASTER}min_slaves_good_slaves:1\r\n"));
    let fake = Fake::new(ServiceKind::Redis, [(1, master), (2, replica("7.0.15"))]);
    let held = adapter.may_leave(&fake.view(2, &[1, 2], &[])).await.unwrap();
    assert!(why(&held).contains("redis-min-replicas"), "{held:?}");
    let off = ["redis-min-replicas".to_owned()];
    assert_eq!(adapter.may_leave(&fake.view(2, &[1, 2], &off)).await, Ok(Held::Yes));
}

#[tokio::test]
async fn nobody_leaves_while_a_replica_lags_unless_that_is_turned_off() {
    let adapter = known(ServiceKind::Redis);
    let lags = redis(
        "7.0.15",
        "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:1\r\nmaster_link_status:down\r\n\
         master_sync_in_progress:1\r\nslave_repl_offset:1\r\n",
    );
    let servers = [(1, redis("7.0.15", MASTER)), (2, replica("7.0.15")), (3, lags)];
    let fake = Fake::new(ServiceKind::Redis, servers);
    let held = adapter.may_leave(&fake.view(2, &[1, 2, 3], &[])).await.unwrap();
    assert!(why(&held).contains("n3"), "{held:?}");
    let off = ["redis-in-sync".to_owned()];
    assert_eq!(adapter.may_leave(&fake.view(2, &[1, 2, 3], &off)).await, Ok(Held::Yes));
}

#[tokio::test]
async fn two_masters_never_settle_and_a_cluster_is_refused() {
    let adapter = known(ServiceKind::Redis);
    let alone = "role:master\r\nmaster_repl_offset:7\r\n";
    let fake = Fake::new(ServiceKind::Redis, [(1, redis("7.0.15", alone)), (2, redis("7.0.15", alone))]);
    let held = adapter.settled(&fake.view(1, &[1, 2], &[])).await.unwrap();
    assert!(why(&held).contains("n2 and n1 all say that they are the master"), "{held:?}");
    let master = redis("7.0.15", &format!("{MASTER}cluster_enabled:1\r\n"));
    let fake = Fake::new(ServiceKind::Redis, [(1, master), (2, replica("7.0.15"))]);
    let held = adapter.may_leave(&fake.view(1, &[1, 2], &[])).await.unwrap();
    assert!(matches!(&held, Held::Never(why) if why.contains("Redis Cluster")), "{held:?}");
}

#[tokio::test]
async fn whoever_is_no_kafka_is_told_of() {
    let adapter = known(ServiceKind::Kafka);
    let web = vec![("", "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned())];
    let fake = Fake::new(ServiceKind::Kafka, [(1, web)]);
    let error = adapter.ready(&fake.view(1, &[1], &[])).await.unwrap_err();
    assert!(error.message.contains("no Kafka answers there"), "{error}");
    let error = adapter.ready(&fake.view(2, &[2], &[])).await.unwrap_err();
    assert!(error.message.contains("nothing answers on port 2"), "{error}");
}
